"""How many timeouts, enrolments and events are taken in per second: one by one, each durable, and in bulk."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.contenders import Contender, Kind
from benchmarks.options import Options
from benchmarks.reading import Reader, WrongEffectsError, require
from benchmarks.results import Metric
from benchmarks.session import Session

ONE: Final = Metric("one by one", "timeouts/s", has_ratio=True)
BULK: Final = Metric("bulk", "timeouts/s", has_ratio=True)
ENROL: Final = Metric("enroll_many", "campaigns/s")
EVENTS: Final = Metric("process_events", "events/s")
_METRICS: Final = {"one": ONE, "bulk": BULK, "enrol": ENROL, "events": EVENTS}
# Of the size given to this project and the limit.
_PEERS_SINGLES: Final = 0.5
_PEERS_BULK: Final = 0.2
_ENROLMENTS: Final = 0.4
_EVENTS: Final = 0.1


class Schedule:
    """Each contender times itself, with everything built before; what it stored is counted here."""

    name = "schedule"

    def rounds(self, _contender: Contender, options: Options) -> int:
        """All."""
        return options.rounds

    def reason_to_skip(self, _contender: Contender, _options: Options) -> str | None:
        """Nobody."""
        return None

    def run(self, contender: Contender, session: Session) -> None:
        """On an empty database."""
        options = session.options
        wanted = {"one": options.singles, "bulk": options.bulk}
        if contender.kind is Kind.PEER:
            wanted = {"one": int(options.singles * _PEERS_SINGLES), "bulk": int(options.bulk * _PEERS_BULK)}
        elif contender.kind is Kind.OURS:
            wanted |= {"enrolments": int(options.bulk * _ENROLMENTS), "events": int(options.bulk * _EVENTS)}
        with session.stage.place(contender, "empty", tuple) as place:
            answer = contender.ask(place, "schedule", **wanted)
            if contender.kind is Kind.PEER:
                _verify_stored(answer, wanted)
            else:
                with Reader(place.url) as reader:
                    require(reader, _expected(wanted))
        for name, metric in _METRICS.items():
            if name in answer:
                session.results.add(self.name, contender.key, metric, answer[name])


def _verify_stored(answer: dict[str, Any], wanted: dict[str, int]) -> None:
    expected = sum(count for name, count in wanted.items() if name in answer)
    if answer["stored"] != expected:
        raise WrongEffectsError(f"{answer['stored']} jobs are stored instead of {expected}")


def _expected(wanted: dict[str, int]) -> dict[str, int]:
    actions = "SELECT count(*) FROM scheduled_actions WHERE status = 'pending' AND tenant_id LIKE "
    expected = {f"{actions}'one-%'": wanted["one"], f"{actions}'bulk-%'": wanted["bulk"]}
    if "enrolments" in wanted:
        campaigns = "SELECT count(*) FROM contact_campaigns WHERE status = "
        expected |= {
            f"{campaigns}'active' AND tenant_id LIKE 'tenant-%'": wanted["enrolments"],
            f"{actions}'tenant-%'": 2 * wanted["enrolments"],
            f"{campaigns}'completed' AND tenant_id LIKE 'event-%'": wanted["events"],
            "SELECT count(*) FROM campaign_events WHERE outcome = 'transitioned'": wanted["events"],
            f"{actions}'event-%'": 0,
        }
    return expected
