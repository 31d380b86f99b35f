"""Solving blind: what a model is shown, how its reply is held against a row's answer, and a teacher's own exam made of that.

The judge's votes and the teacher's exam ask in the same words, so the exam says how far the votes can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from llm2llm_ray.asking.request import Request, merged_system
from llm2llm_ray.config import Config
from llm2llm_ray.rounds.solving import Solve
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Reply


def shown_blind(task: Task, seeds: Iterable[Example], each: int) -> list[Example]:
    """`each` rows of every group, drawn by a hash of their ids: the same in every vote of a run."""
    groups: dict[str, list[Example]] = {}
    for row in seeds:
        groups.setdefault(task.group(row), []).append(row)
    drawn = [nsmallest(each, groups[name], key=lambda row: sha256(row.id.encode()).digest()) for name in sorted(groups)]
    return [row for rows in drawn for row in rows]


def heard(task: Task, output: str, reply: Reply) -> tuple[str | None, bool]:
    """The answer in a reply, or None, and whether it is that of a row whose gold output is `output`."""
    # The last line of a reply that was cut may be half of another answer.
    text = reply.text.rpartition("\n")[0] if reply.finish_reason == "length" else reply.text
    said = task.judge_answer(text)
    return said, said is not None and (said == task.answer(task.completion(output)) or task.is_correct(output, said))


class BlindExam(Solve):
    """The teacher in the student's place: real rows beside the question, and its reply read as a vote is."""

    def __init__(
        self, task: Task, examples: Sequence[Example], *, style: str, max_tokens: int, merge_system: bool, structured: bool
    ) -> None:
        super().__init__(task, max_tokens=max_tokens, structured=structured)
        self._examples, self._style, self._merge_system = examples, style, merge_system

    def graded(self, row: Mapping[str, Any], reply: Reply, started: float) -> dict[str, Any]:
        said, right = (None, False) if reply.error else heard(self._task, row["output"], reply)
        found = super().graded(row, reply, started)
        return found | {"answer": said, "correct": right, "weakness": None if reply.error else float(not right)}

    def request(self, row_id: str, text: str) -> Request:
        prompt = self._task.judge_prompt(text, self._examples, style=self._style)
        asked = merged_system(prompt) if self._merge_system else prompt
        return Request(row_id=row_id, prompt=asked, sampling=self._sampling_of(text))


def blind_exam(config: Config, task: Task, seeds: Iterable[Example], *, structured: bool = False) -> BlindExam:
    """`structured`: its answer must be one of the task's choices."""
    teacher, relabel = config.teacher, config.gates.relabel
    return BlindExam(
        task, shown_blind(task, seeds, relabel.examples), style=teacher.style, max_tokens=exam_tokens(config),
        merge_system=teacher.system_message == "merge", structured=structured,
    )  # fmt: skip


def exam_tokens(config: Config) -> int:
    """Of one answer of the teacher's."""
    return config.gates.relabel.max_tokens or config.teacher.max_tokens
