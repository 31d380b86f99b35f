"""When each stage ran, on one axis: the time the run was up. Pauses between its sessions are cut out and marked.

What a session is, and which stages it broke off, is the timeline's business (timing.timeline): page and benchmark agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.report.flow import Flow
from llm2llm_ray.report.wording import duration
from llm2llm_ray.timing.intervals import Interval
from llm2llm_ray.timing.timeline import Timeline

_ORDER = ("engines", "train", "fold", "baseline", "round", "student", "teacher", "commit", "exam")
_STEPS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Work of one lane between two moments (Unix seconds). Example: Span(lane="train", label="0", began=…, ended=…)"""

    lane: str
    label: str
    began: float
    ended: float
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Left and width in percent of the axis."""

    left: float
    width: float
    label: str
    title: str
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    name: str
    total: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    breaks: tuple[tuple[float, str], ...]
    seconds: float


class UpTime:
    """The run's sessions, laid end to end."""

    def __init__(self, sessions: Sequence[Interval]) -> None:
        """`sessions`: begin and end of each (Unix seconds), in order."""
        self.sessions = sessions

    @property
    def seconds(self) -> float:
        return sum(end - begin for begin, end in self.sessions)

    def at(self, moment: float) -> float:
        """Seconds the run had been up by that moment."""
        return sum(max(0.0, min(end, moment) - begin) for begin, end in self.sessions)

    def pauses(self) -> list[tuple[float, float]]:
        """Where a pause was cut out (seconds up) and how long it was (seconds)."""
        gaps = zip(self.sessions, self.sessions[1:], strict=False)
        return [(self.at(end), begin - end) for (_, end), (begin, _) in gaps]


def lanes(run: RunRecord, timeline: Timeline, flows: Iterable[Flow]) -> Lanes:
    spans = [*_engines(run), *_stages(run), *_broken_off(timeline), *_roles(flows)]
    up = UpTime(timeline.sessions)
    total = up.seconds or 1.0
    found = []
    others = sorted({span.lane for span in spans} - set(_ORDER))
    for name in (*_ORDER, *others):
        own = sorted((span for span in spans if span.lane == name), key=lambda span: span.began)
        if own:
            seconds = sum(span.ended - span.began for span in own)
            found.append(Lane(name=name, total=duration(seconds), bars=tuple(_bar(span, up, total) for span in own)))
    return Lanes(
        lanes=tuple(found),
        ticks=_ticks(up.seconds),
        breaks=tuple((100 * at / total, f"paused for {duration(pause)}") for at, pause in up.pauses()),
        seconds=up.seconds,
    )


def _bar(span: Span, up: UpTime, total: float) -> Bar:
    left, right = (100 * up.at(moment) / total for moment in (span.began, span.ended))
    title = f"{span.lane} {span.label}".strip() + f" · {duration(span.ended - span.began)}" + (" · not finished" * span.open)
    return Bar(left=left, width=max(0.0, right - left), label=span.label, title=title, open=span.open)


def _engines(run: RunRecord) -> list[Span]:
    return [
        Span(lane="engines", label="", began=event["time"] - event["seconds"], ended=event["time"])
        for event in run.events
        if event["event"] == "engines_up"
    ]


def _stages(run: RunRecord) -> list[Span]:
    examined = {told["rows"]: who for who, told in run.exams["accuracy"].items()} if run.exams else {}
    return [
        Span(lane=lane, label=label, began=stage["started"], ended=stage["ended"])
        for stage in run.stages
        for lane, label in [_named(stage, examined)]
    ]


def _named(stage: dict[str, Any], examined: dict[str, str]) -> tuple[str, str]:
    if stage["name"] == "exam":
        return "exam", examined.get(stage["result"]["folder"], "")
    return ("baseline", "") if stage["iteration"] is None else (stage["name"], str(stage["iteration"]))


def _broken_off(timeline: Timeline) -> list[Span]:
    """Stages that were begun in a session and did not finish in it; also the one that is going on."""
    open_ = [a.phase for a in timeline.activities if a.phase.key is not None and not a.phase.finished]
    return [
        Span(lane=phase.name, label=phase.group.partition("iteration ")[2], began=phase.started, ended=phase.ended, open=True)
        for phase in open_
    ]


def _roles(flows: Iterable[Flow]) -> list[Span]:
    return [
        Span(lane=role, label=str(flow.iteration), began=ends[0], ended=ends[1])
        for flow in flows
        for role, ends in (("student", flow.student_at), ("teacher", flow.teacher_at))
        if ends is not None
    ]


def _ticks(seconds: float) -> tuple[tuple[float, str], ...]:
    """Percent of the axis and label, at round times."""
    if seconds <= 0:
        return ()
    step = next((step for step in _STEPS if seconds / step <= _MOST_TICKS), _STEPS[-1])
    return tuple((100 * i * step / seconds, _tick(i * step)) for i in range(int(seconds / step) + 1))


def _tick(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"
