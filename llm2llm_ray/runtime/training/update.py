"""One optimizer update on every rank: the rows of a global batch, cut into passes, computed, reduced and applied.

Invariants: the gradient is that of the batch's mean loss per completion token, each with the weight of its row, packed or padded,
however many workers and passes it is cut into; every rank does the same number of passes; and a loss or a gradient that is not
finite ends the training on all ranks in the update that sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training import batching
from llm2llm_ray.runtime.training.engine import Progress, take_step
from llm2llm_ray.runtime.training.packed_attention import packs

LONGEST_NAMED = 5


class NotFinite(ArithmeticError):
    """The loss or the gradient of an update is NaN or infinite: seen by every rank, and no fault of theirs."""


@dataclass(slots=True, kw_only=True)
class Training:
    """The state of one worker between updates."""

    name: str = ""
    """Of its checkpoints."""
    student: StudentConfig
    engine: Any
    rows: list[Row]
    names: Sequence[str] = ()
    """Of the rows given, by `Row.number`."""
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


class Updated(NamedTuple):
    """What one update came to, over all ranks."""

    loss: float
    """Mean over its completion tokens, each with the weight of its row."""
    tokens: int
    padded: int
    """Its tokens with padding."""
    known: int
    """Of its completion tokens, those that the model, as it was before the update, found likelier than all others."""
    scored: int
    """Its completion tokens."""


def run_update(training: Training, batch: list[int], lengths: list[int]) -> Updated:
    """One optimizer update.

    DeepSpeed averages gradients over the ranks. A pass's loss sum times the number of ranks, over the weights of all completion
    tokens of the whole batch, therefore adds up to the gradient of the batch's mean token loss, however the batch is cut. Raises
    NotFinite.
    """
    engine, packed = training.engine, packs(training.engine)
    passes = _passes(training, batch, lengths)
    n_tokens = sum(training.rows[row].n_completion for row in batch)
    n_weighted = sum(training.rows[row].n_completion * training.rows[row].weight for row in batch)
    # Without ZeRO, DeepSpeed flattens all gradients, reduces them and copies them back, among one worker too.
    engine.enable_backward_allreduce = training.workers > 1 or engine.zero_optimization_stage() > 0
    total, known = torch.zeros((), device=training.device), torch.zeros((), device=training.device)
    for number, groups in enumerate(passes):
        engine.set_gradient_accumulation_boundary(number == len(passes) - 1)
        loss, known_here = _computed(training, groups)
        engine.backward(loss * training.workers / n_weighted, scale_wrt_gas=False)
        total += loss.detach()
        known += known_here
    loss_of_all, known_of_all = _over_ranks(total, known)
    loss_of_batch = _finite("the loss", loss_of_all / n_weighted)
    _finite("the norm of the gradient", take_step(engine))
    tokens = sum(lengths[row] for row in batch)
    padded = sum(max(lengths[i] for i in group) * len(group) for groups in passes for group in groups if group)
    return Updated(loss_of_batch, tokens, tokens if packed else padded, round(known_of_all), n_tokens)


@torch.no_grad()
def check_weights(training: Training, batch: list[int]) -> None:
    """Raises NotFinite unless the model as it is now has a loss on the last rows of `batch`: no later update would see it."""
    last = _passes(training, batch, training.lengths)[-1]
    _finite("the loss after it", *_over_ranks(_computed(training, last)[0]))


def _passes(training: Training, batch: list[int], lengths: list[int]) -> list[list[list[int]]]:
    cut = batching.deal if packs(training.engine) else batching.split
    return cut(batch, lengths, workers=training.workers, micro=training.micro)


def _computed(training: Training, groups: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the token losses of one pass over this rank's rows, and how many of these tokens the model knows."""
    join = batching.pack if packs(training.engine) else batching.collate
    part = join([training.rows[i] for i in groups[training.rank]], training.pad_id).to(training.device)
    logits = training.engine(**part.inputs, use_cache=False).logits
    return batching.loss_sum(logits, part.labels, part.weights), batching.known(logits, part.labels)


def explained(what: NotFinite, training: Training, batch: list[int], rate: float) -> NotFinite:
    """`what` with all that its user needs to know: which update, at which rate, over which rows, and what to do."""
    update = training.progress.update + 1
    longest = sorted((training.rows[i] for i in batch), key=lambda row: -len(row.ids))[:LONGEST_NAMED]
    rows = ", ".join(f"{training.names[row.number]} ({len(row.ids)} tokens)" for row in longest)
    remedy = "lower student.learning_rate, raise student.warmup_ratio, or look at these rows"
    if update == 1:
        remedy += "; if a rate near 0 ends in the same way, student.model itself holds weights that are not finite"
    return NotFinite(
        f"update {update} of {training.total}, at learning rate {rate:.3g}: {what}. No student comes of it, and the teacher is "
        f"not asked. The longest of its {len(batch)} rows: {rows}. What helps: {remedy}"
    )


def _over_ranks(*values: torch.Tensor) -> list[float]:
    """Each summed, in float32: counts are exact up to 16 million."""
    together = torch.stack(values)
    torch.distributed.all_reduce(together)
    return together.tolist()


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise NotFinite(f"{name} is {value}")
    return value
