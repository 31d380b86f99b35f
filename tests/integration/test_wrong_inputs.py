"""What a person gets for a mistake: one clear message that names the place, exit code 2, and no engine started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration
Change = Callable[[dict[str, Any], Path], None]


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    labels = ["billing", "shipping"]
    return [
        {"text": f"request number {n} about my {labels[n % 2]} matter", "label": labels[n % 2]}
        for n in range(start, start + count)
    ]


def write(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def project(folder: Path, model: str) -> dict[str, Any]:
    write(folder / "seed.jsonl", rows(8))
    write(folder / "test.jsonl", rows(8, start=50))
    (folder / "replies.jsonl").write_text('{"reply": "some new text"}\n')
    return {
        "task": {"name": "classification", "data": str(folder), "options": {"labels": ["billing", "shipping"]}},
        "student": {"model": model, "engine": {"max_model_len": 128}},
        "teacher": {"kind": "scripted", "model": str(folder / "replies.jsonl"), "style": "completion"},
        "run": {"name": "wrong", "folder": str(folder / "runs")},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def change_unknown_key(config: dict[str, Any], folder: Path) -> None:
    config["student"]["learning_rat"] = 1e-5


def change_wrong_type(config: dict[str, Any], folder: Path) -> None:
    config["student"]["epochs"] = "three"


def change_missing_file(config: dict[str, Any], folder: Path) -> None:
    config["task"]["seed"] = str(folder / "seeds.jsonl")


def change_malformed_line(config: dict[str, Any], folder: Path) -> None:
    lines = (folder / "seed.jsonl").read_text().splitlines()
    lines[6] = lines[6][:-5]
    (folder / "seed.jsonl").write_text("\n".join(lines))


def change_missing_column(config: dict[str, Any], folder: Path) -> None:
    write(folder / "seed.jsonl", [{"text": row["text"], "intent": row["label"]} for row in rows(8)])


def change_label_outside(config: dict[str, Any], folder: Path) -> None:
    write(folder / "seed.jsonl", [*rows(3), {"text": "something else", "label": "refund"}])


def change_empty_seed_set(config: dict[str, Any], folder: Path) -> None:
    (folder / "seed.jsonl").write_text("")


def change_unreachable_teacher(config: dict[str, Any], folder: Path) -> None:
    config["teacher"] = {
        "kind": "openai", "model": "m", "base_url": f"http://127.0.0.1:{free_port()}/v1", "timeout_s": 2,
        "api_key_env": "TEST_TEACHER_KEY", "max_retries": 0,
    }  # fmt: skip


def change_missing_key(config: dict[str, Any], folder: Path) -> None:
    change_unreachable_teacher(config, folder)
    config["teacher"]["api_key_env"] = "NO_SUCH_KEY_HERE"


def change_test_equals_seed(config: dict[str, Any], folder: Path) -> None:
    write(folder / "test.jsonl", [*rows(4, start=50), rows(8)[2]])


def change_prompt_too_long(config: dict[str, Any], folder: Path) -> None:
    write(folder / "seed.jsonl", [*rows(5), {"text": "word " * 500, "label": "billing"}])


def change_no_gpu(config: dict[str, Any], folder: Path) -> None:
    config["cluster"] = {"device": "gpu"}


CASES: list[tuple[Change, list[str]]] = [
    (change_unknown_key, ["wrong.yaml", "student.learning_rat", "did you mean learning_rate"]),
    (change_wrong_type, ["wrong.yaml", "student.epochs", "'three'"]),
    (change_missing_file, ["seeds.jsonl", "seed.jsonl"]),
    (change_malformed_line, ["seed.jsonl", "line 7"]),
    (change_missing_column, ["seed.jsonl", "label", "task.columns"]),
    (change_label_outside, ["seed.jsonl", "line 4", "refund", "billing"]),
    (change_empty_seed_set, ["seed.jsonl"]),
    (change_unreachable_teacher, ["teacher.base_url", "127.0.0.1"]),
    (change_missing_key, ["NO_SUCH_KEY_HERE"]),
    (change_test_equals_seed, ["seed.jsonl", "line 3", "test.jsonl", "line 5"]),
    (change_prompt_too_long, ["tokens", "max_model_len"]),
    (change_no_gpu, ["cluster.device", "no GPU"]),
]


@pytest.mark.parametrize(("change", "named"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_one_message_and_exit_code_2(tmp_path: Path, tiny_model: str, change: Change, named: list[str]) -> None:
    config = project(tmp_path, tiny_model)
    change(config, tmp_path)
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    env = {**os.environ, "TEST_TEACHER_KEY": "sk-secret-of-the-test"}
    done = subprocess.run(
        [sys.executable, "-m", "llm2llm_ray", "run", str(tmp_path / "wrong.yaml")],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    message = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    for part in named:
        assert part in done.stderr[done.stderr.index(message) :], f"{part!r} not in: {done.stderr}"
    assert "Traceback" not in done.stderr and "sk-secret" not in done.stderr + done.stdout
    assert not list((tmp_path / "runs").glob("*/rounds/*")) and "engines" not in done.stderr
