"""The training workers of a run, or of a study's runs: one Ray Train worker group that takes one training after another until
all are over.

Starting a group (placement, processes, imports of torch, DeepSpeed and transformers) took 20 to 27 s on 2 cores, as long as a
small training, so it is started once, beside the engines. Each training still begins from a model read anew. Ray Train restarts
a group whose worker died; it then takes the unfinished training again, from its last checkpoint (`training_engine.restore`).
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray
import ray.train
from pyarrow import fs
from ray.exceptions import RayActorError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import num_folds, num_iterations, worker_cpus
from llm2llm_ray.machine import Device
from llm2llm_ray.runtime import environment
from llm2llm_ray.runtime.training.desk import open_desk
from llm2llm_ray.runtime.training.place import free_place
from llm2llm_ray.runtime.training.worker import TrainJob, training_worker
from llm2llm_ray.storage.files import Files

FOLDER = "train"
NAME = "workers"
"""Ray Train's own folder below FOLDER: its state and checkpoints."""
CONTROLLER_FAILURES = 3
_POLL_S = 0.5


class TrainingWorkers:
    """Call `open` ahead or let the first `train` do it; `close` lets the workers go and forgets their checkpoints, which lie in
    `files`; a job names the files of its own run. `runs` like `config`'s are trained for."""

    def __init__(self, config: Config, files: Files, device: Device, *, runs: int = 1) -> None:
        self._config, self._files, self._device, self._runs = config, files, device, runs
        self._desk: Any = None
        self._fit: threading.Thread | None = None
        self._failure: BaseException | None = None

    def open(self) -> None:
        """Start the group and return at once."""
        if self._fit is None:
            free_place(self._files)
            self._desk, self._failure = open_desk(), None
            self._fit = threading.Thread(target=self._run, name="training-workers", daemon=True)
            self._fit.start()

    def train(self, job: TrainJob) -> dict[str, Any]:
        """The metrics of `job`, or {"user_error": why}. Raises what Ray Train raises when it gives the group up."""
        self.open()
        assert self._fit is not None
        answer = self._desk.train.remote(job)
        while not ray.wait([answer], timeout=_POLL_S)[0]:
            if not self._fit.is_alive():
                failure, self._fit = self._failure, None
                raise failure or RuntimeError("the training workers went home before their training was over")
        return dict(ray.get(answer))

    def close(self) -> None:
        """Nobody waits for a training any more: how the group ends changes nothing."""
        if self._fit is not None:
            with contextlib.suppress(RayActorError):  # the desk went before
                ray.get(self._desk.close.remote())
            self._fit.join()
            self._fit = None
        filesystem, folder = fs.FileSystem.from_uri(self._files.absolute(f"{FOLDER}/{NAME}"))
        if filesystem.get_file_info(folder).type == fs.FileType.Directory:
            filesystem.delete_dir(folder)

    def _run(self) -> None:
        environment.wait_for_workers(self._config.cluster.worker_start_timeout_s)
        trainer = TorchTrainer(
            training_worker,
            train_loop_config={
                "desk": self._desk,
                "files": self._files,
                "device": self._device,
                "threads": self._config.cluster.threads,
            },
            torch_config=TorchConfig(backend="nccl" if self._device == "gpu" else "gloo"),
            scaling_config=self._scaling(),
            run_config=self._run_config(),
        )
        try:
            trainer.fit()
        except BaseException as failure:
            self._failure = failure  # for the thread that waits for the training
            raise

    def _scaling(self) -> ScalingConfig:
        cluster = self._config.cluster
        on_gpu = self._device == "gpu"
        resources = {"CPU": worker_cpus(cluster, on_gpu=on_gpu)}
        if on_gpu:
            resources["GPU"] = cluster.gpus_per_worker
        return ScalingConfig(
            num_workers=self._config.student.workers,
            use_gpu=on_gpu,
            resources_per_worker=resources,
            label_selector=cluster.labels.get("train"),
        )

    def _run_config(self) -> RunConfig:
        student, threads = self._config.student, self._config.cluster.threads
        env = environment.training_worker(self._files.root, on_cpu=self._device == "cpu", threads=threads)
        # A lowered micro-batch restarts the group once for each halving, which shall not use up what crashes may.
        halvings = student.micro_batch_size.bit_length() - 1
        trainings = self._runs * (num_iterations(self._config) * (1 + num_folds(self._config)) + 1)
        return RunConfig(
            name=NAME,
            storage_path=self._files.absolute(FOLDER),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(
                max_failures=trainings * (student.max_failures + halvings), controller_failure_limit=CONTROLLER_FAILURES
            ),
            worker_runtime_env={"env_vars": env},
        )
