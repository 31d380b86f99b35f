"""Where the single-process loops of whole_loop.py compute and in which precision: that of our run's training, in answers too.

Our engines choose theirs by `engine.dtype` and the processor; it is another one only where `student.precision` is given, or on a
CPU that computes bfloat16 itself. A GPU was never used: not run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.training.deepspeed_config import precision_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    device: torch.device
    dtype: torch.dtype
    """What a model computes in. Optimizers keep float32 beside it."""

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def bf16(self) -> bool:
        return self.dtype == torch.bfloat16


def place_of(config: Config) -> Place:
    """The first GPU if there is one and `cluster.device` allows it; bfloat16 where `student.precision` comes to that."""
    found = torch.cuda.is_available()
    if config.cluster.device == "gpu" and not found:
        raise UserError("cluster.device: gpu was asked for, but torch finds none here; use cluster.device=cpu")
    gpu = found and config.cluster.device != "cpu"
    precision = precision_of(config.student, "gpu" if gpu else "cpu")
    return Place(device=torch.device("cuda" if gpu else "cpu"), dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
