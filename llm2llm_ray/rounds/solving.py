"""The student's role in a stream: answer one row, greedily, and be graded. Adds the `SOLVED` columns to the row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llm2llm_ray.asking.no_answer import NO_BUDGET, detail_of, reason_of
from llm2llm_ray.asking.request import AskModel, Request
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Prompt, Reply

SOLVED: Mapping[str, type] = {
    "completion": str,
    "answer": str,
    "correct": bool,
    "weakness": float,
    "truncated": bool,
    "error": str,
    "error_detail": str,
    "solved_from": float,
    "solved_until": float,
    "prompt_tokens": int,
    "completion_tokens": int,
    "replica": str,
    "weights_sha": str,
}
"""Columns that solving adds. Times are Unix seconds; `error` says why a row has no answer ("" normally), `error_detail` in the
words of whoever refused it. `weakness` (higher is weaker; weakness.py) is null then, and in rows of before there was one."""


class Solve:
    def __init__(self, task: Task, *, max_tokens: int, structured: bool = False) -> None:
        """`structured`: the answer must be one of the task's choices."""
        self._task, self._structured = task, structured
        self._sampling = {"temperature": 0.0, "max_tokens": max_tokens}

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        started = time.time()
        try:
            reply = await ask(self.request(row["id"], row["input"]))
        except BudgetExhausted as stop:  # the teacher's own exam: the row stays unanswered, and the exam says so
            reply = Reply(text="", finish_reason="error", error=f"{NO_BUDGET}: {stop}")
        return self.graded(row, reply, started)

    def graded(self, row: Mapping[str, Any], reply: Reply, started: float) -> dict[str, Any]:
        """The row with this reply for its answer."""
        answered = not reply.error
        correct = answered and self._task.is_correct(row["output"], reply.text)
        return {**row} | {
            "completion": reply.text,
            "answer": self._task.answer(reply.text) if answered else None,
            "correct": correct,
            "weakness": float(not correct) if answered else None,
            "truncated": reply.finish_reason == "length",
            "error": reason_of(reply.error),
            "error_detail": detail_of(reply.error),
            "solved_from": started,
            "solved_until": time.time(),
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "replica": reply.replica,
            "weights_sha": reply.weights_sha,
        }

    def request(self, row_id: str, text: str) -> Request:
        """What is asked for one row."""
        return Request(row_id=row_id, prompt=Prompt(text=self._task.student_prompt(text)), sampling=self._sampling_of(text))

    def _sampling_of(self, text: str) -> Mapping[str, Any]:
        choices = self._task.choices(text) if self._structured else None
        return self._sampling if choices is None else {**self._sampling, "choice": list(choices)}
