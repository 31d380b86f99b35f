"""Hard cases written by somebody who had the rules but not the code (tests/cases/*.json)."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.splits import load_splits
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Draft, Example, Graded, Rejected

CASES = Path(__file__).parents[1] / "cases"


def cases(name: str) -> list[Any]:
    found = json.loads((CASES / f"{name}.json").read_text())
    return [pytest.param(case, id=f"{number}-{case['why'][:50]}") for number, case in enumerate(found)]


def parsed(task: Task, case: dict[str, Any], gold: str, style: str) -> tuple[list[Draft], list[str]]:
    mistake = Graded(example=Example(id="s-1", input="x", output=gold), completion="", answer=None, correct=False)
    cut = case["finish_reason"] == "length"
    out = task.parse(case["reply"], mistake, style=style, count=case["max_items"], cut=cut)
    return [item for item in out if isinstance(item, Draft)], [item.reason for item in out if isinstance(item, Rejected)]


@pytest.mark.parametrize("case", cases("classification_grade"))
def test_classification_grade(case: dict[str, Any]) -> None:
    task = Classification(labels=case["labels"])
    assert task.answer(case["completion"]) == case["answer"]
    assert task.is_correct(case["gold"], case["completion"]) == case["correct"]


@pytest.mark.parametrize("case", cases("gsm8k_grade"))
def test_gsm8k_grade(case: dict[str, Any]) -> None:
    task = Gsm8k()
    assert task.answer(case["completion"]) == case["answer"]
    assert task.is_correct(case["gold"], case["completion"]) == case["correct"]


@pytest.mark.parametrize("case", cases("list_reply"))
def test_list_reply(case: dict[str, Any]) -> None:
    drafts, reasons = parsed(Classification(labels=["positive", "negative"]), case, "positive", "completion")
    assert [draft.input for draft in drafts] == case["texts"]
    assert {draft.output for draft in drafts} <= {"positive"}
    assert reasons == case["rejected"]


@pytest.mark.parametrize("case", cases("labelled_chat_reply"))
def test_labelled_chat_reply(case: dict[str, Any]) -> None:
    drafts, reasons = parsed(Classification(labels=case["labels"]), case, case["labels"][0], "chat")
    assert [{"text": draft.input, "label": draft.output} for draft in drafts] == case["items"]
    assert reasons == case["rejected"]


@pytest.mark.parametrize("case", cases("gsm8k_teacher_reply"))
def test_gsm8k_teacher_reply(case: dict[str, Any]) -> None:
    drafts, reasons = parsed(Gsm8k(), case, "#### 1", "chat")
    assert [{"question": draft.input, "answer": draft.output} for draft in drafts] == case["items"]
    assert reasons == case["rejected"]


@pytest.mark.parametrize("case", cases("user_rows"))
def test_user_rows(case: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / case["filename"]).write_bytes(case["content"].encode())
    config = TaskConfig(name="classification", data=str(tmp_path), columns=case["columns"])
    with pytest.raises(UserError) as raised:
        load_splits(config, Classification(labels=case["labels"]), base_dir=tmp_path)
    for named in case["error_must_name"]:
        assert named in str(raised.value).replace(str(tmp_path), "")
