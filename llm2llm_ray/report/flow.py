"""Inside a round: how many rows the student and the teacher had open at each moment, so that their overlap can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.timing.intervals import Interval, merged

WIDTH, HEIGHT = 360, 120
"""The picture's own units: the student above the middle line, the teacher below it."""
_MIDDLE = HEIGHT / 2
_REACH = 44.0
_BINS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One finished round. Moments are Unix seconds; `bands` are left and width, in chart units, of the time both worked."""

    iteration: int
    seconds: float
    student_at: Interval | None
    teacher_at: Interval | None
    student_path: str
    teacher_path: str
    student_most: int
    teacher_most: int
    bands: tuple[tuple[float, float], ...]
    both_s: float
    teacher_s: float
    share_before_last_answer: float | None
    first_call_after_s: float | None


def flows(run: RunRecord) -> list[Flow]:
    """Of every round in force, by iteration."""
    return [_flow(record.round, list(run.round_rows(record.folder))) for record in run.rounds()]


def _flow(stage: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Flow:
    student, teacher = _intervals(rows, "solved"), _intervals(rows, "asked")
    begin = min((start for start, _ in student + teacher), default=0.0)
    end = max((stop for _, stop in student + teacher), default=0.0)
    scale = WIDTH / (end - begin) if end > begin else 0.0
    busy_student, busy_teacher = merged(student), merged(teacher)
    both = [(max(a, c), min(b, d)) for a, b in busy_student for c, d in busy_teacher if max(a, c) < min(b, d)]
    overlap = stage["result"].get("overlap") or {}
    student_path, student_most = _area(student, begin, end, upwards=True)
    teacher_path, teacher_most = _area(teacher, begin, end, upwards=False)
    return Flow(
        iteration=stage["iteration"],
        seconds=end - begin,
        student_at=_ends(student),
        teacher_at=_ends(teacher),
        student_path=student_path,
        teacher_path=teacher_path,
        student_most=student_most,
        teacher_most=teacher_most,
        bands=tuple((round((a - begin) * scale, 2), round((b - a) * scale, 2)) for a, b in both),
        both_s=sum(b - a for a, b in both),
        teacher_s=sum(b - a for a, b in busy_teacher),
        share_before_last_answer=overlap.get("share_before_last_answer"),
        first_call_after_s=overlap.get("first_call_after_s"),
    )


def _intervals(rows: Iterable[Mapping[str, Any]], role: str) -> list[Interval]:
    """When each row was open with that role; rows it never had are left out."""
    pairs = ((row.get(f"{role}_from"), row.get(f"{role}_until")) for row in rows)
    return sorted((start, stop) for start, stop in pairs if start is not None and stop is not None)


def _ends(intervals: Sequence[Interval]) -> Interval | None:
    return (intervals[0][0], max(stop for _, stop in intervals)) if intervals else None


def _area(intervals: Sequence[Interval], begin: float, end: float, *, upwards: bool) -> tuple[str, int]:
    """An SVG path of the rows open (the most in each of the bins), and the most of all."""
    if not intervals or end <= begin:
        return "", 0
    most_in = [0] * _BINS
    # An end comes before a start at the same moment: a slot handed on is not two open rows.
    steps = sorted([(start, 1) for start, _ in intervals] + [(stop, -1) for _, stop in intervals])
    now, last = 0, 0
    for moment, step in steps:
        here = min(_BINS - 1, int((moment - begin) / (end - begin) * _BINS))
        for between in range(last, here + 1):
            most_in[between] = max(most_in[between], now)
        now += step
        most_in[here] = max(most_in[here], now)
        last = here
    most = max(most_in)
    sign = -1 if upwards else 1
    heights = [_MIDDLE + sign * (_REACH * value / most if most else 0.0) for value in most_in]
    width = WIDTH / _BINS
    outline = " ".join(f"L{i * width:.1f},{y:.1f} L{(i + 1) * width:.1f},{y:.1f}" for i, y in enumerate(heights))
    return f"M0,{_MIDDLE:.1f} {outline} L{WIDTH},{_MIDDLE:.1f} Z", most
