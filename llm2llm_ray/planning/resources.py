"""What a run reserves in Ray: engines, training workers, streams. From the config alone."""

from __future__ import annotations

from dataclasses import dataclass

from llm2llm_ray.config import Config, EngineConfig, Pool
from llm2llm_ray.config.schedule import worker_cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something that runs and what it reserves in Ray. Logical CPUs are shares, not threads."""

    what: str
    count: int
    cpus: float
    gpus: float
    """Of each."""
    where: str


def resources(config: Config, device: str | None) -> list[Resource]:
    """What the run reserves in Ray, as runtime.serving and runtime.training ask for it."""
    cluster, found = config.cluster, []
    on_gpu = device == "gpu"
    engines: list[tuple[str, EngineConfig, bool]] = [
        ("student", config.student.engine, config.evaluation.recorded_answers is None),
        ("teacher", config.teacher.engine, config.teacher.kind == "serve"),
    ]
    if config.judge_apart:
        engines.append(("judge", config.judge_apart.engine, config.judge_apart.kind == "serve"))
    if config.teacher.kind == "recorded":
        replicas = config.teacher.engine.replicas
        what, where = "recorded teacher (Serve replica without a model)", _where(config, "teacher")
        found.append(Resource(what=what, count=replicas, cpus=0.1, gpus=0, where=where))
    for role, engine, ours in engines:
        if ours:
            found.append(
                Resource(
                    what=f"{role} engine (vLLM replica)",
                    count=engine.replicas,
                    cpus=0.1 + engine.tensor_parallel * (1 if on_gpu else 0.1),
                    gpus=engine.tensor_parallel * cluster.gpus_per_engine if on_gpu else 0,
                    where=_where(config, "student" if role == "student" else "teacher"),
                )
            )
    found.append(
        Resource(
            what="training worker", count=config.student.workers, cpus=worker_cpus(cluster, on_gpu=on_gpu),
            gpus=cluster.gpus_per_worker if on_gpu else 0, where=_where(config, "train"),
        )
    )  # fmt: skip
    operators = 5 if config.gates.relabel.votes else 4
    found.append(Resource(what="stream (read, ask, write)", count=operators, cpus=0.1, gpus=0, where="any node"))
    return found


def _where(config: Config, pool: Pool) -> str:
    labels = config.cluster.labels.get(pool, {})
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "any node"
