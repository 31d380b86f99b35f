"""What does not fit into a model's context is told before anything starts, by the rule that requests are sent by.

One token is one word here, so lengths can be counted by eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm2llm_ray.asking.answer_length import answer_room
from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import Checked
from llm2llm_ray.runtime.models.prompt_lengths import check_lengths
from llm2llm_ray.runtime.models.tokens import ChatRefused, prompt_ids
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.splits import Splits
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Message, Prompt, Rejected

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }} {% endfor %}"
)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "context", "room"),
    [
        (100, 256, 1024, 256),
        (1000, 256, 1024, 24),
        (1008, 256, 1024, 16),
        (1009, 256, 1024, None),  # 15 left of 256 asked for: a torso
        (1019, 4, 1024, 4),
        (1020, 4, 1024, 4),
        (1021, 4, 1024, None),
        (2000, 1, 1024, None),
    ],
)
def test_the_room_behind_a_prompt(prompt: int, max_tokens: int, context: int, room: int | None) -> None:
    assert answer_room(prompt, max_tokens=max_tokens, context=context) == room


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(16, 5000))
def test_prompt_and_answer_never_exceed_the_context(prompt: int, max_tokens: int, context: int) -> None:
    room = answer_room(prompt, max_tokens=max_tokens, context=context)
    assert room is None or (1 <= room <= max_tokens and prompt + room <= context)


class Words(Task):
    """The student's prompt is the text between two words; the teacher is asked with all that it is shown, and one word."""

    def __init__(self, *, chat: bool = False, choices: Sequence[str] = ()) -> None:
        self.chat, self._choices = chat, choices

    def choices(self, text: str) -> Sequence[str] | None:
        return self._choices or None

    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        raise NotImplementedError

    def student_prompt(self, text: str) -> str:
        return f"question {text} answer"

    def answer(self, completion: str) -> str | None:
        return completion.strip() or None

    def is_correct(self, output: str, completion: str) -> bool:
        return completion.strip() == output

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        text = " ".join(["like", mistake.example.input, *(p.input for p in asked.peers), mistake.completion])
        if self.chat:
            return Prompt(messages=(Message(role="system", content="write"), Message(role="user", content=text)))
        return Prompt(text=text)

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>", chat_template=NO_SYSTEM)


def row(id: str, words: int, gold: int = 1) -> Example:
    return Example(id=id, input=" ".join(["w"] * words), output=" ".join(["g"] * gold))


def checked(seed: list[Example], *, dev: Sequence[Example] = (), test: Sequence[Example] = (), chat: bool = False) -> Checked:
    splits = Splits(seed=seed, dev=list(dev), test=list(test), counts={}, sources={"test": "t.jsonl"})
    return Checked(task=Words(chat=chat), splits=splits)


def config(**sections: dict[str, Any]) -> Config:
    given: dict[str, Any] = {
        "task": {"name": "classification", "data": "x"},
        "student": {"model": "m", "max_length": 64, "engine": {"max_model_len": 64}},
        "teacher": {"kind": "serve", "model": "m", "style": "completion", "max_tokens": 20, "engine": {"max_model_len": 100}},
        "evaluation": {"max_tokens": 4},
        "augmentation": {"examples_in_prompt": 2},
        "run": {"name": "r"},
    }
    return Config.model_validate(
        {"recipe": "paper"} | {name: given.get(name, {}) | sections.get(name, {}) for name in {*given, *sections}}
    )


def told(settings: Config, rows: Checked, tokenizer: Any, *, teacher: bool = True) -> str:
    with pytest.raises(UserError) as refused:
        check_lengths(settings, rows, student=tokenizer, teacher=tokenizer if teacher else None)
    return str(refused.value)


def test_what_fits_passes_to_the_last_token(tokenizer: Any) -> None:
    # 2 + 58 words of prompt leave the 4 tokens of evaluation.max_tokens in 64; trained with a gold of 3 and the end they are 64.
    fitting = [row("s-1", 58, gold=3), row("s-2", 3)]
    to_the_last = 1 + 58 + 3 + 20
    check_lengths(
        config(teacher={"engine": {"max_model_len": to_the_last}}), checked(fitting), student=tokenizer, teacher=tokenizer
    )
    one_less = config(teacher={"engine": {"max_model_len": to_the_last - 1}})
    assert f"teacher.engine.max_model_len={to_the_last - 1}" in told(one_less, checked(fitting), tokenizer)
    assert "student.max_length=64" in told(config(), checked([row("s-1", 58, gold=4)]), tokenizer)


def test_a_seed_that_could_not_be_trained_on_is_named(tokenizer: Any) -> None:
    message = told(
        config(evaluation={"max_tokens": 8}), checked([row("s-1", 3), row("s-2", 58, gold=4)]), tokenizer, teacher=False
    )
    assert "student.max_length=64: 1 of 2 rows" in message and "s-2: prompt and answer have 65 tokens" in message
    assert "set student.max_length=65" in message


@pytest.mark.parametrize(("words", "fits"), [(58, True), (59, False)])
def test_a_prompt_leaves_the_room_that_the_transport_wants(tokenizer: Any, words: int, fits: bool) -> None:
    """59 and 2 words leave 3 of the 4 tokens: the transport would refuse each such request."""
    rows = checked([row("s-1", 3)], test=[row("t-1", 2), row("t-2", words)])
    settings = config(student={"max_length": 200})
    assert (answer_room(words + 2, max_tokens=4, context=64) is not None) == fits
    if fits:
        check_lengths(settings, rows, student=tokenizer, teacher=None)
    else:
        message = told(settings, rows, tokenizer, teacher=False)
        assert (
            "test, student.engine.max_model_len=64: 1 of 2 rows (t.jsonl)" in message
            and "t-2: its prompt has 61 tokens" in message
        )
        assert "set student.engine.max_model_len=65" in message


def test_a_gold_longer_than_answers_may_be_is_told_with_count_and_remedy(tokenizer: Any) -> None:
    """The end of text is not needed for an answer to be right: a gold of exactly max_tokens is."""
    rows = [row(f"t-{n}", 2, gold=n) for n in range(3, 10)]
    message = told(config(), checked([row("s-1", 3, gold=4)], test=rows), tokenizer, teacher=False)
    assert "test, evaluation.max_tokens=4: 5 of 7 rows" in message and "set evaluation.max_tokens=9" in message
    assert "t-9: its right answer has 9 tokens; t-8: its right answer has 8 tokens; t-7:" in message and "and 2 more" in message


def test_a_gold_that_fits_the_answer_but_not_the_context(tokenizer: Any) -> None:
    settings = config(student={"max_length": 200}, evaluation={"max_tokens": 40})
    message = told(settings, checked([row("s-1", 30, gold=35)]), tokenizer, teacher=False)
    assert "s-1: its prompt has 32 tokens, its right answer 35" in message and "set student.engine.max_model_len=67" in message


def held(*choices: str, test: Sequence[Example] = ()) -> Checked:
    found = checked([row("s-1", 3)], test=test)
    return Checked(task=Words(choices=choices), splits=found.splits)


def test_the_longest_choice_and_its_end_must_fit_where_the_student_is_held_to_choices(tokenizer: Any) -> None:
    """Without its end an answer of the longest choice would count as cut."""
    structured = {"max_tokens": 4, "structured": True}
    check_lengths(config(evaluation=structured), held("a", "a b c"), student=tokenizer, teacher=None)
    message = told(config(evaluation=structured), held("a", "a b c d"), tokenizer, teacher=False)
    assert "held to choices (evaluation.structured), evaluation.max_tokens=4: 1 of 1 rows" in message
    assert "s-1: 'a b c d' and its end have 5 tokens" in message and "set evaluation.max_tokens=5" in message
    check_lengths(config(evaluation={"max_tokens": 4}), held("a b c d"), student=tokenizer, teacher=None)

    wide = config(student={"max_length": 200}, evaluation={"max_tokens": 40, "structured": True})
    long = " ".join("a" * 29)
    message = told(wide, held(long, test=[row("t-1", 34)]), tokenizer, teacher=False)
    assert (
        "student.engine.max_model_len=64: 1 of 1 rows (t.jsonl)" in message and "set student.engine.max_model_len=66" in message
    )


def test_where_golds_are_weighed_prompt_gold_end_and_one_token_must_fit(tokenizer: Any) -> None:
    settings = config(student={"max_length": 200}, evaluation={"judge_by": "gold_loss", "max_tokens": 3})
    check_lengths(settings, checked([row("s-1", 57, gold=3)]), student=tokenizer, teacher=None)  # 2 + 57 + 3 + 1 of 64
    message = told(settings, checked([row("s-1", 58, gold=3)]), tokenizer, teacher=False)
    assert "judge_by=gold_loss, student.engine.max_model_len=64" in message and "have 64 tokens. Set" in message
    assert "student.engine.max_model_len=65" in message


def test_dev_rows_are_measured_where_errors_come_from_them_and_seeds_only_for_training(tokenizer: Any) -> None:
    settings = config(student={"max_length": 200}, evaluation={"error_source": "dev"})
    rows = checked([row("s-1", 80)], dev=[row("d-1", 70), row("d-2", 1)])
    message = told(settings, rows, tokenizer, teacher=False)
    assert message.startswith("dev, student.engine.max_model_len=64: 1 of 2 rows") and "s-1" not in message


def test_recorded_answers_ask_no_engine(tokenizer: Any) -> None:
    rows = checked([row("s-1", 80)], test=[row("t-1", 90, gold=9)])
    asked = told(config(student={"max_length": 200}), rows, tokenizer, teacher=False)
    assert "s-1" in asked and "t-1" in asked
    recorded = config(student={"max_length": 200}, evaluation={"recorded_answers": "a.jsonl"})
    check_lengths(recorded, rows, student=tokenizer, teacher=None)


def test_the_longest_teacher_prompt_is_beside_the_longest_examples(tokenizer: Any) -> None:
    """Two of three peers are shown: 1 + 5 for the row itself, 30 and 30 beside it, 20 for a reply: 86; 66 for s-2 and s-3."""
    seeds = [row("s-1", 5), row("s-2", 30), row("s-3", 30), row("s-4", 1)]
    enough = config(student={"max_length": 200}, teacher={"engine": {"max_model_len": 86}})
    check_lengths(enough, checked(seeds), student=tokenizer, teacher=tokenizer)
    message = told(config(teacher={"engine": {"max_model_len": 85}}), checked(seeds), tokenizer)
    assert "teacher.engine.max_model_len=85 less teacher.max_tokens=20: 3 of 4 rows" in message
    assert "s-1: the teacher's prompt may have 66 tokens" in message and "set teacher.engine.max_model_len=86" in message


def test_a_shown_wrong_answer_and_an_augmented_row_may_be_as_long_as_they_may(tokenizer: Any) -> None:
    seeds = [row("s-1", 5), row("s-2", 5)]
    shown = config(augmentation={"show_wrong_answer": True, "examples_in_prompt": 0}, evaluation={"max_tokens": 25})
    check_lengths(shown, checked(seeds), student=tokenizer, teacher=tokenizer)  # 1 + 5 + 25 + 20 of 100
    longer = config(
        augmentation={"show_wrong_answer": True, "examples_in_prompt": 0, "augment_augmented": True, "max_words": 60},
        evaluation={"max_tokens": 25},
    )
    message = told(longer, checked(seeds), tokenizer)
    assert "an augmented row: the teacher's prompt may have 86 tokens" in message and "max_model_len=106" in message


def test_a_later_call_and_the_longest_class_that_a_row_may_be_taken_for_count(tokenizer: Any) -> None:
    """Both make the prompt longer than the first call about a row without a label does."""
    task = Classification(labels=["a", "b", "c"])
    sizes = {"a": 3, "b": 3, "c": 40}
    seeds = [
        Example(id=f"{label}-{n}", input=" ".join(["w"] * size), output=label) for label, size in sizes.items() for n in (1, 2)
    ]
    rows = Checked(task=task, splits=Splits(seed=seeds, dev=seeds[:1], test=[], counts={}, sources={}))

    def longest(**augmentation: Any) -> int:
        settings = config(
            student={"max_length": 999, "engine": {"max_model_len": 999}}, augmentation=augmentation,
            evaluation={"error_source": "dev", "max_tokens": 4}, run={"name": "r", "iterations": 2},
            teacher={"style": "chat", "system_message": "merge", "engine": {"max_model_len": 30}},
        )  # fmt: skip
        return int(told(settings, rows, tokenizer).partition("a-1: the teacher's prompt may have ")[2].partition(" ")[0])

    first, asked = longest(), Asked(style="chat", peers=seeds[1:2])
    assert longest(per_wrong=2) - first > 9, "The obvious ones have been written already. This time: …"
    mistake = Graded(example=seeds[0], completion=" word" * 4, answer=None, correct=False)
    shown = replace(asked, show_wrong_answer=True)
    taken = [prompt.messages[-1].content.split() for prompt in (
        task.teacher_prompt(mistake, shown), task.teacher_prompt(mistake, replace(shown, confused=seeds[4:6]))
    )]  # fmt: skip
    assert longest(show_wrong_answer=True) - longest(show_wrong_answer=True, examples_of_confused=0) == len(taken[1]) - len(
        taken[0]
    )


def test_the_teachers_own_exam_is_measured(tokenizer: Any) -> None:
    settings = config(
        evaluation={"teacher_on_test": True}, gates={"relabel": {"examples": 8, "max_tokens": 4}},
        augmentation={"examples_in_prompt": 0},
    )  # fmt: skip
    seeds = [row(f"s-{n}", 8) for n in range(9)]  # eight are shown: (1 + 8 + 1 + 1) words each
    rows = checked(seeds, test=[row("t-1", 6), row("t-2", 7)])
    message = told(settings, rows, tokenizer)  # 88 + 2 + 6 + 4 = 100
    assert (
        "dev and test, asked of the teacher" in message
        and "1 of 2 rows" in message
        and "t-2: an exam's prompt has 97 tokens" in message
    )


def test_a_template_that_refuses_a_system_message_is_found_before_the_start(tokenizer: Any) -> None:
    seeds = [row("s-1", 5)]
    message = told(config(teacher={"style": "chat"}), checked(seeds, chat=True), tokenizer)
    assert "System role not supported" in message and "teacher.system_message=merge" in message
    merged = config(teacher={"style": "chat", "system_message": "merge"})
    check_lengths(merged, checked(seeds, chat=True), student=tokenizer, teacher=tokenizer)


def test_a_tokenizer_without_a_template_refuses_messages(tokenizer: Any) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, eos_token="<end>", unk_token="<unk>")
    with pytest.raises(ChatRefused):
        prompt_ids(plain, Prompt(messages=(Message(role="user", content="hello"),)))
