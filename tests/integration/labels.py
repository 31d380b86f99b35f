"""The smallest task that can be trained on, and rows for it."""

from __future__ import annotations

from collections.abc import Mapping

from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected


class Labels(Task):
    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        return Example(id=row_id, input=str(row["input"]), output=str(row["output"]))

    def student_prompt(self, text: str) -> str:
        return f"Question: {text}\nAnswer:"

    def answer(self, completion: str) -> str | None:
        return completion.strip() or None

    def is_correct(self, output: str, completion: str) -> bool:
        return completion.strip() == output

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        return Prompt(text=mistake.example.input)

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        return [Draft(input=reply, output=mistake.example.output)]


def rows(first: int, last: int) -> list[Example]:
    labels = ["billing", "shipping", "login"]
    return [
        Example(id=f"s-{n}", input=f"Where is number {n} of my account" + " now" * (n % 5), output=labels[n % 3])
        for n in range(first, last)
    ]
