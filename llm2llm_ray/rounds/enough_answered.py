"""Whether enough rows of a round or an exam were answered for it to count; else the one message that the run stops with.

Checked after the stream has ended and before its stage is recorded: what was answered is in the reply store by then, so the
same command asks only for the rest.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.accuracy import Grades
from llm2llm_ray.asking.no_answer import NOT_RECORDED, PASSING, WANTED, detail_of, reason_of, remedy
from llm2llm_ray.config import MaxUnanswered
from llm2llm_ray.errors import TemporaryFailure, UserError
from llm2llm_ray.rounds.judging import judge_details
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.storage.files import Files

_MOST_CHARACTERS = 400
_KEPT = (
    "The stage does not count as finished. What was answered is kept, and the same command goes on: it asks only for what is "
    "missing"
)
_COLUMNS = ("error", "error_detail", "teacher_error", "rejected", "judge_error", "votes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """Rows without an answer, of those that one model was asked about."""

    told: str
    """How the message calls them."""
    rows: int
    passing: Mapping[str, int]
    refused: Mapping[str, int]

    def too_many(self, limits: MaxUnanswered) -> bool:
        return self._share(self.passing) > limits.passing or self.too_many_refused(limits)

    def too_many_refused(self, limits: MaxUnanswered) -> bool:
        return self._share(self.refused) > limits.refused

    @property
    def reasons(self) -> dict[str, int]:
        return {**self.passing, **self.refused}

    @property
    def missing(self) -> int:
        return sum(self.reasons.values())

    def _share(self, reasons: Mapping[str, int]) -> float:
        return sum(reasons.values()) / self.rows if self.rows else 0.0


def check_answered(files: Files, result: Mapping[str, Any], limits: MaxUnanswered, stage: str) -> None:
    """`result`: the tally of a drained stream, and its folder. `stage`: as a person knows it, for instance "exam (first)".

    Raises UserError where too many rows were refused (somebody must mend or allow that), TemporaryFailure where too many were
    not reached, and where no row at all was answered or no request at all was recorded, whatever is allowed.
    """
    _check_recorded(files, result, stage)
    graded = Grades.of(result)
    student = _gap("{} of {} rows have no answer", graded.evaluated, graded.errors)
    teacher = _gap("{} of {} rows got nothing from the teacher", result["rows_asked"], result["teacher_errors"])
    judge = _gap("{} of {} rows that votes were asked for got too few", result["rows_judged"], result["judge_errors"])
    gaps = [gap for gap in (student, teacher, judge) if gap.too_many(limits)]
    nothing = 0 < graded.evaluated == student.missing
    if nothing and student not in gaps:
        gaps.insert(0, student)
    if not gaps:
        return
    refused = any(gap.too_many_refused(limits) for gap in gaps) or (nothing and bool(student.refused))
    message = _message(gaps, _details(files, result["folder"]), stage, limits, refused)
    raise UserError(message) if refused else TemporaryFailure(message)


def _check_recorded(files: Files, result: Mapping[str, Any], stage: str) -> None:
    asked, missing = result["asked"], result["rejected"].get(NOT_RECORDED, 0)
    if asked and asked == missing:
        said = _details(files, result["folder"]).get(NOT_RECORDED, "")
        raise UserError(
            f"{stage}: none of the {asked} requests to the teacher is recorded{said}; {remedy(NOT_RECORDED)}. {_KEPT}."
        )
    voted = result["rows_judged"]
    if voted and voted == result["judge_errors"].get(NOT_RECORDED, 0):
        raise UserError(
            f"{stage}: the file of recorded replies has too few votes on new rows for each of the {voted} rows that have some; "
            "give one that was made with gates.relabel as it is, let another model vote (judge), or set gates.relabel.votes=0. "
            f"{_KEPT}."
        )


def _gap(told: str, rows: int, errors: Mapping[str, int]) -> _Gap:
    passing = {reason: count for reason, count in errors.items() if reason in PASSING}
    refused = {reason: count for reason, count in errors.items() if reason not in PASSING | WANTED}
    return _Gap(told=told, rows=rows, passing=passing, refused=refused)


def _message(gaps: Sequence[_Gap], details: Mapping[str, str], stage: str, limits: MaxUnanswered, refused: bool) -> str:
    told = []
    for gap in gaps:
        why = ", ".join(f"{count} {reason}{details.get(reason, '')}" for reason, count in gap.reasons.items())
        told.append(f"{gap.told.format(gap.missing, gap.rows)}: {why}")
    if not refused:
        return f"{stage}: {'; '.join(told)}. {_KEPT}, so give it again when whoever was asked can be reached."
    remedies = [remedy(reason) for gap in gaps for reason in gap.refused]
    mend = "; ".join(dict.fromkeys(filter(None, remedies))) or "mend what the message says"
    allow = f"or allow more with evaluation.max_unanswered.refused (a share of the rows, now {limits.refused:g})"
    return f"{stage}: {'; '.join(told)}. To go on, {mend}; {allow}: unanswered rows count as not right. {_KEPT}."


def _details(files: Files, folder: str) -> dict[str, str]:
    """Reason -> what was said most often, in brackets."""
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in round_rows(files, folder, _COLUMNS):
        if row["error"]:
            said[row["error"]][row.get("error_detail") or ""] += 1
        elif row.get("teacher_error"):
            errors = [item["detail"] for item in json.loads(row["rejected"]) if item["reason"] in ("teacher_error", NOT_RECORDED)]
            said[row["teacher_error"]].update(detail_of(error) for error in errors if reason_of(error) == row["teacher_error"])
        elif row.get("judge_error"):
            said[row["judge_error"]].update(judge_details(row))
    found = {reason: max(sorted(texts), key=texts.__getitem__) for reason, texts in said.items() if texts}
    return {reason: f" ({text[:_MOST_CHARACTERS]})" for reason, text in found.items() if text}
