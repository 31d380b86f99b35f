"""`cluster`: where things run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm2llm_ray.config.section import Section

Pool = Literal["train", "student", "teacher"]


class ClusterConfig(Section):
    address: str | None = None
    """Ray address; None: RAY_ADDRESS or a running cluster's job, else an own local Ray."""
    profile: Literal["laptop", "single-gpu", "node-8gpu", "pools"] | None = None
    """Defaults for where things run (profiles.py); what the file or --set says beside it wins."""
    labels: dict[Pool, dict[str, str]] = Field(default_factory=dict)
    """Node labels that training workers, student engines and teacher engines (a judge's too) ask for; none: any node."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """Logical CPUs that a training worker reserves for the whole run; None: 1 beside a GPU, 0.1 on CPU (as the engines: whoever
    has work uses all cores)."""
    threads: int | None = Field(default=None, ge=1)
    """OpenMP threads of each training worker and engine on CPU; None: all cores of the node, which training workers divide."""
    gpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_engine: float = Field(default=1, gt=0)
    share_gpu: bool = False
    """One GPU for everything: engines sleep while the student trains. Not run (no GPU was at hand)."""
    worker_start_timeout_s: int = Field(default=1200, ge=1)
