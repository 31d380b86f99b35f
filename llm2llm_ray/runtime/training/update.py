"""One optimizer update on every rank: the rows of a global batch, cut into passes, computed, reduced and applied.

Invariants: the gradient is that of the batch's mean loss per completion token, packed or padded, however many workers and passes
it is cut into; every rank does the same number of passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training import batching
from llm2llm_ray.runtime.training.engine import Progress
from llm2llm_ray.runtime.training.packed_attention import packs


@dataclass(slots=True, kw_only=True)
class Training:
    """The state of one worker between updates."""

    name: str = ""
    """Of its checkpoints."""
    student: StudentConfig
    engine: Any
    rows: list[Row]
    pad_id: int
    micro: int
    rank: int
    workers: int
    device: torch.device
    total: int
    progress: Progress

    @property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]


def run_update(training: Training, batch: list[int], lengths: list[int]) -> tuple[float, int, int]:
    """One optimizer update; returns the mean loss over its completion tokens, its tokens, and its tokens with padding.

    DeepSpeed averages gradients over the ranks. A pass's loss sum times the number of ranks, over the completion tokens of
    the whole batch, therefore adds up to the gradient of the batch's mean token loss, however the batch is cut.
    """
    engine, packed = training.engine, packs(training.engine)
    cut, join = (batching.deal, batching.pack) if packed else (batching.split, batching.collate)
    passes = cut(batch, lengths, workers=training.workers, micro=training.micro)
    n_tokens = sum(training.rows[row].n_completion for row in batch)
    # Without ZeRO, DeepSpeed flattens all gradients, reduces them and copies them back, among one worker too.
    engine.enable_backward_allreduce = training.workers > 1 or engine.zero_optimization_stage() > 0
    total = torch.zeros((), device=training.device)
    for number, groups in enumerate(passes):
        engine.set_gradient_accumulation_boundary(number == len(passes) - 1)
        part = join([training.rows[i] for i in groups[training.rank]], training.pad_id).to(training.device)
        loss = batching.loss_sum(engine(**part.inputs, use_cache=False).logits, part.labels)
        engine.backward(loss * training.workers / n_tokens, scale_wrt_gas=False)
        total += loss.detach()
    engine.step()
    torch.distributed.all_reduce(total)
    tokens = sum(lengths[row] for row in batch)
    padded = sum(max(lengths[i] for i in group) * len(group) for groups in passes for group in groups if group)
    return float(total) / n_tokens, tokens, tokens if packed else padded
