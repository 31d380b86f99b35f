"""The ways to run the loop that are not the default, by the real command: ablations, other sources, a service as the teacher.

Training is real (Ray Train, DeepSpeed); the student's answers are recorded, so that what is wrong is known beforehand.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from a_run import LABELS, Run, scripted_run, texts
from openai_server import Answer, Asked, Silence, answer, failure, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
KEY = "sk-a-key-that-is-nowhere-else"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "llm2llm_ray", *words], capture_output=True, text=True, timeout=900, check=False)


def record_answers(run: Run, wrong: Sequence[tuple[dict[str, str], Sequence[str]]]) -> None:
    """Rows and what the students M^0, M^1, ... say to them."""
    lines = [{"input": row["text"], "answers": [f" {said}" for said in answers]} for row, answers in wrong]
    (run.folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows_of(run: Run, version: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    folder = next(run.path.glob(f"versions/{version}-*"))
    return [row for file in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]


def stages(run: Run, name: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(run.path.glob(f"stages/{name}-*.json"))]


def other(label: str) -> str:
    return LABELS[(LABELS.index(label) + 1) % len(LABELS)]


def test_dev_errors_one_shot_in_a_folder_given_as_uri_and_then_evaluate(tmp_path: Path, tiny_model: str) -> None:
    run = scripted_run(tmp_path, tiny_model, iterations=3)
    seeds, dev = texts(12, 0), texts(6, 50)
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row | {"id": f"d-{n}"}) + "\n" for n, row in enumerate(dev)))
    # Three of six dev rows are wrong for M^0, none for M^1; every seed would be wrong, if anybody asked.
    said = [(row, [other(row["label"]) if n % 2 else row["label"], row["label"]]) for n, row in enumerate(dev)]
    record_answers(
        run, [*said, *((row, [other(row["label"])]) for row in seeds), *((row, [row["label"]]) for row in texts(6, 100))]
    )
    run.config["evaluation"]["error_source"] = "dev"
    run.config["augmentation"]["one_shot"] = True
    run.config["run"]["folder"] = f"file://{tmp_path}/runs"
    run.finish()

    first, last = run.report()["iterations"]  # one-shot: two students, whatever run.iterations says
    assert (first["round"]["evaluated"], first["round"]["wrong"], last["round"]["evaluated"]) == (6, 3, 6)
    assert first["round"]["asked"] >= 3 and last["round"]["asked"] == 0
    grown = [row for row in rows_of(run, "001") if row["origin"] == "augmented"]
    assert len(grown) == first["round"]["accepted"] > 0
    assert {row["seed_id"] for row in grown} <= {"d-1", "d-3", "d-5"}
    assert max(row["ordinal"] for row in grown) == 1, "one-shot asks for both rounds' examples in its one"
    inputs = {row["input"] for row in rows_of(run, "001")}
    assert not inputs & {row["text"] for row in dev}, "a dev row went into a version"
    assert {row["text"] for row in seeds} <= inputs

    uri = f"file://{run.path}"
    told = command("status", uri)
    assert told.returncode == 0 and "finished" in told.stdout + told.stderr, told.stderr
    assert command("report", uri, "--out", str(tmp_path / "page.html")).returncode == 0

    student = sorted(run.path.glob("students/*"))[-1]
    (tmp_path / "run.yaml").write_text(json.dumps(run.config))
    examined = command(
        "evaluate", str(tmp_path / "run.yaml"), "--model", str(student), "--set", "evaluation.recorded_answers=null",
        "--set", "student.engine={max_model_len: 256, max_num_seqs: 8, dtype: float32, kv_cache_gib: 0.1}",
    )  # fmt: skip
    assert examined.returncode == 0, examined.stderr[-2000:]
    assert re.search(r"/\s*6\b", examined.stdout), examined.stdout
    exam = max(stages(run, "exam"), key=lambda record: record["ended"])["result"]["folder"]
    replicas = {row["replica"] for file in run.path.glob(f"{exam}/*.parquet") for row in read(file)}
    assert replicas and all(replicas), "these answers did not come from an engine"
    assert run.left_behind("VLLM::") == []


def read(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(file).to_pylist())


class Teacher:
    """A service whose key is taken away after some requests, until somebody gives it back."""

    def __init__(self, revoked_after: int) -> None:
        self.revoked_after: int | None = revoked_after

    def __call__(self, asked: Asked) -> Answer | Silence:
        if self.revoked_after is not None and asked.number > self.revoked_after:
            return failure(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")
        wanted = re.search(r"Its right label: \W*(\w+)", asked.text)
        if wanted is None:  # its own exam: a row of the test set
            return answer("login")
        number = int(hashlib.sha256(f"{asked.body['seed']}{asked.text}".encode()).hexdigest(), 16) % 1000
        words = f"{'abcdefghij'[number % 10] * 3} and {'klmnopqrst'[number // 100] * 4}"
        text = f"I have a new worry, the one of {words} number {number}"
        return answer(json.dumps({"examples": [{"text": text, "label": wanted[1]}]}))


def test_a_service_teaches_errors_on_augmented_rows_are_augmented_and_training_goes_on(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`teacher.kind: openai`, whose key is revoked on the way; `augment_augmented`, `start_from: previous`, `teacher_on_test`."""
    monkeypatch.setenv("VARIANTS_KEY", KEY)
    run = scripted_run(tmp_path, tiny_model, iterations=3)
    seeds = texts(12, 0)
    # M^0 gets four seeds wrong, later ones none; of rows that a teacher wrote nothing is recorded: all wrong.
    said = [(row, [other(row["label"]) if n % 3 == 0 else row["label"], row["label"]]) for n, row in enumerate(seeds)]
    record_answers(run, [*said, *((row, [row["label"]]) for row in texts(6, 100))])
    run.config["augmentation"] = {"attempts": 2, "augment_augmented": True}
    run.config["student"]["start_from"] = "previous"
    run.config["evaluation"] |= {"teacher_on_test": True, "matched_baseline": True}
    teacher = Teacher(revoked_after=5)
    with serving(teacher) as service:
        run.config["teacher"] = {
            "kind": "openai", "model": "m", "base_url": service.url, "api_key_env": "VARIANTS_KEY", "in_flight": 1,
            "max_retries": 1,
        }  # fmt: skip
        assert run.start().wait(900) == 2
        log = (tmp_path / "log.txt").read_text()
        message = next(line for line in log.splitlines() if line.startswith("error: "))
        assert "401" in message and "VARIANTS_KEY" in message and "Traceback" not in log, log[-3000:]
        paid = {seed for _, seed in run.stored_calls()}
        teacher.revoked_after = None
        before = len(service.requests)
        run.finish()
    first, second = (
        [(a.text, a.body.get("seed")) for a in part] for part in (service.requests[:before], service.requests[before:])
    )
    probes = next(n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert probes in (1, 2), "each start asks the service first what the run will ask"
    assert paid and not paid & {seed for _, seed in second[probes:]}, "a stored reply was paid for again"
    assert not [file for file in run.path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]

    turns = run.report()["iterations"]
    assert [turn["round"]["wrong"] for turn in turns[:2]] == [4, turns[0]["round"]["accepted"]]
    assert turns[1]["round"]["evaluated"] == turns[1]["dataset"]["num_rows"] == 12 + turns[0]["round"]["accepted"]
    second = [row for row in rows_of(run, "002") if row["iteration"] == 1]
    assert second and all(row["parent_id"] != row["seed_id"] for row in second), "grown from augmented rows"
    assert {row["seed_id"] for row in second} <= {"r-0", "r-3", "r-6", "r-9"}

    students = [turn["student"] for turn in turns]
    assert [s["metrics"]["start_sha"] for s in students[1:]] == [s["sha"] for s in students[:-1]]
    exams = run.report()["exams"]["accuracy"]
    labels = [row["label"] for row in texts(6, 100)]
    assert (exams["teacher"]["hits"], exams["teacher"]["total"]) == (labels.count("login"), 6)
    assert exams["baseline"]["updates"] == sum(int(s["metrics"]["updates"]) for s in students), (
        "matched in the updates of the whole chain"
    )


def test_a_judge_apart_keeps_the_rows_whose_label_its_votes_confirm(tmp_path: Path, tiny_model: str) -> None:
    """The teacher's texts are numbered, and the judge finds that the even ones are of `billing`, the others of `shipping`."""
    run = scripted_run(tmp_path, tiny_model)
    votes = [{"match": f"of kind {n},", "reply": f" {LABELS[n % 2]}\n"} for n in range(40)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in votes))
    run.config["judge"] = {"kind": "scripted", "model": str(tmp_path / "votes.jsonl"), "style": "completion"}
    run.config["gates"] = {"relabel": {"votes": 3}, "caps": {"per_seed": 1}}
    run.config["augmentation"] = {"per_wrong": 4}
    run.finish()

    (round_,) = [stage["result"] for stage in stages(run, "round") if stage["result"]["asked"]]
    grown = [row for row in rows_of(run, "001") if row["origin"] == "augmented"]
    numbers = [int(re.findall(r"of kind (\d+),", row["input"])[0]) for row in grown]
    assert grown and [row["output"] for row in grown] == [LABELS[number % 2] for number in numbers]
    assert len({row["seed_id"] for row in grown}) == len(grown), "one row of each seed"
    rejected = run.report()["iterations"][0]["round"]["rejected"]
    assert rejected["relabelled"] == round_["doubted"] > 0 and round_["confirmed"] >= len(grown)
    assert round_["unheard"] == round_["votes_without_answer"] == 0
    assert round_["judged"] == 2 * (round_["confirmed"] + round_["doubted"]), "all votes on a text say the same: two settle it"

    calls = [json.loads(line)["seed"] for line in (run.path / "judge_calls.jsonl").read_text().splitlines()]
    assert len(set(calls)) == len(calls) <= round_["judged"], "a text that stands in several rows is voted on once"
    again = len(calls)
    run.finish()
    assert len((run.path / "judge_calls.jsonl").read_text().splitlines()) == again


def test_as_many_random_rows_as_are_wrong_are_asked_about_once_all_are_graded(tmp_path: Path, tiny_model: str) -> None:
    """`augmentation.targets: random`: two streams, one after the other; a run that goes on asks nobody anew."""
    run = scripted_run(tmp_path, tiny_model, iterations=2, latency_s=0.0)
    run.config["augmentation"] |= {"targets": "random", "rows_at_most": 1}
    run.config["evaluation"] |= {"test": False, "judge_by": "pass_rate", "samples": 2}
    run.finish()
    (record,) = [stage for stage in stages(run, "round") if stage["iteration"] == 0]
    rows = [row for file in run.path.glob(f"{record['result']['folder']}/*.parquet") for row in read(file)]
    assert len({row["id"] for row in rows}) == len(rows) == 12
    wrong = {row["id"] for row in rows if not row["correct"]}
    asked = {row["id"] for row in rows if row["asked"]}
    assert asked == {row["id"] for row in rows if row["target"]} and len(asked) == len(wrong) > 0
    assert asked != wrong, "the draw of this seed is not the wrong rows"
    assert {row["weakness"] for row in rows} == {0.0, 1.0}, "recorded answers are the same in every sample"
    assert min(row["asked_from"] for row in rows if row["asked"]) > max(row["solved_until"] for row in rows)
    first, _ = run.report()["iterations"]
    assert (first["round"]["rows_asked"], first["round"]["right_asked"]) == (len(asked), len(asked - wrong))
    assert first["round"]["accepted"] == 1 and first["round"]["rejected"]["row_cap"] > 0
    assert {row["seed_id"] for row in rows_of(run, "001") if row["origin"] == "augmented"} <= asked

    calls, done = run.teacher_calls(), run.finished()
    run.finish()
    assert (run.teacher_calls(), run.finished()) == (calls, done)
    file = run.path / f"stages/round-000-{record['key'][:16]}.json"
    file.unlink()  # as after a kill before the stage was recorded: asked again, and answered by what is stored
    run.finish()
    assert run.teacher_calls() == calls
    (again,) = [stage for stage in stages(run, "round") if stage["iteration"] == 0]
    assert {k: v for k, v in again["result"].items() if k not in ("folder", "overlap")} == {
        k: v for k, v in record["result"].items() if k not in ("folder", "overlap")
    }
