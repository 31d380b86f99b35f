"""What is checked of a service before a run: it is asked what the run would ask, with the task's own prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai_server import by_prompt_and_seed, failure, serving, strict, when

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import check

SEEDS = [("Where is my card?", "card"), ("My card was eaten by the machine in the hall", "card"), ("Reset it", "login")]
GOOD = by_prompt_and_seed([json.dumps({"examples": [{"text": "Is my card lost?", "label": "card"}]})])


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(__file__).parent))


def checked(
    folder: Path, url: str, *, teacher: dict[str, Any] | None = None, augmentation: Any = None, **evaluation: Any
) -> None:
    for name, rows in (("seed", SEEDS), ("test", [("Where do I log in?", "login")])):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    service = {"kind": "openai", "model": "big", "base_url": url, "api_key_env": "TEACHER_KEY", "max_retries": 0}
    config = Config.model_validate(
        {
            "recipe": "paper",
            "task": {"name": "classification", "data": str(folder)},
            "student": {"model": "m"},
            "teacher": {**service, "temperature": 0.8, "top_p": 0.95, "max_tokens": 77, **(teacher or {})},
            "augmentation": augmentation or {},
            "evaluation": evaluation,
            "run": {"name": "demo"},
        }
    )
    check(config, folder)


def test_the_service_is_asked_the_tasks_own_question_about_the_longest_row(tmp_path: Path) -> None:
    with serving(GOOD) as service:
        checked(tmp_path, service.url)
    (body,) = service.bodies
    system, user = body.pop("messages")
    assert system["role"] == "system" and "training examples" in system["content"]
    assert user["role"] == "user" and json.dumps(SEEDS[1][0]) in user["content"] and json.dumps(SEEDS[0][0]) in user["content"]
    assert isinstance(body.pop("seed"), int)
    assert body == {"model": "big", "temperature": 0.8, "top_p": 0.95, "max_tokens": 77}


def test_a_completion_teacher_is_asked_with_its_stop(tmp_path: Path) -> None:
    with serving(GOOD) as service:
        checked(tmp_path, service.url, teacher={"style": "completion"})
    assert service.requests[0].path == "/v1/completions"
    assert service.bodies[0]["prompt"].endswith(f"{SEEDS[1][0]}\n3.") and service.bodies[0]["stop"] == ["\n"]


def test_a_service_without_a_system_role_is_found_before_the_run_and_merge_suits_it(tmp_path: Path) -> None:
    with serving(strict(GOOD, system=False)) as service:
        with pytest.raises(UserError, match=r"HTTP 400: System role not supported; --set teacher\.system_message=merge"):
            checked(tmp_path, service.url)
        checked(tmp_path, service.url, teacher={"system_message": "merge"})
    before, (after,) = service.bodies[0]["messages"], service.bodies[1]["messages"]
    assert after == {"role": "user", "content": f"{before[0]['content']}\n\n{before[1]['content']}"}


def test_a_row_that_the_service_finds_too_long_is_found_before_the_run(tmp_path: Path) -> None:
    too_long = failure(400, "maximum context length is 64 tokens", param="messages")
    with serving(when("eaten by the machine", too_long, GOOD)) as service, pytest.raises(UserError) as error:
        checked(tmp_path, service.url)
    assert "maximum context length is 64 tokens; change teacher.max_tokens, or shorten the prompt" in str(error.value)
    assert "(asked about row s-" in str(error.value)


def test_a_teacher_that_must_be_better_needs_rows_to_be_better_on(tmp_path: Path) -> None:
    with serving(GOOD) as service, pytest.raises(UserError, match=r"require_better_teacher compares .* name one in task\.dev"):
        checked(tmp_path, service.url, augmentation={"require_better_teacher": True})
    assert not service.requests, "nobody was asked for it"


def test_the_teachers_own_exam_is_tried_too_and_not_on_test_rows(tmp_path: Path) -> None:
    with serving(GOOD) as service:
        checked(tmp_path, service.url, teacher_on_test=True, teacher={"max_tokens": 5})
    writes, exam = service.requests
    assert (writes.path, exam.path) == ("/v1/chat/completions", "/v1/chat/completions")
    assert (exam.body["temperature"], exam.body["max_tokens"]) == (0.0, 5)
    assert "Reply with the label alone" in exam.text
    assert not any("Where do I log in?" in asked.text for asked in service.requests), "the test set is read at the end only"
