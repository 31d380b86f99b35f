"""A run whose teacher is a file of recorded replies, served on Ray Serve: what it shares with the run that the file came from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from a_run import Run, scripted_run

from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "llm2llm_ray", *words], capture_output=True, text=True, timeout=900, check=False)


def replies(run: Run) -> list[dict[str, Any]]:
    """Of the teacher, in all rounds."""
    files = Files(str(run.path))
    return [record for number in range(2) for record in read_replies(files, f"replies/teacher-{number:03d}")]


def event(run: Run, name: str) -> dict[str, Any]:
    return [found for found in run.events() if found["event"] == name][-1]


def test_a_run_is_repeated_from_its_exported_replies_although_a_replica_dies(tmp_path: Path, tiny_model: str) -> None:
    folders = {name: tmp_path / name for name in ("first", "again")}
    for folder in folders.values():
        folder.mkdir()
    first = scripted_run(folders["first"], tiny_model, latency_s=0.0)
    first.finish()
    assert first.report()["iterations"][0]["round"]["accepted"] > 2
    file = tmp_path / "replies.jsonl.gz"
    told = command("export", str(first.path), "--replies", str(file))
    assert told.returncode == 0 and f"{file}: " in told.stdout and "replies" in told.stdout, told.stderr

    again = scripted_run(folders["again"], tiny_model)
    again.config["teacher"] = {
        "kind": "recorded", "model": str(file), "style": "completion", "latency_s": 2.0,
        "engine": {"replicas": 2, "max_num_seqs": 1},
    }  # fmt: skip
    process = again.start_until(lambda run: bool(replies(run)))
    up = event(again, "engines_up")["replicas"]
    assert [replica["role"] for replica in up] == ["teacher"] * 2 and len({replica["pid"] for replica in up}) == 2
    os.kill(up[0]["pid"], signal.SIGKILL)
    assert process.wait(900) == 0, (folders["again"] / "log.txt").read_text()[-3000:]

    assert again.version_ids() == first.version_ids(), "the same rows with the same lineage"
    served = replies(again)
    sha = event(again, "recorded_replies")["sha"]
    assert {record["reply"]["weights_sha"] for record in served} == {sha}
    assert len({record["reply"]["replica"] for record in served}) > 1
    assert not (again.path / "teacher_calls.jsonl").exists(), "somebody was asked"
    log = (folders["again"] / "log.txt").read_text()
    assert f"Teacher: recorded replies of scripted:replies.jsonl, {file}" in log
    assert again.report()["recorded_replies"]["missing"] == 0
    series = (again.path / "evidence" / "metrics.prom").read_text()
    assert f'application="llm2llm-{again.config["run"]["name"]}-teacher"' in series
    read = json.loads((again.path / "evidence" / "read.json").read_text())
    assert read["recorded_replies"] > 0 and not [text for text in read["not_read"] if "vLLM" in text]
    assert again.left_behind() == []
