"""Cross-fitted errors by the real command: trainings without a fold, students in turn in one engine, killed and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from a_run import Run, scripted_run, served_run, texts

from llm2llm_ray.rounds.folds import dealt, folds
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]


def test_each_seed_is_answered_by_a_student_that_never_saw_it(tmp_path: Path, tiny_model: str) -> None:
    run = scripted_run(tmp_path, tiny_model)
    served = served_run(tmp_path, tiny_model)
    run.config["student"] = served.config["student"] | {"checkpoint_every_updates": 2}
    run.config["evaluation"] = {"max_tokens": 8, "error_source": "cross_fit", "folds": 2, "test": False, "in_flight": 4}
    run.kill_when(lambda run: "fold" in dict(run.finished()))
    run.finish()

    seeds = [Example(id=row["id"], input=row["text"], output=row["label"]) for row in texts(12, 0)]
    of = dealt(seeds, Classification(labels=[]).group, 2)
    finished = run.finished()
    assert len(finished) == len(set(finished)), "the fold that was trained before the kill was not trained again"
    trained = records(run, "fold")
    assert [stage["iteration"] for stage in trained] == [0, 0, 1, 1]
    left_out = {fold.id: fold for fold in folds(of)}
    rounds = records(run, "round")
    assert [stage["iteration"] for stage in rounds] == [0, 1] and rounds[0]["result"]["asked"] > 0
    by_sha = {stage["result"]["sha"]: stage for stage in trained}
    assert len(by_sha) == 4
    for stage in rounds:
        rows = rows_in(run.path / stage["result"]["folder"])
        assert {row["id"]: row["fold"] for row in rows} == of
        for row in rows:
            training = by_sha[row["weights_sha"]]
            assert training["iteration"] == stage["iteration"] and row["id"] in left_out[training["inputs"]["left_out"]].seeds
    assert [stage["result"]["metrics"]["rows"] for stage in trained[:2]] == [6, 6]
    grown = lineages(run, iteration=1)
    assert grown
    for stage in trained[2:]:
        own = left_out[stage["inputs"]["left_out"]].seeds
        assert stage["result"]["metrics"]["rows"] == 6 + sum(seed not in own for seed in grown)
    for prompt, row_id in asked(run):
        shown = {seed.id for seed in seeds if seed.input in prompt}
        assert row_id in shown and {of[seed] for seed in shown} == {of[row_id]}, "a teacher saw rows of one fold only"


def records(run: Run, name: str) -> list[dict]:
    found = [json.loads(file.read_text()) for file in run.path.glob(f"stages/{name}-*.json")]
    return sorted(found, key=lambda stage: stage["ended"])


def rows_in(folder: Path) -> list[dict]:
    return [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]


def lineages(run: Run, iteration: int) -> list[str]:
    """The seed that each new row of the version was grown from."""
    (folder,) = run.path.glob(f"versions/{iteration:03d}-*")
    return [row["seed_id"] for row in rows_in(folder) if row["seed_id"]]


def asked(run: Run) -> list[tuple[str, str]]:
    """(prompt, id of the row it is about) of the teacher's durable replies."""
    lines = [line for file in run.path.glob("replies/teacher-0*/*.jsonl") for line in file.read_text().splitlines(True)]
    requests = [json.loads(line)["request"] for line in lines if line.endswith("\n")]
    return [(json.dumps(request["prompt"]), request["row_id"]) for request in requests]
