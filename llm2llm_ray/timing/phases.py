"""The events of a run as phases: each names what the run did between two events, and together they leave no gap. Pure.

Invariant: within a session (one start of the command) phases are disjoint and cover it from its first event to its last sign
of life; between two sessions nothing ran and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTING, ENGINES, BETWEEN, REPORT = "starting", "engines", "between stages", "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Example: Phase(session=0, group="iteration 1", name="train", key="7d26…", started=17953.4, ended=17955.9, finished=True)"""

    session: int
    group: str
    """What it belongs to: `iteration i`, `test` (exams and the baseline's training) or `around` (start, engines, report)."""
    name: str
    """`starting` (Ray, the driver), `engines`, a stage (train, fold, baseline, round, commit, exam), `between stages`,
    `report`."""
    key: str | None
    """The stage's key; None for what is no stage."""
    started: float
    ended: float
    """Unix seconds."""
    finished: bool
    """False for what a kill, a stop or a lost driver broke off, and for what is still going on."""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


def phases(events: Sequence[Mapping[str, Any]], signs: Iterable[float] = ()) -> list[Phase]:
    """`signs`: further times (Unix seconds) at which the run was alive; a session that was killed ends at its last one."""
    cuts = _sessions(events)
    alive = sorted([*signs, *(float(event["time"]) for event in events)])
    found: list[Phase] = []
    for number, session in enumerate(cuts):
        next_start = _began(cuts[number + 1][0]) if number + 1 < len(cuts) else float("inf")
        last = max((time for time in alive if time < next_start), default=_began(session[0]))
        found += _of_session(number, session, last)
    return found


def _began(event: Mapping[str, Any]) -> float:
    """`asked`, where there is one, is when the command began; the event itself comes after models and Ray."""
    return float(event.get("asked", event["time"]))


def _sessions(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """One list of events per start. What comes after `finished` without a start (`llm2llm evaluate`) is a session of its own."""
    found: list[list[Mapping[str, Any]]] = []
    over = True
    for event in events:
        if over or event["event"] == "started":
            found.append([])
        found[-1].append(event)
        over = event["event"] == "finished"
    return found


def _of_session(number: int, events: Sequence[Mapping[str, Any]], last: float) -> Iterator[Phase]:
    """Each event that ends a phase closes what went on since the one before."""
    at, opened = _began(events[0]), None
    doing = STARTING if events[0]["event"] == "started" else BETWEEN

    def phase(name: str, until: float, stage: Mapping[str, Any] | None = None, *, finished: bool = True) -> Phase:
        # Bookkeeping before a stage counts to that stage's iteration, but is not the stage.
        key = stage["key"] if stage and name != BETWEEN else None
        return Phase(session=number, group=_group(stage), name=name, key=key, started=at, ended=until, finished=finished)

    for event in events:
        time, kind = float(event["time"]), event["event"]
        match kind:
            case "driver_started":
                yield phase(opened["stage"], time, opened, finished=False) if opened else phase(STARTING, time)
                opened, doing = None, ENGINES
            case "engines_up" if opened:  # they came up beside the first training
                continue
            case "engines_up":
                yield phase(ENGINES, time)
                doing = BETWEEN
            case "stage_started":
                yield phase(opened["stage"], time, opened, finished=False) if opened else phase(BETWEEN, time, event)
                opened = event
            case "stage_finished":
                yield phase(event["stage"], time, event)
                opened = None
            case "finished":
                yield phase(REPORT, time)
            case _:
                continue
        at = time
    if last > at:
        yield phase(opened["stage"] if opened else doing, last, opened, finished=False)


def _group(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return "around"
    return "test" if stage["stage"] in ("exam", "baseline") else f"iteration {stage['iteration']}"
