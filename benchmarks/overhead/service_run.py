"""A run whose engines only take time: its own Ray, run folder, made-up seeds and inputs, for overlap.py and scale.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray import serve

from benchmarks.measuring.environment import REPOSITORY
from benchmarks.overhead.service_time import Agreement, ServiceTime, made_up_rows, serve_engine
from llm2llm_ray.config import Config
from llm2llm_ray.runtime.driver.driver import quiet_data_context
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.models.folders import model_sha, resolve_model
from llm2llm_ray.runtime.serving.engines import app_name
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Student


def start_ray(folder: Path, logical_cpus: int) -> None:
    """A Ray of our own, whose processes find our modules. `logical_cpus` only says how many actors may stand."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=logical_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
        runtime_env={"env_vars": {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}},
    )
    quiet_data_context()
    serve.start(proxy_location="Disabled")


@dataclass(frozen=True, kw_only=True)
class ServiceRun:
    """One run folder with made-up seeds, and the inputs of its parts: as `launch.prepare` makes them, without a row list.

    `sections` are the config's, over the few that must stand. Example: ServiceRun(folder=p, name="x", model="pypi:…", rows=512)
    """

    folder: Path
    name: str
    model: str
    rows: int
    sections: Mapping[str, Mapping[str, Any]]

    @cached_property
    def config(self) -> Config:
        given: dict[str, dict[str, Any]] = {
            "task": {"name": "benchmarks.overhead.service_time:Agreement", "seed": "made-up.jsonl"},
            "student": {"model": self.model},
            "teacher": {"kind": "serve", "model": self.model, "style": "completion", "max_tokens": 256},
            "evaluation": {"max_tokens": 256, "test": False},
            "run": {"name": self.name, "folder": str(self.folder), "iterations": 2},
        }
        names = given.keys() | self.sections.keys()
        merged = {name: given.get(name, {}) | dict(self.sections.get(name, {})) for name in names}
        return Config.model_validate({"recipe": "paper"} | merged)

    @cached_property
    def files(self) -> Files:
        return Files(self.config.run_path)

    @cached_property
    def seeds(self) -> DatasetVersion:
        return VersionStore(self.files).commit(made_up_rows(self.rows), parent=None, iteration=0, about={"what": "seed"})

    @cached_property
    def inputs(self) -> Inputs:
        path = resolve_model(self.model)
        sha = model_sha(path)
        return Inputs(
            config=self.config,
            task=Agreement(),
            run_root=self.files.root,
            student_model=path,
            student_sha=sha,
            teacher_model=path,
            teacher_sha=sha,
            device="cpu",
            seeds=self.seeds,
            dev=None,
            test=None,
        )

    def student(self, sha: str, iteration: int = 0) -> Student:
        """A student that no training made: the same tokenizer, and replies of its own by its `sha`."""
        return Student(path=self.inputs.student_model, sha=sha, iteration=iteration, metrics={"updates": 0})

    def serve(self, student: ServiceTime, teacher: ServiceTime | None = None) -> None:
        """Both engines, at the replicas that the config names."""
        config = self.config
        serve_engine(app_name(self.name, "student"), "student", config.student.engine.replicas, student)
        if teacher is not None:
            serve_engine(app_name(self.name, "teacher"), "teacher", config.teacher.engine.replicas, teacher)
