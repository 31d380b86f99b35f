"""Files as people have them, through `llm2llm init` and to the end of a run: trained for real, answers and replies recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelled_files import FILES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def llm2llm(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm2llm_ray", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _column(told: str, role: str) -> str:
    (line,) = [line for line in told.splitlines() if role in line]
    return line.partition(": ")[0].strip()


@pytest.mark.parametrize("make", FILES, ids=lambda make: str(make.__name__))
def test_a_file_as_people_have_it_comes_to_a_finished_run(
    tmp_path: Path, tiny_model: str, ray_cluster: str, make: Callable[[Path], Path]
) -> None:
    told = llm2llm(tmp_path, "init", make(tmp_path).name, "--name", "own")
    text, label = (_column(told, f"the {role}: ") for role in ("text", "label"))
    rows = {role: lines(tmp_path / "own-data" / f"{role}.jsonl") for role in ("seed", "dev", "test")}
    labels = sorted({row[label] for row in rows["seed"]})
    assert len(labels) == 3 and all(isinstance(row[label], str) for row in rows["test"])

    answers = []
    for number, row in enumerate(row for part in rows.values() for row in part):
        first = labels[(labels.index(row[label]) + 1) % 3] if number % 6 == 0 else row[label]
        answers.append({"input": row[text].strip(), "answers": [f" {first}", f" {row[label]}"]})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    replies = [{"reply": f"A new request of kind {n}, with words {chr(97 + n % 26) * (n + 3)} of its own"} for n in range(40)]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in replies))
    changed = {
        "recipe": "paper", "student.model": tiny_model, "student.updates": 2, "student.max_length": 512,
        "teacher.kind": "scripted", "teacher.model": tmp_path / "replies.jsonl", "evaluation.matched_baseline": "false",
        "evaluation.recorded_answers": tmp_path / "answers.jsonl", "cluster.address": ray_cluster, "cluster.threads": 1,
        "run.iterations": 2,
    }  # fmt: skip
    llm2llm(tmp_path, "run", "own.yaml", *(part for field, value in changed.items() for part in ("--set", f"{field}={value}")))

    report = json.loads((tmp_path / "runs" / "own" / "report.json").read_text())
    first, last = report["iterations"]
    wrong = sum(number % 6 == 0 for number in range(len(rows["seed"])))
    assert (first["round"]["evaluated"], first["round"]["wrong"]) == (len(rows["seed"]), wrong)
    assert first["round"]["accepted"] > 0 and last["dataset"]["num_rows"] == len(rows["seed"]) + first["round"]["accepted"]
    kept = report["exams"]["accuracy"]["kept"]
    assert (kept["hits"], kept["total"]) == (len(rows["test"]), len(rows["test"]))
