"""What a round left in storage: every graded row with what was asked and written for it, read back in canonical order.

A round is the drained stream of one iteration (or one exam): a folder of Parquet files whose rows are the stream's.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from llm2llm_ray.accuracy import grade
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import Lineage

_BATCH_ROWS = 4096


def round_rows(files: Files, folder: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows, file by file; their order is the order of arrival. `columns` that are not there are left out."""
    for path in files.list(folder):
        if path.endswith(".parquet"):
            with files.open_input(path) as stream, pq.ParquetFile(stream) as parquet:
                known = None if columns is None else [name for name in columns if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=known):
                    yield from batch.to_pylist()


def candidates_of(row: Mapping[str, Any]) -> list[Candidate]:
    """The drafts that passed the stateless gates for this row."""
    return [Candidate(**(item | {"lineage": Lineage(**item["lineage"])})) for item in json.loads(row["candidates"])]


def tally(files: Files, folder: str) -> dict[str, Any]:
    """Counts, tokens and the times at which the two roles worked (Unix seconds), from what is stored.

    `asked` counts the teacher's requests, `rows_asked` the rows they were about, `right_asked` those of them that the student got
    right, `teacher_errors` those without a reply, `other_group` the candidates with another label than the one asked for.
    `judged` counts the votes asked for, `rows_judged` the rows whose candidates they were about, `judge_errors` those of them
    with a candidate for which too few could be had; `confirmed`, `doubted` and `unheard` count candidates.
    """
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    teacher_errors: Counter[str] = Counter()
    judge_errors: Counter[str] = Counter()
    last, first_wrong, asked = -math.inf, math.inf, array("d")
    for row in round_rows(files, folder, _TALLIED):
        counts["evaluated"] += 1
        counts["wrong"] += grade(row) == "wrong"
        counts["truncated"] += bool(row["truncated"])
        counts["student_tokens"] += row["prompt_tokens"] + row["completion_tokens"]
        if row["error"]:
            errors[row["error"]] += 1
        last = max(last, row["solved_until"])
        if grade(row) == "wrong":
            first_wrong = min(first_wrong, row["solved_until"])
        if row.get("asked"):
            counts["asked"] += row["asked"]
            counts["rows_asked"] += 1
            counts["other_group"] += row.get("other_group") or 0
            counts["right_asked"] += grade(row) == "right"
            counts["teacher_prompt_tokens"] += row["teacher_prompt_tokens"]
            counts["teacher_completion_tokens"] += row["teacher_completion_tokens"]
            asked.append(row["asked_from"])
            rejected.update(item["reason"] for item in json.loads(row["rejected"]))
            if row["teacher_error"]:
                teacher_errors[row["teacher_error"]] += 1
        if row.get("votes", "[]") != "[]":
            verdicts = json.loads(row["votes"])
            counts["rows_judged"] += 1
            counts.update(item["verdict"] for item in verdicts)
            counts["votes_without_answer"] += sum(vote["said"] is None for item in verdicts for vote in item["votes"])
            for name in ("judged", "judge_prompt_tokens", "judge_completion_tokens"):
                counts[name] += row[name]
            if row["judge_error"]:
                judge_errors[row["judge_error"]] += 1
        counts["budget_stops"] += bool(row.get("budget_stop"))
    return {
        **{name: counts[name] for name in _COUNTS},
        "errors": dict(sorted(errors.items())),
        "rejected": dict(sorted(rejected.items())),
        "teacher_errors": dict(sorted(teacher_errors.items())),
        "judge_errors": dict(sorted(judge_errors.items())),
        "overlap": _overlap(asked, first_wrong, last),
    }


_COUNTS = (
    "evaluated", "wrong", "truncated", "asked", "rows_asked", "right_asked", "other_group", "budget_stops",
    "student_tokens", "teacher_prompt_tokens", "teacher_completion_tokens",
    "judged", "rows_judged", "confirmed", "doubted", "unheard", "votes_without_answer", "judge_prompt_tokens",
    "judge_completion_tokens",
)  # fmt: skip


_TALLIED = (
    "correct", "error", "truncated", "solved_until", "prompt_tokens", "completion_tokens", "asked", "other_group", "asked_from",
    "rejected", "teacher_error", "budget_stop", "teacher_prompt_tokens", "teacher_completion_tokens",
    "judged", "votes", "judge_error", "judge_prompt_tokens", "judge_completion_tokens",
)  # fmt: skip


def _overlap(asked: Sequence[float], first_wrong: float, last: float) -> dict[str, float | None]:
    """How much of the teacher's work began while the student was still being evaluated.

    `first_call_after_s` runs from the end of the first wrong answer to the first teacher call.
    """
    if not asked or first_wrong == math.inf:
        return {"share_before_last_answer": None, "first_call_after_s": None}
    return {
        "share_before_last_answer": sum(start < last for start in asked) / len(asked),
        "first_call_after_s": min(asked) - first_wrong,
    }
