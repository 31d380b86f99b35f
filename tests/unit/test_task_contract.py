"""The paper's five tasks over real rows: one contract for all of them, and the forms in which their data are published."""

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from task_data import real_folder, real_rows

from llm2llm_ray.augmentation.gates import check
from llm2llm_ray.config import AugmentationConfig, TaskConfig
from llm2llm_ray.config.file import load_config
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.tasks import TASKS, load_task
from llm2llm_ray.tasks.casehold import CaseHold
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.holding_prompt import HOLDING
from llm2llm_ray.tasks.normal_form import identity, words
from llm2llm_ray.tasks.splits import Splits, load_splits
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected

JOBS = Path(__file__).parents[2] / "jobs"
FIVE = ("trec", "snips", "sst2", "casehold", "gsm8k")
HELD_OUT = {"trec": "test", "snips": "dev", "sst2": "dev", "casehold": "dev", "gsm8k": "test"}

pytestmark = pytest.mark.parametrize("name", FIVE)


@lru_cache
def loaded(name: str) -> tuple[Task, Splits]:
    """The task and its rows as jobs/ has them."""
    config = load_config(JOBS / f"{name}_smollm2.yaml", [f"task.data={real_folder(name)}"])
    return load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=".")


@lru_cache
def held_out(name: str) -> list[tuple[dict[str, Any], Example]]:
    task, _ = loaded(name)
    rows = real_rows(f"{name}/{HELD_OUT[name]}.jsonl")
    return [(row, task.example(row, f"t-{number}")) for number, row in enumerate(rows)]


def wrong(example: Example, completion: str = " I do not know.") -> Graded:
    return Graded(example=example, completion=completion, answer=None, correct=False)


def neighbours(name: str) -> list[tuple[Example, Example]]:
    """Pairs of held-out rows of one group."""
    task, _ = loaded(name)
    groups: dict[str, list[Example]] = {}
    for _, example in held_out(name):
        groups.setdefault(task.group(example), []).append(example)
    return [pair for rows in groups.values() for pair in zip(rows[:60:2], rows[1:60:2], strict=False)]


def test_the_grader_accepts_its_own_gold_and_nothing_empty(name: str) -> None:
    task, _ = loaded(name)
    for _, example in held_out(name):
        assert task.is_correct(example.output, task.completion(example.output)), example.id
        assert task.answer(task.completion(example.output)) is not None
        assert not task.is_correct(example.output, "")
        assert not task.is_correct(example.output, " I do not know.")


def test_the_grader_refuses_the_gold_of_other_rows(name: str) -> None:
    task, _ = loaded(name)
    examples = [example for _, example in held_out(name)]
    told_apart = 0
    for one, other in pairwise(examples):
        same = task.answer(task.completion(one.output)) == task.answer(task.completion(other.output))
        assert task.is_correct(one.output, task.completion(other.output)) == same
        told_apart += not same
    assert told_apart > 20


def test_the_students_prompt_does_not_depend_on_the_gold_answer(name: str) -> None:
    task, _ = loaded(name)
    for row, example in held_out(name)[:200]:
        forged = task.example(other_answer(task, row), example.id)
        assert forged.output != example.output
        assert task.student_prompt(forged.input) == task.student_prompt(example.input)


def other_answer(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    if isinstance(task, Classification):
        return row | {"label": next(label for label in task.labels if label != row["label"])}
    if isinstance(task, CaseHold):
        return row | {"label": (row["label"] + 1) % 5}
    return row | {"answer": "By magic.\n#### 987654321"}


def continued(task: Task, shown: Example, new: Example) -> tuple[Prompt, str]:
    """A prompt, and the reply that goes on exactly as its list does: with `new` as the list would show it."""
    prompt = task.teacher_prompt(wrong(shown), Asked(style="completion"))
    longer = task.teacher_prompt(wrong(new), Asked(style="completion", peers=[shown]))
    assert longer.text.startswith(prompt.text)
    reply = longer.text.removeprefix(prompt.text)
    ends = [reply.find(stop) for stop in prompt.stop if stop in reply]
    return prompt, reply[: min(ends)]


def test_the_parser_accepts_a_list_that_goes_on_as_it_began(name: str) -> None:
    task, _ = loaded(name)
    for shown, new in neighbours(name):
        _, reply = continued(task, shown, new)
        assert_row(task, task.parse(reply, wrong(shown), style="completion", count=1, cut=False), shown, new)


def test_the_parser_accepts_a_chat_reply_of_the_form_its_prompt_shows(name: str) -> None:
    task, _ = loaded(name)
    for shown, new in neighbours(name):
        prompt = task.teacher_prompt(wrong(shown), Asked(style="chat"))
        reply = filled_in(task, prompt, new)
        assert_row(task, task.parse(reply, wrong(shown), style="chat", count=1, cut=False), shown, new)


def filled_in(task: Task, prompt: Prompt, new: Example) -> str:
    """The form at the end of the system message (gsm8k: the reply it shows), with the content of a real row."""
    if isinstance(task, Gsm8k):
        shown = prompt.messages[-2].content
        assert prompt.messages[-2].role == "assistant" and shown.startswith("Question: ") and "\nAnswer: " in shown
        return f"Question: {new.input}\nAnswer:{task.completion(new.output)}"
    form = json.loads(prompt.messages[0].content.rpartition("form:")[2])
    (item,) = form["examples"]
    if isinstance(task, CaseHold):
        assert item.keys() == {"passage", "holding", "wrong"} and len(item["wrong"]) == 4
        passage, *lines = new.input.split("\n")
        choices = dict(line.split(": ", 1) for line in lines)
        item |= {"passage": passage, "holding": choices.pop(new.output), "wrong": list(choices.values())}
    else:
        assert item.keys() == {"text", "label"}
        item |= {"text": new.input, "label": new.output}
    return json.dumps(form)


def assert_row(task: Task, parsed: list[Draft | Rejected], shown: Example, new: Example) -> None:
    (draft,) = parsed
    assert isinstance(draft, Draft), (parsed, new)
    assert task.is_correct(draft.output, task.completion(draft.output))
    assert check(draft, wrong(shown), task, AugmentationConfig(max_words=450)) is None
    if isinstance(task, CaseHold):
        right, gold = (dict(line.split(": ", 1) for line in text.split("\n")[1:]) for text in (draft.input, new.input))
        assert right[draft.output] == gold[new.output]
        assert len(set(right.values())) == 5 and draft.input.count(HOLDING) == 1
    else:
        assert draft.input == " ".join(new.input.split()) or draft.input == new.input
        assert task.answer(task.completion(draft.output)) == task.answer(task.completion(new.output))


def test_a_cut_reply_gives_no_row(name: str) -> None:
    task, _ = loaded(name)
    for shown, new in neighbours(name)[:20]:
        _, reply = continued(task, shown, new)
        parsed = task.parse(reply.rstrip()[:-1], wrong(shown), style="completion", count=1, cut=True)
        assert [item.reason for item in parsed if isinstance(item, Rejected)] == ["truncated"]


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_the_teacher_sees_the_mistake_and_its_gold_answer(name: str, style: str) -> None:
    task, _ = loaded(name)
    for shown, _ in neighbours(name)[:20]:
        prompt = task.teacher_prompt(wrong(shown), Asked(style=style, peers=[shown]))
        assert bool(prompt.messages) == (style == "chat") and bool(prompt.text) == (style == "completion")
        text = prompt.text or prompt.messages[-1].content
        gold = task.completion(shown.output).strip()
        if isinstance(task, CaseHold):
            gold = dict(line.split(": ", 1) for line in shown.input.split("\n")[1:])[shown.output]
        assert gold in text
        if style == "completion":
            assert not prompt.text.endswith((" ", "\n")) and prompt.stop


def test_what_describes_a_task_is_stable_json(name: str) -> None:
    first, second = load_task(name, {}), load_task(name, {})
    described = dict(first.describe())
    assert json.loads(json.dumps(described)) == json.loads(json.dumps(dict(second.describe())))
    other: Mapping[str, Mapping[str, object]] = {"casehold": {"window_words": 99}, "gsm8k": {"keep_calculator_marks": True}}
    changed = load_task(name, other.get(name, {"question": "Kind"}))
    assert fingerprint(described) == fingerprint(dict(second.describe())) != fingerprint(dict(changed.describe()))


def test_the_job_draws_clean_seeds_from_the_real_data(name: str) -> None:
    """README of the data: 11 of TREC's 500 test rows also stand in its train file, and SNIPS's holds 169 texts twice."""
    task, splits = loaded(name)
    keys = [identity(words(row.input)) for row in splits.seed]
    assert len(set(keys)) == len(keys) >= 8 and len(splits.test) >= 16
    assert not set(keys) & {identity(words(example.input)) for _, example in held_out(name)}
    least_leaks, least_repeats = {"trec": (11, 0), "snips": (1, 169 - 34)}.get(name, (0, 0))
    assert splits.counts["leaked_removed"] >= least_leaks and splits.counts["duplicates_removed"] >= least_repeats
    if isinstance(task, Classification):
        assert {row.output for row in splits.seed} == set(task.labels) == {row.output for row in splits.test}


def test_the_list_of_tasks_is_true(name: str) -> None:
    told = TASKS[name]
    assert tuple(load_task(name, {}).columns) == told.columns
    assert set(told.columns) <= real_rows(f"{name}/train.jsonl")[0].keys()
    assert told.metric and told.source and told.hub


HUB_ROWS: Mapping[str, tuple[dict[str, str], dict[str, object], list[dict[str, object]]]] = {
    "trec": ({"label": "coarse_label"}, {}, [{"text": "Who ?", "coarse_label": "HUM", "fine_label": "HUM:ind"}]),
    "snips": ({"label": "category"}, {}, [{"text": "play jazz", "category": "PlayMusic"}]),
    "sst2": ({"text": "sentence"}, {}, [{"idx": 0, "sentence": "a joy", "label": "positive"}]),
    "gsm8k": ({}, {}, [{"question": "How many ?", "answer": "Two.\n#### 2"}]),
    "casehold": (
        {"choices": "endings"},
        {},
        [{"context": f"as in A v. B ({HOLDING}).", "endings": [f"holding {word}" for word in "abcde"], "label": "3"}],
    ),
}


def test_the_columns_of_the_hugging_face_data_sets_are_mapped(name: str, tmp_path: Path) -> None:
    columns, options, rows = HUB_ROWS[name]
    (example,) = seeds_of(tmp_path, name, columns, options, rows)
    gold = {"trec": "HUM", "snips": "PlayMusic", "sst2": "positive", "gsm8k": "Two.\n#### 2", "casehold": "D"}
    assert example.output == gold[name]
    if name == "casehold":
        separate = [
            {"example_id": 0, "citing_prompt": rows[0]["context"], "label": "3"}
            | {f"holding_{number}": f"holding {word}" for number, word in enumerate("abcde")}
        ]
        options = {"choice_columns": [f"holding_{number}" for number in range(5)]}
        (same,) = seeds_of(tmp_path, name, {"context": "citing_prompt"}, options, separate)
        assert (same.input, same.output) == (example.input, example.output)


def seeds_of(
    folder: Path, name: str, columns: dict[str, str], options: dict[str, object], rows: list[dict[str, object]]
) -> list[Example]:
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = TaskConfig(name=name, data=str(folder), columns=columns, options=options)
    return load_splits(config, load_task(name, options), base_dir=folder)[1].seed
