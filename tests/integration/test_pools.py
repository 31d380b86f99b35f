"""Three raylets told apart by label: each part of a run where its label says, and a teacher scaled while the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from a_run import Run, served_run, texts

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
REPOSITORY = Path(__file__).parents[2]
ROWS = 600
"""Enough for the teacher to be at work while replicas start."""


def cluster(command: str, folder: Path) -> str:
    told = [sys.executable, str(REPOSITORY / "cluster" / "local_cluster.py"), command, "--folder", str(folder)]
    return subprocess.run(
        [*told, "--port", "6779", "--dashboard-port", "8365"], check=True, capture_output=True, text=True, timeout=300
    ).stdout


@pytest.fixture
def three_raylets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = Path("/tmp") / f"l2l-{tmp_path_factory.getbasetemp().name}"
    cluster("start", folder)
    try:
        lines = [line.removeprefix("export ") for line in cluster("env", folder).splitlines()]
        yield {name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)}
    finally:
        cluster("stop", folder)


def a_pools_run(folder: Path, model: str) -> Run:
    run = served_run(folder, model)
    (folder / "seed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(ROWS, 1000)))
    run.config["student"]["updates"] = 3
    run.config["cluster"] = {"profile": "pools", "threads": 1}
    run.config["evaluation"] |= {"test": False}
    run.config["augmentation"] |= {"examples_in_prompt": 1}
    run.config["teacher"] |= {"in_flight": 8, "max_tokens": 120}
    run.config["teacher"]["engine"] = run.config["teacher"]["engine"] | {"max_num_seqs": 2}
    return run


def scaled(run: Run, replicas: int, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "llm2llm_ray", "scale-teacher", str(run.path), str(replicas)]
    subprocess.run(command, check=True, timeout=600, env=env)


def test_every_part_runs_where_its_label_says_and_the_teacher_is_scaled_live(
    tmp_path: Path, tiny_model: str, three_raylets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in three_raylets.items():
        monkeypatch.setenv(name, value)
    run = a_pools_run(tmp_path, tiny_model)
    process = run.start_until(lambda run: any((run.path / "replies" / "teacher-000").glob("*.jsonl")))
    scaled(run, 3, dict(os.environ))
    scaled(run, 1, dict(os.environ))
    assert not any(event["event"] == "stage_finished" and event["stage"] == "round" for event in run.events()), "too few rows"
    assert process.wait(1500) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    events = list(run.events())
    up = next(event for event in events if event["event"] == "engines_up")
    first, second = (event for event in events if event["event"] == "teacher_scaled")
    assert len(first["now"]) == 3 and len(second["now"]) == 1
    report = run.report()
    trained = set(report["iterations"][0]["student"]["metrics"]["nodes"])
    student = {replica["node"] for replica in up["replicas"] if replica["role"] == "student"}
    teacher = {replica["node"] for event in (first, second) for replica in event["now"]}
    assert len(trained) == len(student) == len(teacher) == 1 and len(trained | student | teacher) == 3
    round_ = report["iterations"][0]["round"]
    assert round_["evaluated"] == ROWS and round_["errors"] == {}
    assert not round_["rejected"].get("teacher_error")
