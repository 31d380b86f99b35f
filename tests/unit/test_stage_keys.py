"""Which stage runs again, and who is asked again, when a setting changes: every field of the config against a table by hand.

The real loop over the real parts, with ports that only note the keys: nothing is trained, asked or started.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel, ValidationError
from stream_rows import augmented

from llm2llm_ray.algorithm import llm2llm
from llm2llm_ray.asking.scripted import script_sha
from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import fixed_updates, num_iterations
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.preflight import Checked
from llm2llm_ray.protocols import ErrorSource
from llm2llm_ray.rounds.folds import Fold, folds, folds_for
from llm2llm_ray.rounds.round_inputs import committed
from llm2llm_ray.rounds.versioning import COMMIT_VERSION, ROUND_VERSION
from llm2llm_ray.runtime.driver.driver import outcome
from llm2llm_ray.runtime.driver.error_sources import error_source
from llm2llm_ray.runtime.driver.evaluate import examine
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec
from llm2llm_ray.runtime.streaming.streams import RayAugmented, RayGraded
from llm2llm_ray.runtime.streaming.transports import EngineRoute
from llm2llm_ray.runtime.training.trainer import TRAIN_VERSION, training_inputs
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import stage_key
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.splits import load_splits
from llm2llm_ray.types import DatasetVersion, Example, Iteration, Reply, Round, Snapshot, Student

LABELS = ["billing", "shipping"]
ROW = {"id": "r-1", "input": "Where is the parcel?", "output": "shipping", "origin": "seed", "seed_id": None}
CANDIDATE = augmented("r-1", "When does it come?", output="shipping")
BASE: Mapping[str, Any] = {
    "recipe": "paper",
    "task.name": "classification", "task.data": "rows", "task.options": {"labels": LABELS},
    "student.model": "student", "student.engine.dtype": "float32",
    "teacher.model": "teacher", "teacher.engine.dtype": "float32",
    "cluster.device": "cpu", "run.name": "keys", "run.iterations": 3,
}  # fmt: skip
SERVICE = {"teacher.kind": "openai", "teacher.base_url": "http://here/v1"}
SCRIPT = {"teacher.kind": "scripted", "teacher.model": "replies.jsonl"}
REPLIES = {"teacher.kind": "recorded", "teacher.model": "replies.jsonl"}
RECORDED = {"evaluation.recorded_answers": "answers.jsonl"}
LORA = {"student.method": "lora"}
CROSS = {"evaluation.error_source": "cross_fit"}
SAMPLED = {"evaluation.judge_by": "pass_rate"}
MONEY = {"teacher.budget.money": 2.0, "teacher.budget.price_per_million_prompt_tokens": 1.0}

Keys = dict[tuple[str, object], str]


class Reworded(Classification):
    """The student is asked in other words, the teacher in the same."""

    def student_prompt(self, text: str) -> str:
        return f"Say what this is about: {text}\nAnswer:"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six seed rows of each label, and two each of dev and test; the same files with other texts in `other`."""
    for place, words in (("rows", "the"), ("other", "that")):
        (tmp_path / place).mkdir()
        for name, count in (("seed", 12), ("dev", 4), ("test", 4)):
            rows = [
                {"id": f"{name}-{n}", "text": f"{name} {n}: {words} {LABELS[n % 2]} of {n}?", "body": f"{name} {words} {n}",
                 "label": LABELS[n % 2]}
                for n in range(count)
            ]  # fmt: skip
            write(tmp_path / place / f"{name}.jsonl", *rows)
    write(tmp_path / "replies.jsonl", {"reply": "How much is it?"})
    write(tmp_path / "replies-2.jsonl", {"reply": "How much is that?"})
    write(tmp_path / "answers.jsonl", {"input": "parcel", "answers": [" shipping"]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *lines: Mapping[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def config_of(changes: Mapping[str, Any]) -> Config:
    tree: dict[str, Any] = {}
    for path, value in (BASE | dict(changes)).items():
        *sections, last = path.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return Config.model_validate(tree)


def inputs_of(config: Config) -> tuple[Inputs, list[Example]]:
    """As `launch.prepare` makes them, with names for the shas of models that are not there; and the seed rows."""
    task, splits = load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=".")
    teacher, recorded = config.teacher, config.evaluation.recorded_answers
    teacher_sha = {"serve": f"sha of {teacher.model}", "openai": ""}.get(teacher.kind)
    inputs = Inputs(
        config=config, task=task, run_root="run", device="gpu" if config.cluster.device == "gpu" else "cpu",
        student_model=config.student.model, student_sha=f"sha of {config.student.model}", teacher_model=teacher.model,
        teacher_sha=script_sha(teacher.model) if teacher_sha is None else teacher_sha,
        judge_model=config.judge.model if config.judge else "", judge_sha=_judge_sha(config),
        recorded_sha=script_sha(recorded) if recorded else "",
        replies_sha=script_sha(teacher.replies) if teacher.replies else "", folds=folds_for(config, task, splits.seed),
        seeds=version(splits.seed), dev=version(splits.dev), test=version(splits.test),
    )  # fmt: skip
    return inputs, splits.seed


def _judge_sha(config: Config) -> str:
    judge = config.judge
    return "" if judge is None else script_sha(judge.model) if judge.kind == "scripted" else f"sha of {judge.model}"


def version(rows: list[Example]) -> DatasetVersion:
    """Rows that only have a name."""
    return DatasetVersion(id=fingerprint([asdict(row) for row in rows]), iteration=0, parent=None, parts=(), num_rows=len(rows))


class Noted:
    """Trainer and Versions of a run in which each training gives the same student, and each round one more row."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        config = config_of(changes)
        self.inputs, seeds = inputs_of(config)
        self.parts = Parts(
            inputs=self.inputs, files=Files(str(Path.cwd() / "run")), progress=None, make_asker=lambda **options: None
        )
        self.keys: Keys = {}
        list(
            llm2llm(
                trainer=self, versions=self, errors=self.errors(),
                augmenter=self.parts.augmenter(seeds, self.inputs.seeds.id), iterations=num_iterations(config),
                continue_training=config.student.start_from == "previous",
            )
        )  # fmt: skip
        self._train("baseline", self.inputs.seeds, None, updates=9)
        test = self.inputs.test
        assert test is not None
        for who, sha in (("untrained", self.inputs.student_sha), ("first", "M0")):
            self._note("exam", who, self.parts.graded(Student(path=who, sha=sha, iteration=0), test).inputs)
        self._note("teacher exam", 0, self.parts.teacher_exam(test, seeds).inputs)

    def errors(self) -> ErrorSource:
        return error_source(self.parts, self.inputs.seeds, self._train_without)

    def _note(self, name: str, which: object, inputs: Mapping[str, Any]) -> None:
        stage, version = {
            "train": ("train", TRAIN_VERSION), "fold": ("train", TRAIN_VERSION),
            "round": ("round", ROUND_VERSION), "commit": ("commit", COMMIT_VERSION),
            "exam": ("exam", ROUND_VERSION), "teacher exam": ("exam", ROUND_VERSION),
        }[name]  # fmt: skip
        self.keys[name, which] = stage_key(stage, version, inputs)

    def _train(
        self,
        which: object,
        dataset: DatasetVersion,
        start: Student | None,
        updates: int | None,
        early_at: float | None = None,
        fold: Fold | None = None,
    ) -> None:
        inputs, sha = self.inputs, start.sha if start else self.inputs.student_sha
        self._note("fold" if fold else "train", which, training_inputs(
            inputs.config.student, inputs.task, cast(Any, inputs.device), dataset=dataset.id, start=sha, updates=updates,
            early_at=early_at, left_out=fold.id if fold else None,
        ))  # fmt: skip

    def _train_without(self, fold: Fold, dataset: DatasetVersion, start: Student | None) -> Student:
        self._train((dataset.iteration, fold.number), dataset, start, 9, fold=fold)
        sha = f"M{dataset.iteration} without {fold.id}"
        return Student(path=f"m-{fold.number}", sha=sha, iteration=dataset.iteration)

    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        student, seeds = self.inputs.config.student, self.inputs.seeds.num_rows
        batch = student.global_batch_size
        updates = fixed_updates(student.updates, seeds=seeds, rows=dataset.num_rows, global_batch_size=batch)
        early_at = self.inputs.config.evaluation.snapshot_at
        self._train(dataset.iteration, dataset, start, updates, early_at)
        early = None if early_at is None else Snapshot(path="m-early", sha=f"M{dataset.iteration} at {early_at}", update=3)
        return Student(path="m", sha=f"M{dataset.iteration}", iteration=dataset.iteration, early=early)

    def seed(self) -> DatasetVersion:
        return self.inputs.seeds

    def extend(self, dataset: DatasetVersion, augmented: Any) -> tuple[DatasetVersion, Round]:
        assert isinstance(augmented, RayAugmented)
        self._note("round", dataset.iteration, augmented.inputs)
        held_out = [version.id for version in (self.inputs.dev, self.inputs.test) if version]
        round_key = self.keys["round", dataset.iteration]
        self._note("commit", dataset.iteration, committed(
            self.parts.settings().of_round(dataset.iteration), self.inputs.config.gates.caps, round_key=round_key,
            dataset=dataset.id, held_out=held_out,
        ))  # fmt: skip
        if dataset.iteration == 0:
            row = self._asked("student's reply", augmented.graded.solve, {**ROW, "fold": 0} if self.inputs.folds else ROW)
            self._asked("teacher's reply", augmented.augment, row)
            if augmented.judge:
                self._asked("judge's reply", augmented.judge, CANDIDATE)
        grown = DatasetVersion(
            id=f"{dataset.id}+", iteration=dataset.iteration + 1, parent=dataset.id, parts=dataset.parts, num_rows=13
        )
        return grown, Round(evaluated=12, wrong=1)

    def close(self, dataset: DatasetVersion, graded: Any) -> Round:
        assert isinstance(graded, RayGraded)
        self._note("round", dataset.iteration, graded.inputs)
        return Round(evaluated=12, wrong=1)

    def _asked(self, name: str, spec: RoleSpec, row: dict[str, Any]) -> dict[str, Any]:
        """Asks for one row by the role; notes the first reply's key, under which a wrong answer without a label is found."""
        found: list[str] = []

        async def ask(request: Any) -> Reply:
            found.append(spec.answerer.reply_key(request))
            return Reply(text="[[-3.5, 2]]" if "score" in request.sampling else "no label", finish_reason="stop")

        answered = asyncio.run(cast(Any, spec.role(row, ask)))
        self.keys[name, 0] = found[0]
        return cast(dict[str, Any], answered)


def keys(changes: Mapping[str, Any]) -> Keys:
    return Noted(changes).keys


def changed(before: Keys, after: Keys) -> set[str]:
    """Names of the stages and replies of which one, in the same place of the run, has another key."""
    return {name for name, which in before.keys() & after.keys() if before[name, which] != after[name, which]}


T, R, C, E, X, s, t = "train", "round", "commit", "exam", "teacher exam", "student's reply", "teacher's reply"
v, F = "judge's reply", "fold"
NOTHING: set[str] = set()
ANSWERS = {R, C, E, s}
"""The student answers otherwise. (A commit's inputs hold its round's key.)"""
TEACHES = {R, C, X, t}
"""The teacher answers otherwise."""
VOTES = {"gates.relabel.votes": 3}
APART = VOTES | {"judge": {"kind": "scripted", "model": "replies.jsonl"}}
"""Somebody else than the teacher votes."""

# field, another value, what gets new keys, what stands beside it in the config
TABLE: list[tuple[str, Any, set[str], Mapping[str, Any]]] = [
    ("recipe", "steady", {T, R, C, E, X, s, t}, {}),
    ("task.name", "test_stage_keys:Reworded", {T, R, C, E, X, s}, {}),
    ("task.name", "llm2llm_ray.tasks.classification:Classification", NOTHING, {}),
    ("task.data", "other", {T, R, C, E, X, t}, {}),
    ("task.seed", "other/seed.jsonl", {T, R, C, X, t}, {}),
    ("task.seed", "other/seed.jsonl", {T, R, C, X, t}, {"evaluation.error_source": "dev"}),  # shown beside the wrong ones
    ("task.dev", "other/dev.jsonl", {C}, {}),
    ("task.dev", "other/dev.jsonl", {R, C}, {"evaluation.error_source": "dev"}),
    ("task.test", "other/test.jsonl", {C, E, X}, {}),
    ("task.columns", {"text": "body"}, {T, R, C, E, X, t}, {}),
    ("task.options", {"labels": LABELS, "question": "Topic"}, {T, R, C, E, X, s, t}, {}),
    ("task.options", {"labels": LABELS, "show_labels": True}, {T, R, C, E, X, s}, {}),
    ("task.options", {"labels": LABELS, "show_labels": False}, NOTHING, {}),
    ("task.seeds_per_class", 2, {T, R, C, X, t}, {}),
    ("task.seed_rows", 3, {T, R, C, X, t}, {}),
    ("task.dev_rows", 2, {C}, {}),
    ("task.test_rows", 2, {C, E, X}, {}),
    ("task.sample_seed", 1, {T, R, C, X, t}, {"task.seeds_per_class": 3}),
    ("student.model", "other", {T, E}, {}),
    ("student.method", "lora", {T}, {}),
    ("student.lora.rank", 8, {T}, LORA),
    ("student.lora.rank", 8, NOTHING, {}),
    ("student.lora.alpha", 8, {T}, LORA),
    ("student.lora.dropout", 0.1, {T}, LORA),
    ("student.lora.target_modules", ["q_proj"], {T}, LORA),
    ("student.epochs", 2, {T}, {}),
    ("student.epochs", 2, NOTHING, {"student.updates": 7}),
    ("student.updates", 7, {T}, {}),
    ("student.updates", "auto", {T}, {}),
    ("student.updates", 60, NOTHING, {"student.updates": "auto"}),  # what auto is for these rows
    ("student.global_batch_size", 64, {T}, {}),
    ("student.micro_batch_size", 4, NOTHING, {}),
    ("student.learning_rate", 1e-4, {T}, {}),
    ("student.warmup_ratio", 0.1, {T}, {}),
    ("student.schedule", "linear", {T}, {}),
    ("student.weight_decay", 0.1, {T}, {}),
    ("student.gradient_clipping", 0.5, {T}, {}),
    ("student.max_length", 512, {T}, {}),
    ("student.precision", "bf16", {T}, {}),
    ("student.precision", "fp32", NOTHING, {}),  # what auto is on CPU
    ("student.zero_stage", 1, {T}, {}),
    ("student.zero_stage", 0, NOTHING, {}),  # what auto is for one worker in fp32
    ("student.offload", "cpu", {T}, {}),
    ("student.workers", 2, {T}, {}),
    ("student.max_failures", 1, NOTHING, {}),
    ("student.checkpoint_every_updates", 5, NOTHING, {}),
    ("student.start_from", "previous", {T}, {}),
    ("student.seed", 1, {T}, {}),
    ("student.engine.replicas", 2, NOTHING, {}),
    ("student.engine.max_replicas", 2, NOTHING, {}),
    ("student.engine.max_model_len", 512, ANSWERS, {}),
    ("student.engine.max_model_len", 512, NOTHING, RECORDED),
    ("student.engine.max_num_seqs", 8, NOTHING, {}),
    ("student.engine.dtype", "bfloat16", ANSWERS, {}),
    ("student.engine.kv_cache_gib", 1.0, NOTHING, {}),
    ("student.engine.gpu_memory_utilization", 0.5, NOTHING, {}),
    ("student.engine.tensor_parallel", 2, NOTHING, {}),
    ("student.engine.engine_kwargs", {"quantization": "fp8"}, ANSWERS, {}),
    ("teacher.kind", "openai", TEACHES, {"teacher.base_url": "http://here/v1"}),
    ("teacher.kind", "scripted", TEACHES, {"teacher.model": "replies.jsonl"}),
    ("teacher.model", "other", TEACHES, {}),
    ("teacher.model", "other", TEACHES, SERVICE),
    ("teacher.model", "replies-2.jsonl", TEACHES, SCRIPT),
    ("teacher.kind", "recorded", TEACHES, {"teacher.model": "replies.jsonl"}),
    ("teacher.kind", "recorded", TEACHES, SCRIPT),
    ("teacher.model", "replies-2.jsonl", TEACHES, REPLIES),
    ("teacher.replies", "replies.jsonl", {R, C, X}, {}),  # no reply is asked again, but a budget reaches further
    ("teacher.replies", "replies.jsonl", {R, C, X}, SERVICE),
    ("teacher.replies", "replies-2.jsonl", {R, C, X}, {"teacher.replies": "replies.jsonl"}),
    ("teacher.style", "completion", {R, C, X, t}, {}),
    ("teacher.system_message", "merge", TEACHES, {}),
    ("teacher.temperature", 0.5, {R, C, t}, {}),
    ("teacher.top_p", 0.5, {R, C, t}, {}),
    ("teacher.max_tokens", 64, {R, C, X, t}, {}),
    ("teacher.engine.replicas", 2, NOTHING, {}),
    ("teacher.engine.max_replicas", 2, NOTHING, {}),
    ("teacher.engine.max_model_len", 512, TEACHES, {}),
    ("teacher.engine.max_model_len", 512, NOTHING, SERVICE),
    ("teacher.engine.max_model_len", 512, NOTHING, REPLIES),
    ("teacher.engine.max_num_seqs", 8, NOTHING, {}),
    ("teacher.engine.dtype", "bfloat16", TEACHES, {}),
    ("teacher.engine.kv_cache_gib", 1.0, NOTHING, {}),
    ("teacher.engine.gpu_memory_utilization", 0.5, NOTHING, {}),
    ("teacher.engine.tensor_parallel", 2, NOTHING, {}),
    ("teacher.engine.engine_kwargs", {"quantization": "fp8"}, TEACHES, {}),
    ("teacher.in_flight", 3, NOTHING, {}),
    ("teacher.base_url", "http://there/v1", TEACHES, SERVICE),
    ("teacher.base_url", "http://there/v1", NOTHING, {}),
    ("teacher.api_key_env", "KEY", NOTHING, SERVICE),
    ("teacher.ca_file", "ca.pem", NOTHING, SERVICE),
    ("teacher.request.drop", ["seed"], TEACHES, SERVICE),
    ("teacher.request.drop", ["seed"], NOTHING, {}),
    ("teacher.request.add", {"top_k": 5}, TEACHES, SERVICE),
    ("teacher.timeout_s", 9, NOTHING, SERVICE),
    ("teacher.max_retries", 1, NOTHING, SERVICE),
    ("teacher.requests_per_minute", 9, NOTHING, SERVICE),
    ("teacher.tokens_per_minute", 9, NOTHING, SERVICE),
    ("teacher.budget.calls", 9, {R, C, X}, {}),
    ("teacher.budget.tokens", 9, {R, C, X}, {}),
    ("teacher.budget.money", 9.0, {R, C, X}, MONEY),
    ("teacher.budget.price_per_million_prompt_tokens", 9.0, {R, C, X}, MONEY),
    ("teacher.budget.price_per_million_prompt_tokens", 9.0, NOTHING, {}),
    ("teacher.budget.price_per_million_completion_tokens", 9.0, {R, C, X}, MONEY),
    ("teacher.latency_s", 0.1, NOTHING, SCRIPT),
    ("teacher.latency_s", 0.1, NOTHING, REPLIES),
    ("augmentation.per_wrong", 2, {R, C}, {}),
    ("augmentation.per_call", 2, {R, C, t}, {"augmentation.per_wrong": 2}),
    ("augmentation.per_call", 2, {R, C, t}, {"augmentation.one_shot": True, "run.iterations": 3}),  # two are wanted in one round
    ("augmentation.per_call", 2, NOTHING, {}),  # never more than per_wrong
    ("augmentation.per_call", 3, NOTHING, {"augmentation.per_wrong": 2, "augmentation.per_call": 2}),
    ("augmentation.attempts", 1, {R, C}, {}),
    ("augmentation.one_shot", True, {R, C}, {}),
    ("augmentation.augment_augmented", True, {R, C}, {}),
    ("augmentation.show_wrong_answer", True, {R, C, t}, {}),
    ("augmentation.examples_of_confused", 1, {R, C}, {"augmentation.show_wrong_answer": True}),  # this one's answer is no label
    ("augmentation.examples_of_confused", 1, NOTHING, {}),
    ("augmentation.examples_in_prompt", 1, {R, C, t}, {}),
    ("augmentation.require_better_teacher", True, NOTHING, {}),
    ("augmentation.copies", True, {R, C}, {}),
    ("augmentation.max_words", 9, {R, C}, {}),
    ("augmentation.targets", "weakest", {R, C}, {}),
    ("augmentation.targets", "random", {R, C}, {}),
    ("augmentation.weakest_share", 0.2, {R, C}, {"augmentation.targets": "weakest"}),
    ("augmentation.weakest_share", 0.2, NOTHING, {"augmentation.targets": "random"}),
    ("augmentation.weakest_share", 0.2, NOTHING, {"augmentation.random_share": 0.3}),
    ("augmentation.random_share", 0.2, {R, C}, {}),
    ("augmentation.random_share", 0.0, NOTHING, {}),
    ("augmentation.targets", "all", {R, C}, {}),
    ("augmentation.rows_at_most", 9, {C}, {}),
    ("augmentation.rows_at_most", (9, 4), NOTHING, {"augmentation.rows_at_most": (9, 4, 0)}),  # none after the list's end
    ("augmentation.near_duplicate", 0.5, {C}, {}),
    ("augmentation.near_test", 0.5, {C}, {}),
    ("gates.relabel.votes", 3, {R, C}, {}),
    ("gates.relabel.votes", 5, {R, C}, VOTES),
    ("gates.relabel.needed", 3, {R, C}, VOTES),
    ("gates.relabel.needed", 2, NOTHING, VOTES),  # what None is of three
    ("gates.relabel.temperature", 0.5, {R, C, v}, VOTES),
    ("gates.relabel.temperature", 0.5, NOTHING, {}),
    ("gates.relabel.examples", 1, {R, C, X, v}, VOTES),
    ("gates.relabel.max_tokens", 9, {R, C, X, v}, VOTES),
    ("gates.relabel.max_tokens", 512, NOTHING, VOTES),  # the teacher's
    ("gates.relabel.on_doubt", "keep", {R, C}, VOTES),
    ("gates.relabel.weight", 0.25, {R, C}, VOTES | {"gates.relabel.on_doubt": "weight"}),
    ("gates.relabel.weight", 0.25, NOTHING, VOTES),
    ("gates.caps.per_class", 5, {C}, {}),
    ("gates.caps.per_seed", 5, {C}, {}),
    ("judge", {"kind": "scripted", "model": "replies.jsonl"}, {R, C, v}, VOTES),
    ("judge", {"kind": "scripted", "model": "replies.jsonl"}, NOTHING, {}),
    ("judge", {"kind": "scripted", "model": "replies-2.jsonl"}, {R, C, v}, APART),
    ("judge", {"kind": "scripted", "model": "replies.jsonl", "style": "completion"}, {R, C, v}, APART),
    ("judge", {"kind": "scripted", "model": "replies.jsonl", "temperature": 0.1}, NOTHING, APART),
    ("judge", {"kind": "scripted", "model": "replies.jsonl", "latency_s": 0.1}, NOTHING, APART),
    ("judge", {"kind": "scripted", "model": "replies.jsonl", "budget": {"calls": 9}}, {R, C}, APART),
    ("teacher.top_p", 0.5, {R, C, t, v}, VOTES),
    ("teacher.top_p", 0.5, {R, C, t}, APART),
    ("teacher.system_message", "merge", {R, C, X, t, v}, VOTES),
    ("run.seed", 1, {R, C, t, v}, VOTES),
    ("evaluation.error_source", "dev", {R, C}, {}),
    ("evaluation.error_source", "early", {T, R, C, s}, {}),  # its students are trained anew, for the snapshot
    ("evaluation.error_source", "cross_fit", {R, C, s, t}, {}),
    ("evaluation.folds", 3, NOTHING, {}),
    ("evaluation.folds", 3, {F, R, C, s, t}, CROSS),
    ("student.learning_rate", 1e-3, {T, F}, CROSS),
    ("task.seed", "other/seed.jsonl", {T, F, R, C, X, t}, CROSS),
    ("run.seed", 1, {R, C, t}, CROSS),  # the folds are the same
    ("evaluation.early_at", 0.5, NOTHING, {}),
    ("evaluation.early_at", 0.5, {T, R, C, s}, {"evaluation.error_source": "early"}),
    ("evaluation.max_tokens", 9, {R, C, E, s}, {}),
    ("evaluation.judge_by", "pass_rate", {R, C, s}, {}),  # the first request is a sampled one; exams are greedy
    ("evaluation.judge_by", "gold_loss", {R, C}, {}),  # it is asked beside the greedy one
    ("evaluation.samples", 4, {R, C}, SAMPLED),
    ("evaluation.samples", 4, NOTHING, {}),
    ("evaluation.sample_temperature", 0.9, {R, C, s}, SAMPLED),
    ("evaluation.sample_temperature", 0.9, NOTHING, {}),
    ("evaluation.weak_below", 0.75, {R, C}, SAMPLED),
    ("evaluation.weak_below", 0.75, NOTHING, {"evaluation.judge_by": "gold_loss"}),
    ("evaluation.structured", True, {R, C, E, X, s}, {}),
    ("evaluation.structured", True, ANSWERS, SERVICE),  # a service is not held to choices
    ("evaluation.structured", True, {X}, RECORDED),
    ("evaluation.in_flight", 3, NOTHING, {}),
    ("evaluation.rows_per_block", 9, NOTHING, {}),
    ("evaluation.max_unanswered.passing", 0.5, NOTHING, {}),
    ("evaluation.max_unanswered.refused", 0.5, NOTHING, {}),
    ("evaluation.test", False, NOTHING, {}),
    ("evaluation.check_teacher", True, NOTHING, {}),
    ("evaluation.teacher_on_test", True, NOTHING, {}),
    ("evaluation.matched_baseline", False, NOTHING, {}),
    ("evaluation.recorded_answers", "answers.jsonl", ANSWERS, {}),
    ("cluster.address", "auto", NOTHING, {}),
    ("cluster.profile", "laptop", NOTHING, {}),
    ("cluster.labels", {"train": {"pool": "train"}}, NOTHING, {}),
    ("cluster.device", "gpu", {T}, {}),  # auto is another precision and ZeRO stage there
    ("cluster.device", "gpu", NOTHING, {"student.precision": "fp32", "student.zero_stage": 0}),
    ("cluster.cpus_per_worker", 2, NOTHING, {}),
    ("cluster.threads", 2, NOTHING, {}),
    ("cluster.gpus_per_worker", 0.5, NOTHING, {}),
    ("cluster.gpus_per_engine", 0.5, NOTHING, {}),
    ("cluster.share_gpu", True, NOTHING, {}),
    ("cluster.worker_start_timeout_s", 9, NOTHING, {}),
    ("run.name", "other", NOTHING, {}),
    ("run.folder", "elsewhere", NOTHING, {}),
    ("run.iterations", 4, {R}, {}),  # the round that was the last one now generates
    ("run.seed", 1, {R, C, t}, {}),
    ("run.seed", 1, {R, C, s, t}, SAMPLED),
    ("run.patience", 1, NOTHING, {}),
    ("run.keep", "best", NOTHING, {}),
    ("run.tensorboard", True, NOTHING, {}),
]
ONE_VALUE = {"evaluation.engine": "per_stage"}
"""Fields of which only one value is built, and one of those that are not."""


def fields(section: type[BaseModel] = Config, above: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_every_field_of_the_config_is_in_the_table() -> None:
    assert set(fields()) == {field for field, *_ in TABLE} | ONE_VALUE.keys()
    for field, value in ONE_VALUE.items():
        with pytest.raises(ValidationError, match="not built yet"):
            config_of({field: value})


@pytest.mark.parametrize(("field", "value", "new", "beside"), TABLE, ids=[f"{field}={value}" for field, value, *_ in TABLE])
def test_a_changed_field_gives_new_keys_to_what_it_changes_only(
    field: str, value: object, new: set[str], beside: Mapping[str, Any]
) -> None:
    assert changed(keys(beside), keys({**beside, field: value})) == new


def test_the_first_student_has_the_key_of_a_baseline_of_as_many_updates() -> None:
    first = keys({"student.updates": "auto"})["train", 0]
    noted = Noted({"student.updates": "auto"})
    noted._train("baseline", noted.inputs.seeds, None, updates=60)
    assert noted.keys["train", "baseline"] == first != noted.keys["train", 1]


def test_errors_come_from_the_snapshot_and_exams_are_the_students_own() -> None:
    noted = Noted({"evaluation.error_source": "early"})
    student = Student(path="m", sha="M0", iteration=0, early=Snapshot(path="m-early", sha="early", update=3))
    seeds, test = noted.inputs.seeds, noted.inputs.test
    assert test is not None
    stream, exam = cast(RayGraded, noted.errors().stream(student, seeds)), noted.parts.graded(student, test)
    assert (stream.weights, stream.inputs["model"], stream.rows) == (("m-early",), "early", seeds)
    assert (exam.weights, exam.inputs["model"]) == (("m",), "M0")


@pytest.mark.parametrize("start_from", ["base", "previous"])
def test_each_folds_rows_are_answered_by_the_student_that_did_not_see_them(start_from: str) -> None:
    noted = Noted(CROSS | {"student.start_from": start_from})
    student, seeds = Student(path="m", sha="M0", iteration=0), noted.inputs.seeds
    stream = cast(RayGraded, noted.errors().stream(student, seeds))
    routes = [cast(EngineRoute, voice.route) for voice in stream.solve.by_fold]
    assert [route.weights for route in routes] == [
        (f"m-{fold.number}", f"M0 without {fold.id}") for fold in folds(noted.inputs.folds)
    ]
    assert stream.weights == ("m-0", "m-1", "m-2", "m-3") and stream.inputs["model"] == "M0"
    goes_on = {noted.keys["fold", (1, number)] for number in range(4)}
    trained = training_inputs(
        noted.inputs.config.student, noted.inputs.task, "cpu", dataset=f"{seeds.id}+", updates=9, early_at=None,
        start=f"M0 without {folds(noted.inputs.folds)[2].id}" if start_from == "previous" else noted.inputs.student_sha,
        left_out=folds(noted.inputs.folds)[2].id,
    )  # fmt: skip
    assert stage_key("train", TRAIN_VERSION, trained) in goes_on, "never from a student that saw the fold"


def same(before: Keys, after: Keys, *names: str) -> list[str]:
    """Keys of these stages and replies that both have, whatever their place."""
    of = [{key for (name, _), key in found.items() if name in names} for found in (before, after)]
    assert all(of)
    return sorted(of[0] & of[1])


def test_recorded_answers_are_nobody_elses() -> None:
    """A task tried with recorded answers, then for good under the same name."""
    tried, real = keys(RECORDED), keys({})
    assert same(tried, real, R, C, E, s) == []
    assert changed(tried, real) == ANSWERS, "neither the training nor the teacher is concerned"


def test_evaluate_examines_a_model_not_a_recording() -> None:
    config = config_of(RECORDED)
    task, splits = load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=".")
    with pytest.raises(UserError, match=r"answers\.jsonl would answer in the place of my/model; add --set"):
        examine(config, Checked(task=task, splits=splits), "my/model", lambda told: None)


@pytest.mark.parametrize(
    ("file", "line", "base", "names"),
    [
        ("replies.jsonl", {"reply": "What does it cost?"}, SCRIPT, (R, C, X, t)),
        ("replies.jsonl", {"reply": "What does it cost?"}, REPLIES, (R, C, X, t)),
        ("answers.jsonl", {"input": "parcel", "answers": [" billing"]}, RECORDED, (R, C, E, s)),
    ],
)
def test_a_script_goes_by_its_content_not_by_its_path(
    file: str, line: dict[str, Any], base: dict[str, Any], names: tuple[str, ...], folder: Path
) -> None:
    before = keys(base)
    (folder / "moved").mkdir()
    (folder / "moved" / file).write_bytes((folder / file).read_bytes())
    assert keys({name: f"moved/{file}" if value == file else value for name, value in base.items()}) == before
    write(folder / file, line)
    assert changed(before, keys(base)) == set(names)


def test_an_iteration_that_came_out_otherwise_is_told_anew() -> None:
    """Curves and counters of a run that went on without its recorded answers: the same student, another round."""
    dataset = DatasetVersion(id="d", iteration=0, parent=None, parts=("p",), num_rows=1)
    student = Student(path="m", sha="M0", iteration=0)
    rounds = [Round(evaluated=12, wrong=wrong, errors={"refused": 1}) for wrong in (1, 1, 2)]
    recorded, again, real = [Iteration(index=0, dataset=dataset, student=student, round=round_, grown=None) for round_ in rounds]
    event = json.loads(json.dumps(asdict(recorded)))
    assert outcome(event) == outcome(asdict(again)) != outcome(asdict(real))


def test_the_students_of_two_iterations_are_recorded_apart() -> None:
    noted = Noted(RECORDED)
    test = noted.inputs.test
    assert test is not None
    asked = [noted.parts.graded(Student(path="m", sha="M", iteration=n), test).solve.answerer for n in (0, 1)]
    assert asked[0] != asked[1]


def test_the_same_student_on_the_same_rows_is_asked_for_other_examples_in_the_next_iteration() -> None:
    noted = Noted({})
    rounds = [
        noted.parts.augmenter([], "seeds").augment(
            noted.parts.graded(Student(path="m", sha="M", iteration=n), noted.inputs.seeds).wrong()
        )
        for n in (0, 1)
    ]
    assert rounds[0].inputs != rounds[1].inputs


def test_worked_examples_count_by_what_they_say() -> None:
    """The same ids with another text: the teacher is asked in another way."""
    noted = Noted({})
    test, shot = noted.inputs.test, Example(id="seed-1", input="How much?", output="billing")
    assert test is not None
    other = Example(id="seed-1", input="How much is it?", output="billing")
    assert noted.parts.teacher_exam(test, [shot]).inputs != noted.parts.teacher_exam(test, [other]).inputs
    weighted = replace(shot, weight=0.5)  # which only training knows
    assert noted.parts.teacher_exam(test, [shot]).inputs == noted.parts.teacher_exam(test, [weighted]).inputs


def test_who_votes_is_asked_by_the_teachers_line_or_by_an_engine_of_its_own() -> None:
    made = [object(), object(), object()]

    def of(changes: Mapping[str, Any]) -> tuple[Parts, RayAugmented]:
        askers = iter(made)
        inputs, seeds = inputs_of(config_of(changes))
        parts = Parts(inputs=inputs, files=Files("run"), progress=None, make_asker=lambda **options: next(askers))
        graded = parts.graded(Student(path="m", sha="M0", iteration=0), inputs.seeds)
        return parts, parts.augmenter(seeds, inputs.seeds.id).augment(graded.wrong())

    parts, none = of({})
    assert none.judge is None and [spec.role for spec in parts.engine_specs()] == ["student", "teacher"]
    parts, own = of(VOTES)
    assert own.judge is not None and [spec.role for spec in parts.engine_specs()] == ["student", "teacher"]
    assert (own.judge.asker, own.judge.route, own.judge.budget) == (own.augment.asker, own.augment.route, own.augment.budget)
    assert own.judge.budget_replies == own.augment.budget_replies and own.judge.replies in own.judge.budget_replies
    parts, apart = of(VOTES | {"judge": {"model": "judge", "engine": {"dtype": "auto"}}, "cluster.device": "gpu"})
    assert apart.judge is not None and apart.judge.asker is not apart.augment.asker
    assert apart.judge.budget_replies == (apart.judge.replies,) and apart.judge.replies not in apart.augment.budget_replies
    spec = parts.engine_specs()[-1]
    assert (spec.role, spec.app, spec.model, spec.sha) == ("judge", "llm2llm-keys-judge", "judge", "sha of judge")
    assert spec.engine.dtype == "bfloat16", "what auto is there"
    assert parts.config.voter.engine.dtype == "bfloat16"


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_an_engines_automatic_type_counts_as_the_type_that_it_is(role: str) -> None:
    gpu, field = {"cluster.device": "gpu"}, f"{role}.engine.dtype"
    assert keys(gpu | {field: "auto"}) == keys(gpu | {field: "bfloat16"}) != keys(gpu | {field: "float16"})


TASK = '''
"""A task of a user."""
from llm2llm_ray.tasks.classification import Classification


class Theirs(Classification):
    def student_prompt(self, text):
        return f"{text} This is about"
'''


@pytest.mark.parametrize(
    ("edit", "new"),
    [
        (lambda text: text.replace("This is about", "This one is about"), {T, R, C, E, X, s}),
        (lambda text: text.replace("    def", "    # asked in one line\n    def"), NOTHING),
    ],
)
def test_the_code_of_a_users_task_counts_and_its_comments_do_not(
    edit: Callable[[str], str], new: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    name = "their_stage_keys_task"

    def of(text: str) -> Keys:
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return keys({"task.name": f"{name}:Theirs"})

    assert changed(of(TASK), of(edit(TASK))) == new
