"""Rows as they stand in a round's folder, and a drained stream that writes them there: the runtime's part, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.rounds.augmenting import ASKED, UNTOUCHED
from llm2llm_ray.rounds.judging import JUDGED, UNJUDGED
from llm2llm_ray.rounds.solving import SOLVED
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import Lineage

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "input", "output", "origin", "seed_id")]
    + [(name, _ARROW[kind]) for name, kind in {**SOLVED, **ASKED}.items()]
)
"""Of a round in which nobody votes."""
VOTED = pa.schema([*SCHEMA, *((name, _ARROW[kind]) for name, kind in JUDGED.items() if name not in SCHEMA.names)])


def solved(id: str, *, correct: bool = True, error: str = "", **other: Any) -> dict[str, Any]:
    """A graded row that no teacher was asked about."""
    return {
        "id": id, "input": f"text of {id}", "output": "billing", "origin": "seed", "seed_id": None,
        "completion": " billing" if correct else " account", "answer": "billing" if correct else "account",
        "correct": correct, "weakness": None if error else float(not correct), "truncated": False, "error": error,
        "error_detail": "", "solved_from": 0.0, "solved_until": 1.0,
        "prompt_tokens": 10, "completion_tokens": 2, "replica": "r-1", "weights_sha": "abc", **UNTOUCHED, **other,
    }  # fmt: skip


def augmented(id: str, *texts: str, output: str = "billing", rejected: Sequence[str] = (), **other: Any) -> dict[str, Any]:
    """A wrong row with the drafts (`texts`) and the rejections (reasons) of its one request."""
    lineage = Lineage(
        seed_id=id, parent_id=id, iteration=0, ordinal=0, attempt=0, wrong_answer=" account", prompt_sha="9f3c",
        teacher="t", sampling_seed=1,
    )  # fmt: skip
    found = [asdict(Candidate(input=text, output=output, lineage=lineage, index=i)) for i, text in enumerate(texts)]
    asked = {
        "asked": 1,
        "candidates": json.dumps(found),
        "rejected": json.dumps(
            [{"reason": reason, "detail": "", "text": "x", "ordinal": 0, "attempt": 0} for reason in rejected]
        ),
        "asked_from": 1.0,
        "asked_until": 2.0,
        "teacher_prompt_tokens": 100,
        "teacher_completion_tokens": 20,
    }
    return solved(id, correct=False) | asked | other


def judged(row: Mapping[str, Any], *verdicts: str, said: Sequence[str | None] = (), **other: Any) -> dict[str, Any]:
    """A row whose candidates were voted on, one vote each (`said`; a text with a colon is an error)."""
    votes = []
    for index, (verdict, word) in enumerate(zip(verdicts, said or [None] * len(verdicts), strict=True)):
        error = word if word and ":" in word else ""
        vote = {"said": None if error else word, "agrees": verdict == "confirmed", "error": error}
        votes.append({"ordinal": 0, "attempt": 0, "index": index, "verdict": verdict, "votes": [vote]})
    asked = {"judged": len(verdicts), "judge_prompt_tokens": 50, "judge_completion_tokens": 3, "votes": json.dumps(votes)}
    return {**UNJUDGED, **row, **asked, **other}


def write_rows(files: Files, folder: str, rows: Sequence[Mapping[str, Any]], rows_per_file: int = 2) -> None:
    for start in range(0, len(rows), rows_per_file):
        with pa.BufferOutputStream() as sink:
            some = [dict(row) for row in rows[start : start + rows_per_file]]
            voted = any("votes" in row for row in rows)
            table = [UNJUDGED | row for row in some] if voted else some
            pq.write_table(pa.Table.from_pylist(table, schema=VOTED if voted else SCHEMA), sink)
            files.write_once(f"{folder}/{start:06d}.parquet", sink.getvalue().to_pybytes())


@dataclass
class Stream:
    """What RecordedVersions drains. `after` runs once all rows are written (raise in it to die there)."""

    files: Files
    rows: Sequence[Mapping[str, Any]]
    iteration: int = 0
    about: str = "M0 on D0"
    after: Callable[[], None] = lambda: None
    rows_per_file: int = 2
    folders: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"about": self.about, "iteration": self.iteration}

    def drain(self, folder: str) -> None:
        self.folders.append(folder)
        write_rows(self.files, folder, self.rows, self.rows_per_file)
        self.after()
