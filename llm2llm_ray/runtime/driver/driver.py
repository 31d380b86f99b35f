"""The driver actor: owns the loop and the dataset versions of one run; all its state is in storage.

Named, owned by the entrypoint (so the job's end is its end), restartable: a restarted driver runs the same loop again, whose
finished stages are recorded. It holds handles and counts, never rows of the stream.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import ray
from ray.data import DataContext

from llm2llm_ray.algorithm import llm2llm
from llm2llm_ray.config.schedule import num_iterations
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.folds import Fold
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.error_sources import error_source
from llm2llm_ray.runtime.driver.evidence import collect
from llm2llm_ray.runtime.driver.exams import Exams
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.driver.recorded_replies import came_of
from llm2llm_ray.runtime.driver.resident import Resident
from llm2llm_ray.runtime.driver.tensorboard import Board
from llm2llm_ray.runtime.driver.worth_asking import WorthAsking
from llm2llm_ray.runtime.priority import stands
from llm2llm_ray.runtime.series import RunMetrics
from llm2llm_ray.runtime.serving.engines import EngineSpec, import_engines, rest_engines
from llm2llm_ray.runtime.serving.run_engines import RunEngines
from llm2llm_ray.runtime.training.trainer import RayTrainer
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example, Iteration, Student


class Driver:
    """Made an actor where it is launched. Methods run on threads of their own: `status` answers while `run` works."""

    def __init__(self, inputs: Inputs, resident: Resident | None = None) -> None:
        """`resident`: what a session of several runs keeps up; None: the run has its own engines and workers."""
        self._inputs, self._resident = inputs, resident
        self._files = Files(inputs.run_root)
        self._store = VersionStore(self._files)
        self._events = Events(self._files)
        self._metrics = RunMetrics(inputs.config.run.name)
        self._board = Board(f"{self._files.root}/tensorboard" if inputs.config.run.tensorboard else None)
        self._stopping = threading.Event()
        self._status: dict[str, Any] = {"stage": "starting", "iteration": 0, "since": time.time(), "rows": {}}
        self._engines: RunEngines | None = None
        self._trainer: RayTrainer | None = None
        self._events.add("driver_started", restarted=ray.get_runtime_context().was_current_actor_reconstructed)

    def run(self) -> dict[str, Any]:
        """Run the loop to its end and the exams after it; returns the report. Running it again repeats nothing.

        Nothing after the last result may cost the report: what is still to be put away is left to `put_away`.
        """
        quiet_data_context()
        config = self._inputs.config
        asked = filter(None, (config.teacher, config.judge_apart))
        if config.evaluation.recorded_answers is None or any(model.kind == "serve" for model in asked):
            import_engines()  # with the cores to itself: what starts from here on waits for it
        resident, here = self._resident, ray.get_runtime_context().current_actor
        askers = {} if resident is None else resident.askers
        parts = Parts(inputs=self._inputs, files=self._files, progress=here, askers=askers)
        self._trainer = trainer = RayTrainer(
            config, self._inputs.task, self._inputs.run_root, self._inputs.student_model, self._inputs.seeds.num_rows,
            self._stages(), self._training_line, None if resident is None else resident.workers,
        )  # fmt: skip
        if not StageRecords(self._files).all():  # a run that goes on may have nothing left to train
            trainer.open()  # its processes start while the engines do
        self._stage("engines", 0)
        self._engines = engines = self._started(parts.engine_specs())
        parts.ready = engines.ready
        seeds = self._inputs.seeds
        versions = self._versions(parts, seeds)
        worth = WorthAsking(parts, versions, self._events, self._store.rows(seeds))
        iterations = list(self._iterations(parts, seeds, trainer, versions, worth))
        kept = worth.kept([iteration.student for iteration in iterations])
        exams = self._exams(parts, seeds, trainer, versions, iterations[: kept + 1])
        report = {
            "run": config.run.name,
            "engine_seconds": engines.seconds,
            "iterations": [self._told(i) for i in iterations],
            "kept": kept,
            "asking": worth.told(),
            "exams": exams,
        }
        if self._inputs.replies_told:
            report["recorded_replies"] = came_of(self._inputs.replies_told, config.teacher, iterations, self._files)
        self._board.close()
        self._stage("done", iterations[-1].index)
        return report

    def put_away(self) -> None:
        """After `run`: let the training workers go, and collect the evidence of what ran."""
        with ThreadPoolExecutor(1) as beside:
            closed = beside.submit(self._trainer.close) if self._trainer else None  # while Ray's metrics count the last answer
            collect(self._files, self._engines.specs if self._engines else [])
            if closed:
                closed.result()

    def _started(self, specs: Sequence[EngineSpec]) -> RunEngines:
        if self._resident is not None:
            self._resident.engines.also(specs)
            return self._resident.engines
        inputs = self._inputs
        self._engines = engines = RunEngines(
            specs, inputs.config.cluster, device=inputs.device, run_folder=inputs.run_root, on_up=self._up
        )
        engines.start()
        return engines

    def _stages(self) -> StageRecords:
        return StageRecords(self._files) if self._resident is None else self._resident.stages(self._files)

    def _up(self, seconds: float, replicas: list[dict[str, Any]]) -> None:
        assert self._engines is not None
        stands()
        specs = self._engines.specs
        self._events.add("engines_up", apps=[spec.app for spec in specs], seconds=round(seconds, 1), replicas=replicas)
        for spec in specs:
            self._metrics.replicas(spec.role, spec.engine.replicas)

    def _iterations(
        self, parts: Parts, seeds: DatasetVersion, trainer: RayTrainer, versions: RecordedVersions, worth: WorthAsking
    ) -> Iterator[Iteration]:
        config, announced = self._inputs.config, _Announced(trainer, self._before_training, self._inputs.config.evaluation.folds)
        loop = llm2llm(
            trainer=announced,
            errors=error_source(parts, seeds, announced.train_without),
            augmenter=parts.augmenter(self._store.rows(seeds), seeds.id),
            versions=versions,
            iterations=num_iterations(config),
            continue_training=config.student.start_from == "previous",
            worth_asking=worth,
        )
        # A run that goes on tells its finished iterations again; counters and curves have them already.
        told = {outcome(event) for event in self._events.read() if event["event"] == "iteration"}
        for iteration in loop:
            new = outcome(asdict(iteration)) not in told
            self._events.add("iteration", **self._told(iteration))
            self._metrics.finished(iteration, new=new)
            if new:
                self._board.iteration(iteration)
            yield iteration

    def _exams(
        self,
        parts: Parts,
        seeds: DatasetVersion,
        trainer: RayTrainer,
        versions: RecordedVersions,
        iterations: Sequence[Iteration],
    ) -> dict[str, Any] | None:
        if not (self._inputs.config.evaluation.test and self._inputs.test):
            return None
        exams = Exams(parts, versions, trainer, self._before_training)
        found = exams.hold(iterations, seeds, self._store.rows(seeds))
        self._metrics.examined(found["accuracy"])
        self._board.exams(found["accuracy"], iterations[-1].index)
        return found

    def _told(self, iteration: Iteration) -> dict[str, Any]:
        told = asdict(iteration)
        told["seconds"] = {
            record["name"]: record["ended"] - record["started"]
            for record in StageRecords(self._files).all()
            if record["iteration"] == iteration.index and record["name"] in ("train", "round", "commit")
        }
        return told

    def _versions(self, parts: Parts, seeds: DatasetVersion) -> RecordedVersions:
        inputs = self._inputs

        def held_out() -> Iterator[Example]:
            for name, version in (("dev", inputs.dev), ("test", inputs.test)):
                if version is not None:
                    yield from VersionStore(self._files, f"inputs/{name}").rows(version)

        return RecordedVersions(
            self._files,
            inputs.task,
            lambda: self._store.rows(seeds),
            held_out,
            [version.id for version in (inputs.dev, inputs.test) if version],
            parts.settings(),
            self._stage,
            inputs.config.evaluation.max_unanswered,
            inputs.config.gates.caps,
            self._stages(),
        )

    def _stage(self, stage: str, iteration: int) -> None:
        self._status = {"stage": stage, "iteration": iteration, "since": time.time(), "rows": {}}
        self._metrics.stage(stage, iteration)

    def _before_training(self, stage: str, iteration: int) -> None:
        self._stage(stage, iteration)
        if self._inputs.config.cluster.share_gpu and self._inputs.device == "gpu":
            assert self._engines is not None
            rest_engines(self._engines.specs)

    def _training_line(self, line: Any) -> None:
        if "loss" in line:  # a line per update; the log has others
            self._status["training"] = dict(line)
            self._board.update(f"{self._status['stage']}-{self._status['iteration']}", line)

    def expect(self, stream: str, rows: int) -> None:
        """Told by a stream that it begins."""
        self._status |= {"stream": stream, "total": rows, "rows": {}}

    def advance(self, stream: str, role: str, rows: int) -> bool:
        """Told by an `Asker` how many rows a role has done; answers whether the run is being stopped."""
        if self._status.get("stream") == stream:
            self._status["rows"][role] = rows
        return self._stopping.is_set()

    def status(self) -> dict[str, Any]:
        return dict(self._status)

    def scale_teacher(self, replicas: int) -> dict[str, Any]:
        """Change the number of teacher replicas while the run goes on; with autoscaling, its lower bound."""
        if not self._inputs.config.teacher.served:
            raise UserError("this run serves no teacher (teacher.kind is not serve or recorded): there is nothing to scale")
        if self._engines is None:
            raise UserError("the engines of this run are not up yet; try again in a moment")
        before, now = self._engines.scale("teacher", replicas)
        self._metrics.replicas("teacher", replicas)
        self._events.add("teacher_scaled", before=before, replicas=replicas, now=now)
        return {"before": before, "replicas": replicas}

    def stop(self) -> bool:
        """Ask the streams to send nothing new; what is in flight is answered and stored. Returns whether a stream flows now.

        Only a stream is worth waiting for: a training goes on from its last checkpoint, a commit is repeated in a moment.
        """
        self._stopping.set()
        stage = str(self._status["stage"])
        self._events.add("stopping", stage=stage)
        return stage.startswith(("round", "exam"))


def outcome(told: Mapping[str, Any]) -> str:
    """What an iteration came to, the same for the record and for the event that told of it."""
    return json.dumps([told["index"], told["dataset"]["id"], told["student"]["sha"], told["round"]], sort_keys=True)


class _Announced:
    """The trainer, saying when it begins."""

    def __init__(self, trainer: RayTrainer, before: Callable[[str, int], None], folds: int) -> None:
        self._trainer, self._before, self._folds = trainer, before, folds

    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        self._before("train", dataset.iteration)
        return self._trainer.train(dataset, start)

    def train_without(self, fold: Fold, dataset: DatasetVersion, start: Student | None) -> Student:
        self._before(f"fold {fold.number + 1} of {self._folds}", dataset.iteration)
        return self._trainer.train_without(fold, dataset, start)


def quiet_data_context() -> None:
    """Ray Data's bars would fight with ours, and its limits are set for batch jobs that nobody watches."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True  # else a `UserError` of an asker leaves its process as Ray Data's words about it
    context.issue_detectors_config.detectors = []
    # The second version lists the files in a task of its own, behind a new worker process: 19 s here, for files that we name.
    context.use_datasource_v2 = False
