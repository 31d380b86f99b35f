"""The student's role in a stream: answer one row, greedily, and be graded. Adds the `SOLVED` columns to the row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm_ray.asking.request import AskModel, Request
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Prompt, Reply

SOLVED: Mapping[str, type] = {
    "completion": str,
    "answer": str,
    "correct": bool,
    "truncated": bool,
    "error": str,
    "solved_from": float,
    "solved_until": float,
    "prompt_tokens": int,
    "completion_tokens": int,
    "replica": str,
    "weights_sha": str,
}
"""Columns that solving adds; times are Unix seconds, `error` says why a row has no answer ("" normally)."""


NO_BUDGET = "budget_exhausted"


class Solve:
    """`shots` turns the same role into the teacher's own exam: worked examples stand before the question."""

    def __init__(self, task: Task, *, max_tokens: int, shots: Sequence[Example] = ()) -> None:
        self._task = task
        self._sampling = {"temperature": 0.0, "max_tokens": max_tokens}
        self._shots = shots

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        started = time.time()
        if self._shots:
            prompt = self._task.shots_prompt(row["input"], self._shots)
        else:
            prompt = Prompt(text=self._task.student_prompt(row["input"]))
        try:
            reply = await ask(Request(row_id=row["id"], prompt=prompt, sampling=self._sampling))
        except BudgetExhausted as stop:  # the teacher's own exam: the row stays unanswered, and the exam says so
            reply = Reply(text="", finish_reason="error", error=f"{NO_BUDGET}: {stop}")
        answered = not reply.error
        return row | {
            "completion": reply.text,
            "answer": self._task.answer(reply.text) if answered else None,
            "correct": answered and self._task.is_correct(row["output"], reply.text),
            "truncated": reply.finish_reason == "length",
            "error": reply.error.partition(":")[0],
            "solved_from": started,
            "solved_until": time.time(),
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "replica": reply.replica,
            "weights_sha": reply.weights_sha,
        }
