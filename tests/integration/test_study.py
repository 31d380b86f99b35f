"""A study by its command: killed in its second cell, finished by the same command, in one session for all cells each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from a_run import LABELS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]
NAMES = ["loop-seed-d0-s0-n2", "eda-d0-s0-n2", "loop-seed-d1-s0-n2", "eda-d1-s0-n2"]


def labelled(count: int, start: int) -> list[dict[str, str]]:
    """Rows without a near copy among them: draws leave out those of test rows."""
    digests = [sha256(str(n).encode()).hexdigest() for n in range(start, start + count)]
    words = [" ".join(digest[at : at + 6] for at in range(0, 48, 6)) for digest in digests]
    return [
        {"id": f"r-{start + n}", "text": f"{LABELS[n % 3]} of {text}", "label": LABELS[n % 3]} for n, text in enumerate(words)
    ]


def written(folder: Path, model: str) -> Path:
    """Two methods, two draws of two seeds of each class; the student behind vLLM, the teacher a script."""
    for name, rows in (("seed", labelled(24, 0)), ("test", labelled(6, 100))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = [{"reply": f"A new request of kind {n}, with words {chr(97 + n % 26) * (n + 3)} of its own"} for n in range(40)]
    (folder / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in replies))
    engine = {"max_model_len": 256, "max_num_seqs": 8, "dtype": "float32", "kv_cache_gib": 0.1}
    base: dict[str, Any] = {
        "recipe": "paper",
        "task": {"name": "classification", "data": str(folder), "options": {"labels": LABELS}},
        "student": {
            "model": model, "updates": 4, "global_batch_size": 6, "micro_batch_size": 6, "learning_rate": 1e-3,
            "max_length": 128, "engine": engine,
        },
        "teacher": {"kind": "scripted", "model": str(folder / "replies.jsonl"), "style": "completion"},
        "evaluation": {"max_tokens": 8},
        "cluster": {"threads": 1},
        "run": {"name": "base", "iterations": 2},
    }  # fmt: skip
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    spec = {
        "name": f"t{os.getpid()}", "folder": str(folder / "studies"), "base": "base.yaml", "methods": ["loop_seed", "eda"],
        "draws": 2, "seed_sizes": {"seeds_per_class": [2]},
    }  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder / "studies" / str(spec["name"])


def start(folder: Path) -> subprocess.Popen[str]:
    log = (folder / "log.txt").open("a")
    line = [sys.executable, "-m", "llm2llm_ray", "study", str(folder / "spec.yaml")]
    return subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, text=True)


def finish(folder: Path) -> str:
    """What the command printed."""
    before = len((folder / "log.txt").read_text()) if (folder / "log.txt").exists() else 0
    code = start(folder).wait(1500)
    said = (folder / "log.txt").read_text()[before:]
    assert code == 0, f"exit {code}: {said[-3000:]}"
    return said


def events(run: Path) -> list[dict[str, Any]]:
    file = run / "events.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def counted(run: Path) -> Counter[str]:
    return Counter(event["event"] for event in events(run))


def test_a_study_killed_in_its_second_cell_is_finished_by_the_same_command(tmp_path: Path, tiny_model: str) -> None:
    study = written(tmp_path, tiny_model)
    cells = [study / "cells" / name for name in NAMES]
    process, deadline = start(tmp_path), time.monotonic() + 1200
    while not {"stage_started", "stage_taken"} & counted(cells[1]).keys():
        assert process.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, events(study)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(120)
    first = (cells[0] / "report.json").stat().st_mtime_ns
    said = finish(tmp_path)

    assert (cells[0] / "report.json").stat().st_mtime_ns == first and counted(cells[0])["started"] == 1, "run again"
    assert [counted(cell)["started"] for cell in cells[1:]] == [2, 1, 1]
    for cell in cells:
        stages = [(event["stage"], event["key"]) for event in events(cell) if event["event"] in ("stage_finished", "stage_taken")]
        assert len(stages) == len(set(stages)) and counted(cell)["finished"] == 1
    up = [event["roles"] for event in events(study) if event["event"] == "engines_up"]
    assert up == [["student"]] * 2 and counted(study)["started"] == 2, "once in each session, for all its cells"
    assert [e["cell"] for e in events(study) if e["event"] == "cell_finished"] == NAMES

    reports = [json.loads((cell / "report.json").read_text()) for cell in cells]
    for loop, eda in ((0, 1), (2, 3)):
        taken = {event["stage"]: event["taken_from"] for event in events(cells[eda]) if event["event"] == "stage_taken"}
        assert taken["train"] == taken["exam"] == f"cells/{NAMES[loop]}"
        ours, theirs = (reports[n]["iterations"][0]["student"] for n in (eda, loop))
        assert ours["sha"] == theirs["sha"] and ours["path"] != theirs["path"]
        weights = [Path(student["path"]) / "model.safetensors" for student in (ours, theirs)]
        assert weights[0].stat().st_ino == weights[1].stat().st_ino
        accepted = [reports[n]["iterations"][0]["round"]["accepted"] for n in (loop, eda)]
        assert accepted[1] == accepted[0] > 0, "equally many rows"
    assert reports[0]["iterations"][0]["student"]["sha"] != reports[2]["iterations"][0]["student"]["sha"], "another draw"

    table = json.loads((study / "study.json").read_text())
    assert [(line["label"], line["cells"]) for line in table["lines"]] == [("loop_seed", 2), ("eda", 2)]
    rows = pq.read_table(study / "rows.parquet").to_pylist()
    assert Counter(row["who"] for row in rows) == dict.fromkeys(("untrained", "baseline", "kept"), 4 * 6)
    for line in table["lines"]:
        right = [row["right"] for row in rows if row["method"] == line["label"] and row["who"] == "kept"]
        assert line["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert "minus matched" in said and "eda" in said

    again = finish(tmp_path)
    assert counted(study)["started"] == 2, "nothing left to run: Ray is not started"
    assert "eda" in again
