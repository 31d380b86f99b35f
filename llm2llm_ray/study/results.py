"""What a finished cell says, read from its run folder: accuracies, graded rows, new rows, updates, tokens, seconds. No Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.accuracy import grade
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.study.cells import Cell

WHO = ("untrained", "baseline", "kept", "teacher")
"""Who of a cell's exams a study tells of. `kept` is what its method came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    cell: Cell
    accuracy: Mapping[str, float]
    """Of those in WHO that were examined."""
    marks: Mapping[str, Mapping[str, bool]]
    """Who -> id of a test row -> whether the answer is right."""
    updates: int
    """Behind the kept student's weights."""
    rows: int
    """It was trained on, seeds among them."""
    accepted: tuple[int, ...]
    """New rows of each round that brought any or could have."""
    rejected: int
    """Texts of the teacher's that became no row."""
    tokens: int
    """Of teacher prompts and replies."""
    seconds: float
    """Of the stages that ran for this cell; what was taken from another cell costs nothing."""
    taken: int
    """Stages taken from other cells."""


def result_of(run: RunRecord, cell: Cell) -> CellResult | None:
    """None while the run is not finished, or where it held no exams."""
    report, exams = run.report, run.exams
    if report is None or exams is None:
        return None
    iterations, kept = report["iterations"], int(report.get("kept", len(report["iterations"]) - 1))
    # The rounds of the report, not all in the folder: with changed settings it holds others, too.
    rounds = [record.round["result"] for record in run.rounds()]
    own = [stage for stage in run.stages if "taken_from" not in stage]
    accuracy = exams["accuracy"]
    return CellResult(
        cell=cell,
        accuracy={who: float(accuracy[who]["value"]) for who in WHO if who in accuracy},
        marks={who: _marks(run, accuracy[who]) for who in WHO if who in accuracy},
        updates=int(accuracy["kept"].get("updates", 0)),
        rows=int(iterations[kept]["dataset"]["num_rows"]),
        accepted=tuple(int(item["round"]["accepted"]) for item in iterations if item["grown"]),
        rejected=sum(sum(item["round"]["rejected"].values()) for item in iterations),
        tokens=sum(int(told["teacher_prompt_tokens"]) + int(told["teacher_completion_tokens"]) for told in rounds),
        seconds=sum(float(stage["ended"] - stage["started"]) for stage in own),
        taken=len(run.stages) - len(own),
    )


def _marks(run: RunRecord, told: Mapping[str, Any]) -> dict[str, bool]:
    return {row["id"]: grade(row) == "right" for row in run.round_rows(told["rows"])}


def graded_rows(run: RunRecord, cell: Cell) -> Iterator[dict[str, Any]]:
    """Every test row of every exam of a finished cell, as columns."""
    exams = run.exams
    for who in WHO if exams else ():
        told = (exams or {})["accuracy"].get(who)
        for row in sorted(run.round_rows(told["rows"]), key=lambda row: str(row["id"])) if told else ():
            yield {
                "cell": cell.name, "method": cell.label, "draw": cell.draw, "run_seed": cell.run_seed, "size": cell.size,
                "who": who, "row_id": row["id"], "gold": row["output"], "answer": row["answer"],
                "right": grade(row) == "right", "unanswered": grade(row) == "unanswered",
            }  # fmt: skip
