"""What accuracy is, for everything that speaks of it: sums over graded rows, their intervals, and two students on the same rows.

A row is right, wrong or unanswered. Accuracy is the right ones of all rows, so a row without an answer lowers it, and is told
as a number of its own: it is no mistake that a teacher could write rows for. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

KNOWN = 0.95
"""Share of its training rows' completion tokens from which a student knows these rows."""
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of rows with its 95 % interval (Wilson 1927), which holds for small n and near 0 and 1.

    Example: Proportion(hits=30, total=40, value=0.75, low=0.598, high=0.858)
    """

    hits: int
    total: int
    value: float
    low: float
    high: float


def proportion(hits: int, total: int) -> Proportion:
    if total == 0:
        return Proportion(hits=0, total=0, value=math.nan, low=0.0, high=1.0)
    p, z2 = hits / total, _Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Proportion(hits=hits, total=total, value=p, low=max(0.0, middle - half), high=min(1.0, middle + half))


Grade = Literal["right", "wrong", "unanswered"]


def grade(row: Mapping[str, Any]) -> Grade:
    """Of a row with the student's answer: `correct` says what the task's grader found, `error` why there is no answer."""
    return "unanswered" if row["error"] else "right" if row["correct"] else "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grades:
    """Rows counted by their grade. Example: Grades(evaluated=40, wrong=8, errors={"prompt_too_long": 2}).right == 30"""

    evaluated: int
    wrong: int
    errors: Mapping[str, int] = field(default_factory=dict)
    """Why a row has no answer -> how many have none for that reason."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Grades:
        """From the counts that the record of a round or an exam holds among others."""
        return cls(evaluated=told["evaluated"], wrong=told["wrong"], errors=told.get("errors", {}))

    @property
    def unanswered(self) -> int:
        return sum(self.errors.values())

    @property
    def right(self) -> int:
        return self.evaluated - self.wrong - self.unanswered

    @property
    def accuracy(self) -> Proportion:
        return proportion(self.right, self.evaluated)

    @property
    def nothing_wrong(self) -> bool:
        """Whether every answer is right. Not so where there is no answer at all: then nothing is known."""
        return self.wrong == 0 and self.right > 0


def unanswered(told: Mapping[str, Any]) -> int:
    """Rows without an answer, of what was told of a round or an exam. Example: unanswered({"errors": {"refused": 2}}) == 2"""
    return sum(told.get("errors", {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Accuracy of one student minus another's on the same rows, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not shown to differ"


def paired_difference(ours: Mapping[str, bool], theirs: Mapping[str, bool]) -> Difference:
    """Difference of two accuracies on the same rows (row id -> right); interval of Agresti and Min 2005 (half a row per cell).

    Pairing matters: the rows both get right say nothing about the difference. It is the spread over test rows for these
    two students; the spread between training runs comes on top and needs more runs.
    """
    rows = ours.keys() & theirs.keys()
    if not rows:
        return Difference(value=math.nan, low=-1.0, high=1.0)
    gained = sum(ours[r] and not theirs[r] for r in rows)
    lost = sum(theirs[r] and not ours[r] for r in rows)
    n, b, c = len(rows) + 2, gained + 0.5, lost + 0.5
    centre = (b - c) / n
    half = _Z95 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return Difference(value=(gained - lost) / len(rows), low=max(-1.0, centre - half), high=min(1.0, centre + half))
