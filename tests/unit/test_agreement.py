"""Solving again: at least 80 % of the wrong sums go, at most 5 % of the right ones. Real GSM8K rows as a teacher's replies, every
fifth with a wrong sum, and a scripted solver that is not always right and repeats some of the teacher's slips."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from stream_rows import augmented
from task_data import real_rows

from llm2llm_ray.asking.request import Request
from llm2llm_ray.asking.scripted import ScriptedTeacher
from llm2llm_ray.augmentation.gates import check
from llm2llm_ray.config import AugmentationConfig, RelabelConfig, TeacherConfig
from llm2llm_ray.rounds.blind_exam import shown_blind
from llm2llm_ray.rounds.judging import Judge
from llm2llm_ray.rounds.rows import candidates_of
from llm2llm_ray.tasks.arithmetic import without_marks
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.types import Draft, Example, Graded, Reply

TASK = Gsm8k()
ROWS, SEEDS, SOLUTIONS = 200, 8, 10
"""Problems, real rows before them, and solutions that the solver has of each."""
_MISTAKE = Graded(example=Example(id="s", input="How many?", output="#### 1"), completion=" 2", answer=None, correct=False)


def slipped(answer: str, draw: random.Random) -> str:
    """The same solution with another last number, in its last step too."""
    steps, _, number = answer.rpartition("#### ")
    value = int(number.replace(",", ""))
    wrong = value + draw.choice([-10, -2, -1, 1, 2, 10])
    return f"{steps.replace(f'= {value}', f'= {wrong}').replace(f'={value}', f'={wrong}')}#### {wrong}"


def written() -> tuple[list[tuple[str, str, str]], list[Example]]:
    """(question, the teacher's answer, the right answer) of the problems, and the real rows shown."""
    draw = random.Random(5)
    real = [TASK.example(row, f"g-{n}") for n, row in enumerate(real_rows("gsm8k/test.jsonl"))]
    whole = [row for row in real if (TASK.answer(row.output) or "x").lstrip("-").isdigit()]
    found = []
    for number, row in enumerate(whole[SEEDS : SEEDS + ROWS]):
        right = without_marks(row.output)
        found.append((row.input, slipped(right, draw) if number % 5 == 0 else right, right))
    return found, whole[:SEEDS]


def drafted(question: str, answer: str) -> Draft:
    """As the task reads it from a reply and the stateless gates let it pass."""
    (draft,) = TASK.parse(f"Question: {question}\nAnswer: {answer}", _MISTAKE, style="chat", count=1, cut=False)
    assert isinstance(draft, Draft) and check(draft, _MISTAKE, TASK, AugmentationConfig(max_words=1000)) is None
    return draft


def solver(problems: list[tuple[str, str, str]], right_of_10: int) -> ScriptedTeacher:
    """Of a problem's wrong solutions every fourth is the teacher's slip, the others are slips of its own."""
    draw = random.Random(7)
    lines = []
    for question, told, right in problems:
        wrong = [told if told != right and n % 4 == 0 else slipped(right, draw) for n in range(SOLUTIONS - right_of_10)]
        lines += [{"match": question, "reply": reply} for reply in [right] * right_of_10 + wrong]
    return ScriptedTeacher(lines)


@pytest.mark.parametrize(
    ("right_of_10", "settings"),
    [(9, {"votes": 3}), (8, {"votes": 5, "needed": 2})],
    ids=["solver right 9 of 10 times, 2 of 3 votes", "8 of 10 times, 2 of 5 votes"],
)
def test_wrong_sums_go_and_right_ones_stay(right_of_10: int, settings: dict[str, Any]) -> None:
    problems, seeds = written()
    asked = solver(problems, right_of_10)
    judge = Judge(
        TASK, shown_blind(TASK, seeds, 2), settings=RelabelConfig(**settings), asked=TeacherConfig(model="m"), run_seed=0
    )

    async def ask(request: Request) -> Reply:
        return await asked.ask(request.prompt, **request.asked_with)

    async def go() -> list[dict[str, Any]]:
        drafts = [drafted(question, told) for question, told, _ in problems]
        rows = [augmented(f"r-{n}", draft.input, output=draft.output) for n, draft in enumerate(drafts)]
        return await asyncio.gather(*[judge(row, ask) for row in rows])

    judged = asyncio.run(go())
    gone: dict[bool, list[bool]] = {True: [], False: []}
    for (_, told, right), row in zip(problems, judged, strict=True):
        gone[told == right].append(not candidates_of(row))
    wrong, fine = (sum(gone[kind]) / len(gone[kind]) for kind in (False, True))
    votes = sum(row["judged"] for row in judged) / len(judged)
    print(f"{len(gone[False])} wrong sums: {wrong:.1%} gone; {len(gone[True])} right: {fine:.1%} gone; {votes:.2f} votes each")
    assert len(gone[False]) == ROWS // 5
    assert wrong >= 0.8 and fine <= 0.05
