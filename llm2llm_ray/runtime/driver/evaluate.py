"""`llm2llm evaluate`: one model on the test rows of a run's config, by an engine that is started for it and deleted after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ray

from llm2llm_ray.accuracy import Grades
from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import Checked
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.connection import connect, device_of
from llm2llm_ray.runtime.driver.driver import quiet_data_context
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.launch import prepare
from llm2llm_ray.runtime.driver.leftovers import sweep
from llm2llm_ray.runtime.driver.memory import MemoryWatch
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.driver.wrapped_errors import unwrapped
from llm2llm_ray.runtime.models.folders import model_sha, resolve_model
from llm2llm_ray.runtime.serving.engines import start_engines, stop_engines
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.lease import run_lease
from llm2llm_ray.types import Student


def examine(config: Config, checked: Checked, model: str, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Accuracy of `model` on the test rows; answers already stored in the run are not asked again."""
    if not checked.splits.test:
        raise UserError("there are no test rows to examine a model on: task.data has no test file; name one in task.test")
    if config.evaluation.recorded_answers is not None:
        raise UserError(
            f"evaluation.recorded_answers: {config.evaluation.recorded_answers} would answer in the place of {model}; add "
            "--set evaluation.recorded_answers=null to examine the model"
        )
    files = Files(config.run_path)
    with MemoryWatch(files).explained(), unwrapped(), run_lease(files.root):
        prepared = prepare(config, checked, files, show)
        folder = resolve_model(model)
        student = Student(path=folder, sha=model_sha(folder), iteration=0)
        show({"stage": "starting Ray"})
        connect(config.cluster)
        try:
            sweep(config.run.name, files.root)
            inputs = Inputs(
                **(prepared | {"student_model": folder, "student_sha": student.sha}), device=device_of(config.cluster)
            )
            quiet_data_context()
            parts = Parts(inputs=inputs, files=files, progress=None)
            specs = [spec for spec in parts.engine_specs() if spec.role == "student"]
            show({"stage": "engine"})
            start_engines(specs, config.cluster, device=inputs.device, run_folder=files.root)
            versions = RecordedVersions(
                files, inputs.task, lambda: (), lambda: (), (), parts.settings(),
                max_unanswered=config.evaluation.max_unanswered,
            )  # fmt: skip
            assert inputs.test is not None
            show({"stage": "exam"})
            result = versions.drained(parts.graded(student, inputs.test), "exam")["result"]
            told = {name: result[name] for name in ("truncated", "errors")} | {"rows": result["folder"], "model": model}
            return asdict(Grades.of(result).accuracy) | told
        finally:
            with contextlib.suppress(RuntimeError):  # Serve was never started
                stop_engines(config.run.name)
            ray.shutdown()
