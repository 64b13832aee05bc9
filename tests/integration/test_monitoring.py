"""The rules and the dashboard in config/ fit what is really exported, tried with Prometheus's own programs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import generate_latest

from scheduler import CampaignPlan, SendRequest, SendResult, TimeoutScheduler
from scheduler.telemetry.metrics import CollectorRegistry, Metrics
from scheduler.web.application import Health, create_application
from scheduler.web.server import WebServer
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.prometheus_server import Prometheus, promtool, scraping
from tests.support.scheduling import LONG_AGO, make_job, make_settings
from tests.support.walk import make_document, on, send, wait

CHECKOUT: Final = Path(__file__).parents[2]
RULES: Final = CHECKOUT / "config" / "prometheus" / "timeout-scheduler.rules.yml"
RULE_TESTS: Final = RULES.with_name("timeout-scheduler.rules.test.yml")
DASHBOARD: Final = CHECKOUT / "config" / "grafana" / "timeout-scheduler.json"
RUNBOOK: Final = CHECKOUT / "docs" / "how-to" / "react-to-alerts.md"

_NAME: Final = re.compile(r"\btimeout_scheduler_[a-z_]+")
_ALERT: Final = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)


def exported(registry: CollectorRegistry) -> set[str]:
    """Every name under which a sample may be found."""
    names = set()
    for family in registry.collect():
        names |= {family.name, f"{family.name}_total"} if family.type == "counter" else {family.name}
        if family.type == "histogram":
            names |= {f"{family.name}_{end}" for end in ("bucket", "sum", "count")}
    return names


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, with its panel's title, for all jobs and instances."""
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], re.sub(r"\$(job|instance)\b", ".*", expression)


def alerts() -> list[str]:
    return _ALERT.findall(RULES.read_text("utf-8"))


@pytest.mark.parametrize("file", [RULES, RULE_TESTS, DASHBOARD], ids=lambda file: file.name)
def test_only_metrics_that_are_exported_are_asked_for(file: Path) -> None:
    named = set(_NAME.findall(file.read_text("utf-8")))
    assert named - exported(Metrics().registry) == set()


def test_every_metric_has_its_place_on_the_dashboard() -> None:
    shown = {name for _, query in queries() for name in _NAME.findall(query)}
    families = {family.name for family in Metrics().registry.collect()}
    assert {name for name in families if not any(one.startswith(name) for one in shown)} == set()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", DASHBOARD.read_text("utf-8")))
    assert used - variables == set()
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels cover each other"


def test_every_alert_is_tested_and_in_the_runbook() -> None:
    headings = re.findall(r"^### (TimeoutScheduler\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert headings == alerts()
    tested = set(re.findall(r"alertname: (\w+)", RULE_TESTS.read_text("utf-8")))
    assert tested == set(alerts())
    anchors = re.findall(r"runbook: docs/how-to/react-to-alerts.md#(\w+)", RULES.read_text("utf-8"))
    assert anchors == [alert.lower() for alert in alerts()]


def test_the_rules_hold_what_their_own_tests_say() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULE_TESTS)


@pytest.mark.parametrize("query", [pytest.param(query, id=title) for title, query in queries()])
def test_names_and_labels_of_a_query_are_ours(query: str) -> None:
    labels = {"job", "instance", "le"}
    for family in Metrics().registry.collect():
        labels |= {name for sample in family.samples for name in sample.labels}
    labels |= {"action_type", "event_type", "outcome", "reason", "trigger", "counted"}
    grouped = {name.strip() for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(",")}
    assert grouped <= labels


# With a daemon's page, and a Prometheus that scrapes it

SEND_PLAN: Final = CampaignPlan.parse(
    make_document(
        send("mail", on("opened", "read"), on("no_open", "stop", after="PT72H")),
        wait("read", on("clicked", "stop"), on("no_click", "stop", after="PT24H")),
    )
)


class Mailbox:
    """A send handler that fails once."""

    def __init__(self) -> None:
        self._has_failed = False

    def __call__(self, request: SendRequest) -> SendResult:
        """Fail, and then send."""
        if not self._has_failed:
            self._has_failed = True
            raise ValueError("not the first time")
        return SendResult(message_id=f"m-{request.campaign_id}")


@pytest.fixture
def busy(open_scheduler: OpenScheduler, sqlite_url: str) -> TimeoutScheduler:
    """One that has sent, failed, fired, transitioned, and been told of an event too late; it goes on firing."""
    scheduler = open_scheduler(sqlite_url, send_handler=Mailbox(), settings=make_settings())
    campaigns = scheduler.campaigns
    campaigns.enroll("acme", "c-1", "k-1", SEND_PLAN)
    campaigns.enroll("acme", "c-2", "k-2", SEND_PLAN, start_at=LONG_AGO)
    scheduler.schedule(make_job())
    scheduler.start()
    eventually(lambda: _sent(scheduler, "c-1") and _sent(scheduler, "c-2"), 30)
    campaigns.process_event("acme", "opened", "m-c-1", campaign_id="c-1")
    campaigns.process_event("acme", "opened", "m-c-1", campaign_id="c-1", event_id="again")
    return scheduler


def _sent(scheduler: TimeoutScheduler, campaign_id: str) -> bool:
    actions = scheduler.list_actions(tenant_id="acme", campaign_id=campaign_id, statuses=["completed"])
    return any(action.action_type == "send" for action in actions)


def test_what_is_exported_is_as_prometheus_wants_it(busy: TimeoutScheduler) -> None:
    printed = promtool("check", "metrics", given=generate_latest(busy.metrics.registry))
    assert printed == ""


def test_every_query_finds_something_and_every_rule_can_be_evaluated(busy: TimeoutScheduler, tmp_path: Path) -> None:
    health = Health(lambda: None, lambda: None, busy.metrics.registry)
    server = WebServer(create_application(health, None), "127.0.0.1", 0)
    server.start()
    try:
        with scraping(tmp_path, server.port, RULES) as prometheus:
            eventually(lambda: without_result(prometheus) == [], 30)
            eventually(lambda: set(prometheus.rules().values()) == {"ok"}, 30)
            assert list(prometheus.rules()) == alerts()
    finally:
        server.stop()


def without_result(prometheus: Prometheus) -> list[str]:
    return [title for title, query in queries() if not prometheus.query(query)]
