"""Iteration by iteration: what the student got right, how the data grew, what an accepted row cost; and the two charts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.accuracy import Grades
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import asked_about
from llm2llm_ray.report.wording import per

WIDTH, HEIGHT = 360, 150
"""The charts' own units; the page scales them to its columns."""
_LEFT, _RIGHT, _TOP, _FLOOR = 34, 352, 14, 128
_MOST_LABELS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One finished iteration. Seconds and tokens are None where no stage record says them."""

    index: int
    rows: int
    updates: int | None
    evaluated: int
    wrong: int
    unanswered: int
    value: float
    low: float
    high: float
    asked: int
    asked_about: str
    """Which rows, where not simply the wrong ones; else ""."""
    accepted: int
    rejected: int
    train_s: float | None
    round_s: float | None
    commit_s: float | None
    teacher_tokens: int | None
    student_tokens: int | None

    @property
    def calls_each(self) -> float | None:
        return per(self.asked, self.accepted)

    @property
    def teacher_tokens_each(self) -> float | None:
        return per(self.teacher_tokens, self.accepted)

    @property
    def student_tokens_each(self) -> float | None:
        return per(self.student_tokens, self.accepted)

    @property
    def seconds_each(self) -> float | None:
        """Of the round and its commit; training is not counted."""
        return None if self.round_s is None else per(self.round_s + (self.commit_s or 0.0), self.accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One iteration in a chart, in chart units. `low` and `high` end a whisker or a column."""

    x: float
    y: float
    low: float
    high: float
    width: float
    base: float
    label: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    marks: tuple[Mark, ...]
    line: str
    grid: tuple[tuple[float, str], ...]


def turns(run: RunRecord) -> list[Turn]:
    results = {record.iteration: record.round["result"] for record in run.rounds()}
    return [_turn(item, results.get(item["index"])) for item in run.iterations]


def _turn(item: dict[str, Any], result: dict[str, Any] | None) -> Turn:
    """`result`: of the round's stage record."""
    round_, seconds = item["round"], item["seconds"]
    grades = Grades.of(round_)
    share = grades.accuracy
    return Turn(
        index=item["index"],
        rows=item["dataset"]["num_rows"],
        updates=item["student"]["metrics"].get("updates"),
        evaluated=grades.evaluated,
        wrong=grades.wrong,
        unanswered=grades.unanswered,
        value=share.value,
        low=share.low,
        high=share.high,
        asked=round_["asked"],
        asked_about=asked_about(round_),
        accepted=round_["accepted"],
        rejected=sum(round_["rejected"].values()),
        train_s=seconds.get("train"),
        round_s=seconds.get("round"),
        commit_s=seconds.get("commit"),
        teacher_tokens=result["teacher_prompt_tokens"] + result["teacher_completion_tokens"] if result else None,
        student_tokens=result["student_tokens"] if result else None,
    )


def accuracy_chart(found: Sequence[Turn]) -> Chart:
    """The share of the source rows answered right, with 95 % intervals, on an axis from 0 to 100 %."""
    shown = [turn for turn in found if turn.evaluated]
    marks = tuple(
        Mark(
            x=x, y=_y(turn.value), low=_y(turn.low), high=_y(turn.high), width=width, base=_FLOOR,
            label=_label(turn.index, len(shown)), value=f"{100 * turn.value:.0f}",
        )
        for turn, (x, width) in zip(shown, _places(len(shown)), strict=True)
    )  # fmt: skip
    line = " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in marks)
    return Chart(marks=marks, line=line, grid=tuple((_y(share), f"{share:.0%}") for share in (0.0, 0.5, 1.0)))


def growth_chart(found: Sequence[Turn], grown: int | None) -> Chart:
    """Rows of D^0, D^1, ... as columns; `base` is where the seeds end. `grown`: rows of the version after the last, if any."""
    sizes = [turn.rows for turn in found] + ([grown] if grown is not None else [])
    most = max(sizes, default=1)
    marks = tuple(
        Mark(
            x=x, y=_y(size / most), low=_FLOOR, high=_y(size / most), width=width, base=_y(sizes[0] / most),
            label=_label(index, len(sizes)), value=f"{size:,}",
        )
        for index, (size, (x, width)) in enumerate(zip(sizes, _places(len(sizes)), strict=True))
    )  # fmt: skip
    return Chart(marks=marks, line="", grid=((_y(0.0), "0"), (_y(1.0), f"{most:,}")))


def _y(share: float) -> float:
    return round(_FLOOR - (_FLOOR - _TOP) * share, 2)


def _places(number: int) -> list[tuple[float, float]]:
    """Middle and width of each of `number` columns."""
    slot = (_RIGHT - _LEFT) / max(number, 1)
    return [(round(_LEFT + slot * (i + 0.5), 2), round(min(34.0, slot * 0.6), 2)) for i in range(number)]


def _label(index: int, number: int) -> str:
    """Every label while they fit, then every other, and so on."""
    return str(index) if index % (1 + (number - 1) // _MOST_LABELS) == 0 else ""
