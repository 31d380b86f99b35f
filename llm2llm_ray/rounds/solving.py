"""The student's role in a stream: answer one row, greedily, and be graded. Adds the `SOLVED` columns to the row."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any

from llm2llm_ray.asking.no_answer import NO_BUDGET, detail_of, reason_of
from llm2llm_ray.asking.request import AskModel, Request, merged_system
from llm2llm_ray.config.schedule import TEACHER_SHOTS
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Prompt, Reply

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
    """`shots` turns the same role into the teacher's own exam: worked examples stand before the question."""

    def __init__(
        self,
        task: Task,
        *,
        max_tokens: int,
        shots: Sequence[Example] = (),
        merge_system: bool = False,
        structured: bool = False,
    ) -> None:
        """`merge_system`: the model asked knows no system role. `structured`: its answer must be one of the task's choices."""
        self._task, self._structured = task, structured
        self._merge_system = merge_system
        self._sampling = {"temperature": 0.0, "max_tokens": max_tokens}
        self._shots = shots

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
        task, shots = self._task, self._shots
        prompt = task.shots_prompt(text, shots) if shots else Prompt(text=task.student_prompt(text))
        choices = task.choices(text) if self._structured else None
        sampling = self._sampling if choices is None else {**self._sampling, "choice": list(choices)}
        return Request(row_id=row_id, prompt=merged_system(prompt) if self._merge_system else prompt, sampling=sampling)


def exam_shots(seeds: Iterable[Example]) -> list[Example]:
    """The worked examples of the teacher's own exam, whatever order the seeds come in."""
    return nsmallest(TEACHER_SHOTS, seeds, key=lambda e: e.id)
