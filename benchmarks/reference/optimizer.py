"""How the careful loop steps: our AdamW (runtime/training/optimizer.py) over float32 weights whatever the model computes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.training.optimizer import optimizer_of


class Optimizer:
    """Where the model computes in float32 its own weights are stepped; else copies of them, which also gather the gradients of
    an update's passes, and the model's weights are rounded from them."""

    def __init__(self, weights: Sequence[torch.nn.Parameter], settings: StudentConfig) -> None:
        self._weights = weights
        self._apart = weights[0].dtype != torch.float32
        self._exact = [torch.nn.Parameter(weight.detach().float()) for weight in weights] if self._apart else list(weights)
        self._adamw = optimizer_of(torch.nn.ParameterList(self._exact), settings, clips=True)

    def after_pass(self) -> None:
        """Takes over the gradients of a backward pass."""
        if not self._apart:
            return
        for exact, weight in zip(self._exact, self._weights, strict=True):
            if weight.grad is not None:
                exact.grad = weight.grad.float() if exact.grad is None else exact.grad.add_(weight.grad)
                weight.grad = None

    def step(self, rate: float) -> None:
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad()
        if self._apart:
            with torch.no_grad():
                torch._foreach_copy_(list(self._weights), self._exact)
