"""AdamW of the careful loop: the fused one, over float32 weights whatever the model computes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llm2llm_ray.config import StudentConfig


class Optimizer:
    """Where the model computes in float32 its own weights are stepped; else copies of them, which also gather the gradients of
    an update's passes, and the model's weights are rounded from them."""

    def __init__(self, weights: Sequence[torch.nn.Parameter], settings: StudentConfig) -> None:
        self._weights, self._limit = weights, settings.gradient_clipping
        self._apart = weights[0].dtype != torch.float32
        self._exact = [torch.nn.Parameter(weight.detach().float()) for weight in weights] if self._apart else list(weights)
        self._adamw = adamw(self._exact, settings)

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
        clip(self._adamw, self._exact, self._limit)
        self._adamw.step()
        self._adamw.zero_grad()
        if self._apart:
            with torch.no_grad():
                torch._foreach_copy_(list(self._weights), self._exact)


def adamw(parameters: Sequence[torch.nn.Parameter], settings: StudentConfig) -> torch.optim.AdamW:
    """Weight decay on matrices only."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def clip(optimizer: torch.optim.AdamW, parameters: Sequence[torch.nn.Parameter], limit: float) -> None:
    """The fused step divides by `grad_scale`, which saves a pass over all gradients."""
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    optimizer.grad_scale = (norm + 1e-6) / limit if norm > limit else None
