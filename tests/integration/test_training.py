"""Student training on real Ray Train and DeepSpeed, with a model of half a million weights."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from labels import Labels, rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm2llm_ray.accuracy import KNOWN
from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.models import hand_off
from llm2llm_ray.runtime.models.folders import model_sha
from llm2llm_ray.runtime.models.tokens import encode_rows
from llm2llm_ray.runtime.training import trainer
from llm2llm_ray.runtime.training.trainer import RayTrainer
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example

pytestmark = pytest.mark.integration
Line = Mapping[str, Any]


SEEDS = 21
"""Rows of D^0, where it matters."""


class Run:
    """A run folder with a trainer, and what its training logs say."""

    def __init__(
        self,
        folder: Path,
        model: str,
        on_line: Callable[[Line], None] | None = None,
        early_at: float | None = None,
        **student: Any,
    ) -> None:
        self.files = Files(str(folder))
        self.versions = VersionStore(self.files)
        self.lines: list[Line] = []
        config = Config.model_validate(
            {
                "recipe": "paper",
                "task": {"name": "labels", "data": "x"},
                "student": {"model": model, "learning_rate": 1e-3} | student,
                "teacher": {"kind": "scripted", "model": "x"},
                "evaluation": {} if early_at is None else {"error_source": "early", "early_at": early_at},
                "run": {"name": "test"},
                "cluster": {"device": "cpu", "threads": 1, "worker_start_timeout_s": 300},
            }
        )

        def progress(line: Line) -> None:
            self.lines.append(line)
            if on_line:
                on_line(line)

        self.trainer = RayTrainer(config, Labels(), self.files.root, model, SEEDS, StageRecords(self.files), progress)

    def version(self, examples: list[Example], parent: DatasetVersion | None = None) -> DatasetVersion:
        iteration = parent.iteration + 1 if parent else 0
        return self.versions.commit(examples, parent=parent, iteration=iteration, about={})

    def said(self, event: str) -> list[Line]:
        return [line for line in self.lines if line.get("event") == event]

    def updates(self) -> list[int]:
        return [line["update"] for line in self.lines if "event" not in line]


GENERATION = {"do_sample": False, "temperature": 0.9, "eos_token_id": 2, "pad_token_id": 3}
"""transformers reads it and refuses to write it: a temperature that nothing is sampled with."""


@pytest.fixture(scope="module")
def tiny_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return str(folder)


ZERO3: dict[str, Any] = {
    "workers": 2,
    "zero_stage": 3,
    "global_batch_size": 8,
    "micro_batch_size": 2,
    "updates": 30,
    "checkpoint_every_updates": 10,
}


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: str, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """D^0 and D^1 trained one after the other, as the loop does it, on 2 workers at ZeRO-3."""
    run = Run(tmp_path_factory.mktemp("undisturbed"), tiny_model, **ZERO3)
    first = run.version(rows(0, 21))
    second = run.version(rows(21, 30), first)
    students = [run.trainer.train(first, None), run.trainer.train(second, None)]
    run.trainer.close()
    return {"run": run, "versions": [first, second], "students": students}


def assert_told(folder: str) -> None:
    """What the two workers said of the student, each with a part of the weights, is what the folder's weights say."""
    model, told = AutoModelForCausalLM.from_pretrained(folder), hand_off.read(folder)
    assert told is not None and len(told.rows) == 8
    for row, said in zip(told.rows, told.log_probs, strict=True):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        assert said == pytest.approx([float(scores[at - 1, row.ids[at]]) for at in range(row.n_prompt, len(row.ids))], abs=1e-4)


def test_two_workers_at_zero_3(undisturbed: dict[str, Any], tiny_model: str) -> None:
    metrics = undisturbed["students"][0].metrics
    said = metrics["engine_report"]
    assert (said["zero_stage"], said["world_size"], said["backend"]) == (3, 2, "gloo")
    assert said["optimizer"] == "DeepSpeedZeroOptimizer_Stage3"
    assert len({worker["pid"] for worker in said["workers"]}) == 2
    again = undisturbed["students"][1].metrics["engine_report"]["workers"]
    assert again == said["workers"]  # the same processes took the second training
    assert (metrics["updates"], metrics["rows"], metrics["skipped_too_long"]) == (30, 21, 0)
    assert metrics["loss_last"] < metrics["loss_first"] / 2
    assert metrics["start_sha"] == model_sha(tiny_model)
    assert undisturbed["run"].updates() == [*range(1, 31)] * 2


def test_deepspeed_says_so_in_its_own_log(undisturbed: dict[str, Any]) -> None:
    import ray

    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    text = "".join(path.read_text(errors="replace") for path in logs.rglob("*work*"))
    assert "ZeRO Stage 3" in text or "ZeRO stage 3" in text
    assert "DeepSpeed Final Optimizer = DeepSpeedZeroOptimizer_Stage3" in text


def test_the_student_loads_in_transformers(undisturbed: dict[str, Any]) -> None:
    student = undisturbed["students"][0]
    model = AutoModelForCausalLM.from_pretrained(student.path)
    tokenizer = AutoTokenizer.from_pretrained(student.path)
    assert model.dtype == torch.float32
    assert_told(student.path)
    ids = tokenizer(Labels().student_prompt(rows(0, 1)[0].input), return_tensors="pt").input_ids
    answer = tokenizer.decode(model.generate(ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :])
    assert answer.split() == [answer.strip()] and answer.endswith("<|im_end|>")  # one word and the end, as it was taught
    assert answer.removesuffix("<|im_end|>").strip() in {"billing", "shipping", "login"}
    assert json.loads((Path(student.path) / "generation_config.json").read_text()) == GENERATION
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False).startswith("<|im_start|>")


def test_a_killed_worker_goes_on_from_the_checkpoint_and_iteration_2_from_the_base(
    undisturbed: dict[str, Any], tiny_model: str, tmp_path: Path
) -> None:
    """The same D^1 in a run that never trained iteration 0, with rank 1 killed: the same weights, bit by bit."""
    killed: list[int] = []

    def kill_rank_1(line: Line) -> None:
        if line.get("event") == "checkpoint" and not killed:
            killed.append(run.said("start")[0]["engine_report"]["workers"][1]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    run = Run(tmp_path, tiny_model, kill_rank_1, **ZERO3)
    first = run.version(rows(0, 21))
    second = run.version(rows(21, 30), first)
    assert second.id == undisturbed["versions"][1].id
    student = run.trainer.train(second, None)
    assert killed
    starts = [line["update"] for line in run.said("start")]
    assert starts[0] == 0 and len(starts) == 2
    assert starts[1] >= 10 and starts[1] % 10 == 0  # a checkpoint, not the beginning
    assert student.metrics["resumed_from_update"] == starts[1]
    updates = run.updates()
    assert updates.count(10) == 1 and updates[-1] == 30 and sorted(set(updates)) == [*range(1, 31)]
    calm = undisturbed["students"]
    assert calm[1].metrics["start_sha"] == student.metrics["start_sha"] == model_sha(tiny_model)
    assert student.sha == calm[1].sha != calm[0].sha
    assert list(tmp_path.glob("train/*/")), "checkpoints lie elsewhere: the next lines would show nothing"
    run.trainer.close()
    assert not list(tmp_path.glob("train/*/"))


def test_a_snapshot_is_written_once_and_changes_no_weight(undisturbed: dict[str, Any], tiny_model: str, tmp_path: Path) -> None:
    """D^0 with a snapshot after update 15 of 30, and rank 1 killed then: the checkpoint before it is of update 10."""
    made: list[tuple[int, int]] = []

    def kill_rank_1(line: Line) -> None:
        if line.get("event") == "early" and not made:
            (snapshot,) = tmp_path.glob("students/*-early")
            made.append((snapshot.stat().st_ino, snapshot.stat().st_mtime_ns))
            os.kill(run.said("start")[0]["engine_report"]["workers"][1]["pid"], signal.SIGKILL)

    run = Run(tmp_path, tiny_model, kill_rank_1, early_at=0.5, **ZERO3)
    first = run.version(rows(0, SEEDS))
    student = run.trainer.train(first, None)
    run.trainer.close()
    assert [line["update"] for line in run.said("start")] == [0, 10]
    assert [line["update"] for line in run.said("early")] == [15, 15]
    calm, early = undisturbed["students"][0], student.early
    assert calm.early is None and early is not None and early.update == 15
    assert student.sha == calm.sha != early.sha == model_sha(early.path)
    place = Path(early.path).stat()
    assert made == [(place.st_ino, place.st_mtime_ns)] and early.path == f"{student.path}-early"
    assert_told(early.path)
    assert_told(student.path)
    assert run.trainer.train(first, None) == student


def test_a_finished_training_is_not_repeated(undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run, lines = undisturbed["run"], len(undisturbed["run"].lines)
    assert run.trainer.train(undisturbed["versions"][0], None) == undisturbed["students"][0]
    record = next(Path(run.files.root).glob("stages/train-000-*"))
    content = json.loads(record.read_text())
    record.unlink()  # as if the driver had died between the export and the record
    again = run.trainer.train(undisturbed["versions"][0], None)
    assert (again.sha, again.path) == (undisturbed["students"][0].sha, undisturbed["students"][0].path)
    assert json.loads(record.read_text())["result"] == content["result"]
    assert len(run.lines) == lines


def test_with_automatic_updates_the_first_student_is_the_baseline(ray_cluster: str, tiny_model: str, tmp_path: Path) -> None:
    """Two trainings for D^0, D^1 and the baseline; and both students know their rows in the end, as one of 3 updates does not."""
    run = Run(tmp_path, tiny_model, updates="auto", global_batch_size=8)
    alike = [replace(row, output="billing") for row in rows(0, 30)]  # what a tiny model can learn by heart
    first = run.version(alike[:SEEDS])
    students = [run.trainer.train(first, None), run.trainer.train(run.version(alike[SEEDS:], first), None)]
    assert [student.metrics["updates"] for student in students] == [60, 60]
    assert run.trainer.train_baseline(first, 60) == students[0]
    assert len(run.said("start")) == 2 == len(list(tmp_path.glob("stages/train-*")))
    assert all(student.metrics["token_accuracy"] > KNOWN for student in students)
    few = run.trainer.train_baseline(first, 3)
    run.trainer.close()
    last = [line["token_accuracy"] for line in run.lines if "event" not in line][-3:]  # each of a batch of an epoch of three
    assert few.metrics["token_accuracy"] < KNOWN and min(last) <= few.metrics["token_accuracy"] <= max(last)
    told = [event for event in Events(run.files).read() if event["event"] == "rows_not_known"]
    assert [(event["updates"], event["token_accuracy"]) for event in told] == [(3, few.metrics["token_accuracy"])]


def test_running_out_of_memory_halves_the_micro_batch(
    ray_cluster: str, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address space of the worker is really limited, from outside, once it has started with 32 rows at once."""
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_POLLS", 0.01)  # later it may have all the memory it needs
    limited: list[int] = []

    def limit(line: Line) -> None:
        if line.get("event") == "start" and not limited:
            pid = line["engine_report"]["workers"][0]["pid"]
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + (16 << 20)
            resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
            limited.append(pid)

    long = [Example(id=f"l-{n}", input=f"number {n}", output="my account " * 160 + str(n)) for n in range(32)]
    run = Run(tmp_path, tiny_model, limit, global_batch_size=32, micro_batch_size=32, updates=4, max_failures=0)
    student = run.trainer.train(run.version(long), None)
    run.trainer.close()
    assert [line["micro_batch_size"] for line in run.said("start")] == [32, 16]
    assert student.metrics["micro_batch_size"] == 16
    assert student.metrics["updates"] == 4
    assert student.metrics["tokens"] == 4 * sum(lengths(tiny_model, long))  # the global batch is what it was


def lengths(model: str, examples: list[Example]) -> list[int]:
    tokenizer, task = AutoTokenizer.from_pretrained(model), Labels()
    pairs = [(task.student_prompt(example.input), task.completion(example.output)) for example in examples]
    return [len(row.ids) for row in encode_rows(tokenizer, pairs, 10_000)[0]]


def test_what_a_dead_driver_had_reserved_is_free_again(ray_cluster: str, tiny_model: str, tmp_path: Path) -> None:
    """Its controller and Ray Train's own cleaner die together, as under memory pressure; the run's next driver trains."""
    import ray
    from psutil import STATUS_ZOMBIE, NoSuchProcess, Process
    from ray.util import placement_group_table

    def command(process: Process) -> str:
        try:
            return " ".join(process.cmdline()) if process.status() != STATUS_ZOMBIE else ""
        except NoSuchProcess:
            return ""

    def reserved() -> list[str]:
        return [name for name, group in placement_group_table().items() if group["state"] == "CREATED"]

    before = set(reserved())
    dead = Run(tmp_path, tiny_model, workers=2, updates=1)
    version = dead.version(rows(0, 8))
    dead.trainer.train(version, None)
    (left,) = set(reserved()) - before
    commands = {process: command(process) for process in Process().children(recursive=True)}
    ends = [process for process, said in commands.items() if re.search("PlacementGroupCleaner|TrainController", said)]
    assert any("TrainController" in commands[process] for process in ends)
    for process in ends:
        with suppress(NoSuchProcess):
            process.kill()
    alive = Run(tmp_path, tiny_model, workers=2, updates=2)
    assert alive.trainer.train(version, None).metrics["updates"] == 2
    alive.trainer.close()
    assert placement_group_table()[left]["state"] == "REMOVED"
    until = time.monotonic() + 30  # Ray's own view of what is free comes with a node's next report
    while set(reserved()) - before or ray.available_resources().get("CPU", 0) != pytest.approx(4):
        assert time.monotonic() < until, f"still reserved: {reserved()}, free: {ray.available_resources()}"
        time.sleep(0.2)


def test_what_cannot_be_trained_is_the_users_business(ray_cluster: str, tiny_model: str, tmp_path: Path) -> None:
    """On two ranks, one training after the other: rows that do not fit, and weights thrown out of float32."""
    run = Run(tmp_path, tiny_model, workers=2, max_length=40, learning_rate=1e39, updates=3)
    too_long = [Example(id=f"l-{n}", input="my account " * 40, output="billing") for n in range(3)]
    with pytest.raises(UserError, match=r"none of the 3 training rows fits into student.max_length=40 tokens"):
        run.trainer.train(run.version(too_long), None)
    given = run.version(rows(0, 8))
    with pytest.raises(
        UserError, match=r"update 2 of 3, at learning rate 1e\+39: the loss is nan\. No student comes of it"
    ) as told:
        run.trainer.train(given, None)
    longest = max(zip(lengths(tiny_model, rows(0, 8)), rows(0, 8), strict=True), key=lambda pair: pair[0])
    assert f"The longest of its 8 rows: {longest[1].id} ({longest[0]} tokens), " in str(told.value)
    with pytest.raises(UserError, match=r"update 1 of 1, at learning rate 1e\+39: the loss after it is nan"):
        run.trainer.train_baseline(given, 1)  # no update follows that would see it
    assert not list(tmp_path.glob("students/*")) and not list(tmp_path.glob("stages/*"))
    run.trainer.close()


def test_a_disk_too_small_for_the_student_is_told_before_it_is_trained(ray_cluster: str, tmp_path: Path) -> None:
    """Weights of 40 TB by the header of their file, which is all that there is of them."""
    model = tmp_path / "model"
    model.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [10_000_000, 1_000_000], "data_offsets": [0, 0]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (model / "config.json").write_text("{}")
    run = Run(tmp_path / "run", str(model))
    with pytest.raises(UserError, match=rf"GiB are free in {tmp_path}/run, .* needs 260770.3 GiB there for the student"):
        run.trainer.train(run.version(rows(0, 8)), None)
    without = Run(tmp_path / "without", str(model), checkpoint_every_updates=3)  # as many as there are: no checkpoint
    with pytest.raises(UserError, match=r"needs 37252.9 GiB there for the student"):
        without.trainer.train(without.version(rows(0, 8)), None)
