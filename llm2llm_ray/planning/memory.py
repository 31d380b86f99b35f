"""The memory that a run needs on this machine, counted before it starts: a lower bound, as activations come on top.

Weights, gradients, Adam's moments and caches by arithmetic; what libraries take in each process as it was measured.
"""

from __future__ import annotations

import os

from llm2llm_ray.config import Config, EngineConfig
from llm2llm_ray.machine import Machine
from llm2llm_ray.planning.model_size import parameters
from llm2llm_ray.planning.plan import device_here
from llm2llm_ray.programs import largest_programs

_TRAINING_BYTES = 16
"""Per parameter in float32: weights, gradients and Adam's two moments, over all workers together."""
_ENGINE_BYTES = {True: 2, False: 4}
_WORKER_GIB, _REPLICA_GIB, _REPLIES_GIB, _AROUND_GIB = 0.4, 1.0, 0.2, 2.8
"""Without their models, measured on a run with a tiny one: a training worker; an engine and its replica; a replica of recorded
replies; entrypoint, driver, askers, what Ray Train, Data and Serve run beside them, Ray's own."""


def least_memory(config: Config, *, bf16: bool, exam_only: bool = False) -> float | None:
    """GiB that the run needs at the least, all on this machine on CPU; None for models of unknown size.

    `exam_only`: for `llm2llm evaluate`, which needs the student's engine and nothing else.
    """
    student, found = parameters(config.student.model), _AROUND_GIB
    if student is None:
        return None
    if exam_only:
        return found + _engine(student, config.student.engine, bf16)
    found += config.student.workers * _WORKER_GIB
    if config.student.method == "full":
        found += student * _TRAINING_BYTES / 2**30
    if config.evaluation.recorded_answers is None:
        found += _engine(student, config.student.engine, bf16)
    for asked in filter(None, (config.teacher, config.judge_apart)):
        if asked.kind == "serve":
            count = parameters(asked.model)
            if count is None:
                return None
            found += _engine(count, asked.engine, bf16)
    if config.teacher.kind == "recorded":
        found += config.teacher.engine.replicas * _REPLIES_GIB
    return found


def _engine(count: int, engine: EngineConfig, bf16: bool) -> float:
    return engine.replicas * (count * _ENGINE_BYTES[bf16] / 2**30 + engine.kv_cache_gib + _REPLICA_GIB)


def memory_warning(config: Config, machine: Machine, *, exam_only: bool = False) -> str | None:
    """What to say before a start here on CPU when less is free than it needs: how much, and who else holds memory."""
    if device_here(config, machine) != "cpu" or config.cluster.address or os.environ.get("RAY_ADDRESS"):
        return None
    need = least_memory(config, bf16=machine.bf16, exam_only=exam_only)
    if need is None or need <= machine.available_gib:
        return None
    return (
        f"this run needs {need:.1f} GiB of memory at the least, and {machine.available_gib:.1f} of {machine.memory_gib:.1f} GiB "
        f"are free; the largest other programs: {holders()}"
    )


def holders() -> str:
    """Example: "firefox 6.2 GiB (pid 812 and 31 more), python train.py 3.0 GiB (pid 4121)"."""
    _, others = largest_programs()
    return ", ".join(map(str, others)) or "none that this user may see"
