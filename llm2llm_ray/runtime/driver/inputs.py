"""What a run is made from, checked and resolved by the entrypoint before any engine starts."""

from __future__ import annotations

from dataclasses import dataclass

from llm2llm_ray.config import Config
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import DatasetVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the entrypoint has checked and resolved before any engine starts; crosses to the driver actor."""

    config: Config
    task: Task
    run_root: str
    student_model: str
    student_sha: str
    teacher_model: str
    teacher_sha: str
    """For a service: a fingerprint of its name, address and changed request fields, since its weights cannot be known."""
    device: str
    seeds: DatasetVersion
    """D^0, committed."""
    dev: DatasetVersion | None
    test: DatasetVersion | None
