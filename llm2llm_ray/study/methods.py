"""The built-in methods of a study: what each changes in the base config. Everything else is the same in all cells.

A method other than a loop goes by the settings of the loop that it is compared with (`StudySpec.reference`), so that a table's
rows differ in what they are named after and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Given = Literal["duplicated", "eda", "more_real", "pool"]
"""Rows that no model is asked for (given_rows.py)."""

_NO_TEACHER: Mapping[str, Any] = {
    "teacher.kind": "rows", "teacher.replies": None, "evaluation.teacher_on_test": False, "evaluation.check_teacher": False,
    "augmentation.require_better_teacher": False, "gates.relabel.votes": 0,
}  # fmt: skip
"""Who is not asked for rows is not examined, and cannot vote on them."""
_ONCE: Mapping[str, Any] = {"augmentation.targets": "all", "augmentation.one_shot": True}
_GIVEN_ONCE: Mapping[str, Any] = {**_NO_TEACHER, **_ONCE, "run.iterations": 2}
# EDA's rows are near copies by design, and duplicates are copies: the gates that refuse these are off.
_COPIED_ONCE: Mapping[str, Any] = {**_GIVEN_ONCE, "augmentation.copies": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Example: Method(about="as many rows for random seeds", changes={"augmentation.targets": "random"}, equal_rows=True)"""

    about: str
    """For the table's reader."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """section.field -> value."""
    source: str | None = None
    """`evaluation.error_source` of a loop; None: not a loop."""
    equal_rows: bool = False
    """May have no more new rows than its reference."""
    given: Given | None = None
    only_seeds: bool = False
    blind: bool = False
    """Which rows the student gets wrong changes nothing."""


def _loop(source: str, about: str) -> Method:
    return Method(about=f"the loop; errors from {about}", changes={"evaluation.error_source": source}, source=source)


METHODS: Mapping[str, Method] = {
    "seeds": Method(about="seeds only", changes={"run.iterations": 1}, only_seeds=True, blind=True),
    "loop_seed": _loop("seed", "the seeds"),
    "loop_dev": _loop("dev", "dev rows"),
    "loop_early": _loop("early", "the seeds, before they were known by heart"),
    "loop_cross_fit": _loop("cross_fit", "the seeds, by students that never saw them"),
    "random": Method(about="the teacher's rows for random seeds", changes={"augmentation.targets": "random"}, equal_rows=True),
    "one_shot": Method(about="the teacher's rows for all seeds, once (AugGPT)", changes=_ONCE, equal_rows=True, blind=True),
    "augment_augmented": Method(about="new rows are augmented too", changes={"augmentation.augment_augmented": True}),
    "continue_from_previous": Method(about="trained on from the student before", changes={"student.start_from": "previous"}),
    "more_real": Method(about="more real rows", changes=_GIVEN_ONCE, equal_rows=True, given="more_real", blind=True),
    "duplicated": Method(about="the seeds again", changes=_COPIED_ONCE, equal_rows=True, given="duplicated", blind=True),
    "eda": Method(about="EDA: words swapped or left out", changes=_COPIED_ONCE, equal_rows=True, given="eda", blind=True),
    "pool": Method(about="for each wrong seed the nearest real row: a ceiling", changes=_NO_TEACHER, given="pool"),
}
