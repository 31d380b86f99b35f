"""Solving blind: what is asked says nothing of the answer that was meant, and a reply is read for what it states, not guessed."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.tasks.casehold import CaseHold
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Prompt

STYLES = ("chat", "completion")
LABELS = ("billing", "Log in", "R&D: other", "Ärger", "3")
TASK = Classification(labels=LABELS, item="ticket", question="Topic")


def text_of(prompt: Prompt) -> str:
    return prompt.text or "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


PASSAGE = {"context": "as a court said in A v. B (<HOLDING>).", "choices": [f"holding {word}" for word in "vwxyz"]}
KINDS: list[tuple[Task, list[dict[str, object]]]] = [
    (TASK, [{"text": "How much?", "label": "billing"}, {"text": "I am locked out", "label": "Log in"}]),
    (Gsm8k(), [{"question": "How many are 6 bags of 7?", "answer": "6*7=<<6*7=42>>42\n#### 42"}]),
    (CaseHold(), [PASSAGE | {"label": 3}]),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("task", "rows"), KINDS, ids=["classification", "gsm8k", "casehold"])
def test_what_all_texts_share_stands_first(task: Task, rows: list[dict[str, object]], style: str) -> None:
    shown = [task.example(row, f"s-{number}") for number, row in enumerate(rows)]
    prompts = [task.judge_prompt(text, shown, style=style) for text in ("first text?", "Another, longer text.")]
    assert all(bool(prompt.messages) == (style == "chat") and bool(prompt.text) == (style == "completion") for prompt in prompts)
    one, other = map(text_of, prompts)
    before = "".join(char for char, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    assert all(row.input in before for row in shown) and not before.endswith("first text?")
    assert "first text?" in one and len(one) - len(before) < 40
    assert "<<" not in one, "calculator marks are not trained, so they are not shown"


@pytest.mark.parametrize("style", STYLES)
def test_a_task_of_ones_own_asks_by_its_worked_examples(style: str) -> None:
    class Theirs(Gsm8k):
        judge_prompt = Task.judge_prompt
        judge_answer = Task.judge_answer

    shots = [Example(id="s", input="How many is 1 + 1?", output="1 + 1 = 2\n#### 2")]
    task = Theirs()
    assert task.judge_prompt("How many?", shots, style=style) == task.shots_prompt("How many?", shots)
    assert (task.judge_answer("2 + 2 = 4\n#### 4"), task.judge_answer("It is 4.")) == ("4", None)


def test_labels_are_described_and_examples_of_all_labels_stand_beside_each_other() -> None:
    task = Classification(labels={"billing": "charges", "login": ""})
    rows = [Example(id=str(n), input=f"text {n}", output=label) for n, label in enumerate(["billing", "billing", "login"])]
    system, asked = task.judge_prompt("Where is\nit?", rows, style="chat").messages
    assert "- billing: charges\n- login\n" in system.content
    assert [system.content.index(f'"text {n}"') for n in (0, 2, 1)] == sorted(
        system.content.index(f'"text {n}"') for n in range(3)
    )
    assert asked.content == 'Request: "Where is\\nit?"\nIntent:'
    completed = task.judge_prompt("Where is\nit?", rows, style="completion")
    assert completed.text.endswith("Request: text 1\nIntent: billing\n\nRequest: Where is it?\nIntent:")
    assert completed.stop == ("\n",)


WRAPPED = (
    "{}", " {} \n", '"{}"', "**{}**", "`{}`.", "Label: {}", "label: '{}'", "**Topic:** {}", "Answer: {}.", '{{"label": "{}"}}',
    '```json\n{{"topic": "{}"}}\n```', '```\n{{"text": "x", "Label": "{}"}}', "<think>Is it\nbilling?</think>{}",
    "{}\n\nIt asks for that.", "Label: {}\n",
)  # fmt: skip


@given(st.sampled_from(LABELS), st.sampled_from(WRAPPED), st.sampled_from([str, str.upper, str.lower]))
def test_a_label_is_read_through_what_a_chat_wraps_around_it(label: str, wrapped: str, case: object) -> None:
    said = case(label) if callable(case) else label
    assert TASK.judge_answer(wrapped.format(said)) == label


@given(st.sampled_from(LABELS), st.text(st.characters(categories=["L"]), min_size=1), st.text(min_size=0, max_size=5))
def test_a_label_inside_a_sentence_is_no_answer(label: str, word: str, more: str) -> None:
    assert TASK.judge_answer(f"I think that {label} {word} fits{more}") is None
    assert TASK.judge_answer(f"The label is {label}, {word}") is None


@pytest.mark.parametrize(
    "reply",
    [
        "", "<think>billing", "billing\nLog in", "Label: billing\nLabel: 3", '{"label": "billing"', '{"label": ["billing"]}',
        '{"label": true}', '{"label": "other"}', '["billing"]', "[" * 100_000, '{"label":' * 50_000, "unknown",
    ],
)  # fmt: skip
def test_what_states_no_one_label_is_no_answer(reply: str) -> None:
    assert TASK.judge_answer(reply) is None


def test_a_number_in_json_may_be_a_label() -> None:
    assert TASK.judge_answer('{"label": 3}') == "3"


@given(st.text() | st.text(alphabet='{}[]":\\label# A-E\n', max_size=60))
def test_any_reply_is_read_and_gives_an_answer_of_the_task_or_none(reply: str) -> None:
    assert TASK.judge_answer(reply) in (None, *LABELS)
    assert CaseHold().judge_answer(reply) in (None, *"ABCDE")
    number = Gsm8k().judge_answer(reply)
    assert number is None or Gsm8k().is_correct(f"#### {number}", f"#### {number}")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"), ("(b)", "B"), ("**D**", "D"), ("Answer: C", "C"), ("Holding: E: holding that it is", "E"),
        ('{"answer": "A"}', "A"), ("B: holding that a court may", "B"), ("A court may choose B", None), ("A or B", None),
        ("B\n\nC", None), ("<think>A</think>\nD", "D"),
    ],
)  # fmt: skip
def test_a_choice_is_read(reply: str, letter: str | None) -> None:
    assert CaseHold().judge_answer(reply) == letter


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("6 * 7 = 42\n#### 42", "42"), ("#### 42 eggs", "42"), ("#### 1\nAgain.\n#### $1,200.50", "1200.5"),
        ("So \\boxed{7} or rather \\boxed{8}.", "8"), ("It is 9.\n**Answer:** 9", "9"), ("The final answer is 10.", "10"),
        ("#### 12 or 18\nAnswer: 12", None), ("It is 9.", None), ("Answer: 3 or 4", None), ("<think>#### 4</think>", None),
    ],
)  # fmt: skip
def test_a_solution_is_read(reply: str, number: str | None) -> None:
    assert Gsm8k().judge_answer(reply) == number
