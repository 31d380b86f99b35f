"""The Trainer port on Ray Train: one dataset version and one start model in, one student folder out.

Invariants: a training is named by the key of what changes its result, so a finished one is never repeated, a broken one goes
on from its last checkpoint, and no two different ones share a name (one would resume the other's weights). Who trains is
`workers.py`'s business, and what happens inside one is `worker.py`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from llm2llm_ray.accuracy import KNOWN
from llm2llm_ray.config import Config, StudentConfig
from llm2llm_ray.config.schedule import fixed_updates, total_updates
from llm2llm_ray.errors import UserError
from llm2llm_ray.machine import Device, free_gib
from llm2llm_ray.planning.model_size import parameters
from llm2llm_ray.planning.plan import training_gib
from llm2llm_ray.rounds.folds import Fold, root_of
from llm2llm_ray.runtime.connection import device_of
from llm2llm_ray.runtime.models.folders import model_sha, resolve_model
from llm2llm_ray.runtime.models.node_copy import fetched
from llm2llm_ray.runtime.training.deepspeed_config import precision_of, zero_stage_of
from llm2llm_ray.runtime.training.student_folder import early_folder, exported
from llm2llm_ray.runtime.training.worker import TrainJob
from llm2llm_ray.runtime.training.workers import TrainingWorkers
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords, stage_key
from llm2llm_ray.storage.training_log import TrainingLog, fold_label, log_stem
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.task import Task, identity
from llm2llm_ray.types import DatasetVersion, Snapshot, Student

STAGE, FOLD_STAGE = "train", "fold"
"""`fold`: of a student that is trained without one fold (`evaluation.error_source: cross_fit`)."""
TRAIN_VERSION = 3
"""Raised by hand when the code comes to train other weights from the same inputs."""
WITHOUT_EFFECT = {"engine", "model", "micro_batch_size", "max_failures", "checkpoint_every_updates", "start_from"}
"""Settings of the student that are no part of the key. Micro-batches change rounding only; `model` and `start_from` are there
as the sha of the weights started from. Workers, ZeRO stage and precision stay in: they change the arithmetic."""
SECONDS_BETWEEN_POLLS = 0.5


def training_inputs(
    student: StudentConfig,
    task: Task,
    device: Device,
    *,
    dataset: str,
    start: str,
    updates: int | None,
    early_at: float | None,
    left_out: str | None = None,
) -> dict[str, Any]:
    """What a training depends on: the inputs of its key. `updates` is what `student.updates` comes to (`fixed_updates`),
    `left_out` the id of the fold that is not trained on. A training that leaves a snapshot has another key, and the same weights
    in the end."""
    settings = student.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    settings |= {"precision": precision_of(student, device), "zero_stage": zero_stage_of(student, device)}
    if student.method == "full":
        del settings["lora"]
    settings["updates"] = updates
    if updates:
        del settings["epochs"]
    early = {} if early_at is None else {"early_at": early_at}
    fold = {} if left_out is None else {"left_out": left_out}
    return {"dataset": dataset, "start": start, "student": settings, "task": dict(identity(task)), **early, **fold}


class RayTrainer:
    """`seed_rows`: of D^0. `progress` is called from a thread of its own with the newest line of the training's log, while
    `train` waits. `workers`: those of a session of several runs, which are not this one's to close."""

    def __init__(
        self,
        config: Config,
        task: Task,
        run_folder: str,
        base_model: str,
        seed_rows: int,
        stages: StageRecords,
        progress: Callable[[Mapping[str, Any]], None],
        workers: TrainingWorkers | None = None,
    ) -> None:
        self._config = config
        self._task = task
        self._files = Files(run_folder)
        self._base_model = base_model
        self._seed_rows = seed_rows
        self._stages = stages
        self._events = Events(self._files)
        self._progress = progress
        self._device: Device = device_of(config.cluster)
        self._own = workers is None
        self._workers = workers or TrainingWorkers(config, self._files, self._device)

    def open(self) -> None:
        """Start the workers ahead of the first training; without it that one does."""
        self._workers.open()

    def close(self) -> None:
        """No more trainings in this run."""
        if self._own:
            self._workers.close()

    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        """Train on all rows of `dataset`, from the base model or from `start`; see protocols.Trainer."""
        updates, early_at = self._updates(self._seed_rows, dataset.num_rows), self._config.evaluation.snapshot_at
        return self._student_of(dataset, start, label=f"{dataset.iteration:03d}", updates=updates, early_at=early_at)

    def train_without(self, fold: Fold, dataset: DatasetVersion, start: Student | None) -> Student:
        """As `train`, and for as many updates by the same rule, on the rows that do not come of the fold's seeds."""
        rows = sum(root_of(row) not in fold.seeds for row in VersionStore(self._files).rows(dataset))
        updates = self._updates(self._seed_rows - len(fold.seeds), rows)
        label = fold_label(dataset.iteration, fold.number)
        return self._student_of(dataset, start, label=label, updates=updates, early_at=None, fold=fold)

    def train_baseline(self, dataset: DatasetVersion, updates: int) -> Student:
        """The matched baseline: `dataset` alone (the seeds), from the base model, for as many updates as another student took."""
        return self._student_of(dataset, None, label="baseline", updates=updates, early_at=None)

    def _updates(self, seeds: int, rows: int) -> int | None:
        settings = self._config.student
        return fixed_updates(settings.updates, seeds=seeds, rows=rows, global_batch_size=settings.global_batch_size)

    def _student_of(
        self,
        dataset: DatasetVersion,
        start: Student | None,
        *,
        label: str,
        updates: int | None,
        early_at: float | None,
        fold: Fold | None = None,
    ) -> Student:
        began = time.time()
        start_name = start.path if start else self._base_model
        start_sha = start.sha if start else model_sha(resolve_model(self._base_model))
        inputs = training_inputs(
            self._config.student, self._task, self._device, dataset=dataset.id, start=start_sha, updates=updates,
            early_at=early_at, left_out=fold.id if fold else None,
        )  # fmt: skip
        key = stage_key(STAGE, TRAIN_VERSION, inputs)
        name = log_stem(label, key).removeprefix(f"{STAGE}/")
        stage = FOLD_STAGE if fold else STAGE
        record = self._stages.find(stage, key)
        if record is None:
            told = {"stage": label if label == "baseline" else stage, "iteration": dataset.iteration, "key": key}
            told |= {"fold": fold.number} if fold else {}
            self._events.add("stage_started", **told)
            job = self._job(dataset, start_name, start_sha, name, updates, early_at, fold)
            metrics = exported(self._files, job.export)
            if metrics is None:
                self._check_space(dataset.num_rows, updates, 1 if early_at is None else 2)
                metrics = self._job_done(job, name)
            path = self._files.absolute(job.export)
            sha = model_sha(fetched(path, key))
            result = {"path": job.export, "sha": sha, "start_sha": start_sha, "metrics": metrics, **self._early(job, key)}
            iteration = None if label == "baseline" else dataset.iteration
            record = self._stages.record(
                stage, key, inputs=inputs, result=result, started=began, ended=time.time(), iteration=iteration
            )
            self._events.add("stage_finished", **told)
            if (share := metrics.get("token_accuracy", 1.0)) < KNOWN:  # none: exported by an earlier version
                self._events.add("rows_not_known", **told, token_accuracy=share, updates=metrics["updates"])
        result = record["result"]
        return Student(
            path=self._files.absolute(result["path"]),
            sha=result["sha"],
            iteration=dataset.iteration,
            metrics={**result["metrics"], "start_sha": result["start_sha"]},
            early=Snapshot(**early | {"path": self._files.absolute(early["path"])}) if (early := result.get("early")) else None,
        )

    def _early(self, job: TrainJob, key: str) -> dict[str, Any]:
        """What the record says of the snapshot that the training left; nothing where it was to leave none."""
        if job.early_at is None:
            return {}
        folder = early_folder(job.export)
        told = exported(self._files, folder)
        assert told is not None, f"{folder}: a finished training has left its snapshot"
        sha = model_sha(fetched(self._files.absolute(folder), f"{key}-early"))
        return {"early": {"path": folder, "sha": sha, "update": told["update"]}}

    def _job(
        self,
        dataset: DatasetVersion,
        start: str,
        start_sha: str,
        name: str,
        updates: int | None,
        early_at: float | None,
        fold: Fold | None,
    ) -> TrainJob:
        return TrainJob(
            student=self._config.student,
            task=self._task,
            device=self._device,
            name=name,
            files=self._files,
            start=start,
            start_sha=start_sha,
            parts=dataset.parts,
            left_out=fold.seeds if fold else frozenset(),
            updates=updates,
            early_at=early_at,
            export=f"students/{name}",
            log=f"{STAGE}/{name}",
            submitted=time.time(),
        )

    def _check_space(self, rows: int, updates: int | None, exports: int) -> None:
        """A training that finds the disk full when it is over is lost. `exports`: of the student, the final one among them."""
        count = parameters(self._base_model)
        if self._files.local_root is None or count is None:
            return
        student = self._config.student
        most = total_updates(rows, student.global_batch_size, student.epochs, updates)  # too long rows make them fewer
        each, checkpoints = training_gib(student, self._device, count, most)
        need = exports * each + checkpoints
        if (free := free_gib(self._files.root)) < need:
            raise UserError(
                f"run.folder: {free:.1f} GiB are free in {self._files.root}, and a training of student.model="
                f"{student.model} needs {need:.1f} GiB there for the student and its checkpoints; make room (`llm2llm gc` "
                "removes students that no report needs) and run the same command again, or choose another run.folder"
            )

    def _job_done(self, job: TrainJob, name: str) -> dict[str, Any]:
        with self._watched(TrainingLog(self._files, job.log)):
            metrics = self._workers.train(replace(job, submitted=time.time()))
        if "user_error" in metrics:
            raise UserError(f"training {name}: {metrics['user_error']}")
        return metrics

    @contextmanager
    def _watched(self, log: TrainingLog) -> Iterator[None]:
        """Hand new lines of the log to `progress` while the body runs, and the rest at its end."""
        over = threading.Event()
        seen = len(list(log.read()))

        def hand_on() -> None:
            nonlocal seen
            lines = list(log.read())
            for line in lines[seen:]:
                self._progress(line)
            seen = len(lines)

        def watch() -> None:
            while not over.wait(SECONDS_BETWEEN_POLLS):
                hand_on()

        thread = threading.Thread(target=watch, name="training-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            hand_on()
