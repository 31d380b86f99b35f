"""How many requests a run has open at once, to the student and to whoever else is asked, where the config does not say."""

from __future__ import annotations

from llm2llm_ray.config import Config, EngineConfig, TeacherConfig
from llm2llm_ray.machine import Device


def student_in_flight(config: Config, device: str | Device, rows: int) -> int:
    """On CPU an eighth of the rows, so that a small set still comes in waves and the teacher starts after the first."""
    engine = config.student.engine
    fitting = enough(device, engine) if device == "gpu" else min(32 * engine.replicas, max(8, rows // 8))
    return config.evaluation.in_flight or fitting


def asked_in_flight(asked: TeacherConfig, device: str | Device) -> int:
    """To a teacher or judge."""
    return asked.in_flight or (enough(device, asked.engine) if asked.served else 64)


def enough(device: str | Device, engine: EngineConfig) -> int:
    """Requests that keep all replicas busy."""
    return max(256 if device == "gpu" else 64, engine.replicas * engine.max_num_seqs)
