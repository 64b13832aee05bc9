"""Every workload, round by round, each round with every contender in turn: a slow minute of the machine hits all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import psycopg

from benchmarks.contenders import Contender
from benchmarks.parts import MissingPartError
from benchmarks.program import ProgramError
from benchmarks.reading import WrongEffectsError
from benchmarks.results import Note
from benchmarks.session import Session, Workload, chosen
from benchmarks.workloads import WORKLOADS

_LONGEST_NOTE: Final = 600
# A contender's failure is a result; anything else is a fault of the benchmark.
_FAILURES: Final = (WrongEffectsError, ProgramError, MissingPartError, AssertionError, OSError, psycopg.Error)


def run_all(session: Session, contenders: Sequence[Contender]) -> None:
    """All that the options ask for. A contender that fails, or does what it shouldn't, is out of that workload."""
    missing = {one.key: one.missing() for one in contenders}
    for workload in WORKLOADS:
        if workload.name in session.options.workloads:
            able = _able(session, workload, chosen(contenders, workload.name), missing)
            _run(session, workload, able)


def _able(
    session: Session, workload: Workload, contenders: Sequence[Contender], missing: dict[str, str | None]
) -> list[Contender]:
    """Who takes part; of the others it is said why not."""
    able = []
    for contender in contenders:
        reason = missing[contender.key] or workload.reason_to_skip(contender, session.options)
        if reason is None:
            able.append(contender)
            continue
        session.results.skipped.append(Note(workload.name, contender.key, reason))
        print(f"{workload.name:<9} {contender.label}: left out: {reason}", flush=True)
    return able


def _run(session: Session, workload: Workload, contenders: list[Contender]) -> None:
    out: set[str] = set()
    for number in range(max((workload.rounds(one, session.options) for one in contenders), default=0)):
        # The first of a round isn't always the same one.
        turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        for contender in turn:
            if contender.key not in out and number < workload.rounds(contender, session.options):
                _run_once(session, workload, contender, number, out)


def _run_once(session: Session, workload: Workload, contender: Contender, number: int, out: set[str]) -> None:
    began = time.perf_counter()
    before = {id(one): len(one.values) for one in session.results.measurements}
    try:
        workload.run(contender, session)
    except _FAILURES as error:
        out.add(contender.key)
        session.results.wrong.append(Note(workload.name, contender.key, str(error)[-_LONGEST_NOTE:]))
        print(f"{workload.name:<9} {contender.label}: FAILED: {error}", flush=True)
        return
    new = [one for one in session.results.measurements if len(one.values) != before.get(id(one), 0)]
    found = "; ".join(f"{one.metric.name} {one.values[-1]:,.{one.metric.digits}f} {one.metric.unit}" for one in new)
    print(
        f"{workload.name:<9} round {number + 1} {contender.label}: {found} ({time.perf_counter() - began:.0f} s)",
        flush=True,
    )
