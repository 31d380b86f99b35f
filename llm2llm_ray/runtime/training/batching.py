"""Training rows as token ids, and which of them are computed when, where and together.

Invariants: which examples share an update depends on the seed and the epoch only, never on how many workers there are or
how large a micro-batch is; every rank does the same number of forward passes (a rank with nothing left computes a dummy row
without a loss); and the loss of an update is the mean over the completion tokens of the whole global batch, each with the weight
of its row.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.packed_attention import packed_inputs

IGNORED = -100
"""The label that no loss is computed for."""


def global_batches(num_rows: int, global_batch_size: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each update, epoch after epoch without end; an epoch's last batch may be smaller, no row is left out.

    Random, not grouped by length: rows are grouped inside a batch (`split`), where it cannot bias an update.
    """
    if not num_rows:
        raise ValueError("no rows to train on")
    epoch = 0
    while True:
        order = list(range(num_rows))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from (order[i : i + global_batch_size] for i in range(0, num_rows, global_batch_size))
        epoch += 1


def split(batch: Sequence[int], lengths: Sequence[int], *, workers: int, micro: int) -> list[list[list[int]]]:
    """One update of padded rows as passes[p][rank] = row numbers: at most `micro` each, neighbours in length, spread evenly.

    Rows of one pass are about equally long on all ranks, so that none waits; the longest come first, so that a micro-batch
    that is too large for the memory fails in the first pass. A list can be empty where rows are fewer than ranks.
    """
    ordered = sorted(batch, key=lambda row: (-lengths[row], row))
    passes = math.ceil(len(ordered) / (workers * micro))
    parts = passes * workers
    bounds = [math.ceil(i * len(ordered) / parts) for i in range(parts + 1)]
    groups = [ordered[a:b] for a, b in itertools.pairwise(bounds)]
    return [groups[p * workers : (p + 1) * workers] for p in range(passes)]


def deal(batch: Sequence[int], lengths: Sequence[int], *, workers: int, micro: int) -> list[list[list[int]]]:
    """`split` for packed rows: as many passes, at most `micro` rows each, and about as many tokens in each as in every other.

    Each row, the longest first, goes to the lightest part that has room; the heaviest parts come first.
    """
    ordered = sorted(batch, key=lambda row: (-lengths[row], row))
    passes = math.ceil(len(ordered) / (workers * micro))
    parts: list[list[int]] = [[] for _ in range(passes * workers)]
    room = math.ceil(len(ordered) / len(parts))
    open_parts = [(0, number) for number in range(len(parts))]
    for row in ordered:
        tokens, number = heapq.heappop(open_parts)
        parts[number].append(row)
        if len(parts[number]) < room:
            heapq.heappush(open_parts, (tokens + lengths[row], number))
    parts.sort(key=lambda rows: -sum(lengths[row] for row in rows))
    return [parts[p * workers : (p + 1) * workers] for p in range(passes)]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass of one rank. `inputs` are the model's keyword arguments; it computes logits where a label is only."""

    inputs: Mapping[str, torch.Tensor | int]
    labels: torch.Tensor
    """Of the logits computed: what each predicts, or IGNORED."""
    weights: torch.Tensor | None
    """Of the labels; None where all are 1."""

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in self.inputs.items()}
        return Batch(moved, self.labels.to(device), None if self.weights is None else self.weights.to(device))


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad on the right, to the longest row. No rows: a dummy that takes part in the collectives and has no loss."""
    rows = rows or [_dummy(pad_id)]
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        mask[i, :n] = 1
        labels[i, row.n_prompt - 1 : n - 1] = ids[i, row.n_prompt : n]
    weights = torch.tensor([[row.weight] * width for row in rows])
    return _scored({"input_ids": ids, "attention_mask": mask}, labels, weights)


def pack(rows: Sequence[Row], pad_id: int) -> Batch:
    """The rows end to end in one sequence, for `packed_attention`. No rows: a dummy, as in `collate`."""
    rows = rows or [_dummy(pad_id)]
    ids = torch.tensor([list(itertools.chain.from_iterable(row.ids for row in rows))])
    labels = torch.full_like(ids, IGNORED)
    start = 0
    for row in rows:
        end = start + len(row.ids)
        labels[0, start + row.n_prompt - 1 : end - 1] = ids[0, start + row.n_prompt : end]
        start = end
    weights = torch.tensor([[row.weight for row in rows for _ in row.ids]])
    return _scored({"input_ids": ids, **packed_inputs([len(row.ids) for row in rows])}, labels, weights)


def _dummy(pad_id: int) -> Row:
    return Row((pad_id, pad_id), 2)


def _scored(inputs: dict[str, torch.Tensor | int], labels: torch.Tensor, weights: torch.Tensor) -> Batch:
    """Keep the columns in which some row has a label, at least one."""
    columns = (labels != IGNORED).any(dim=0).nonzero().flatten()
    columns = columns if len(columns) else torch.zeros(1, dtype=torch.long)
    return Batch({**inputs, "logits_to_keep": columns}, labels[:, columns], None if (weights == 1).all() else weights[:, columns])


def loss_sum(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Sum of the token losses times their weights in float32; exactly 0, but still with a graph, where no label counts."""
    scores, wanted = logits.float().flatten(0, 1), labels.flatten()
    if weights is None:
        return F.cross_entropy(scores, wanted, ignore_index=IGNORED, reduction="sum")
    return (F.cross_entropy(scores, wanted, ignore_index=IGNORED, reduction="none") * weights.flatten()).sum()


@torch.no_grad()
def known(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many labels are their logits' likeliest token."""
    return (logits.argmax(-1) == labels).sum()


def learning_rate(update: int, total: int, *, peak: float, warmup_ratio: float, schedule: str) -> float:
    """The rate of update number `update` (from 0). Warm-up starts above 0: no update of a short training is wasted."""
    warmup = math.ceil(warmup_ratio * total)
    if update < warmup:
        return peak * (update + 1) / warmup
    done = (update - warmup) / max(1, total - warmup)
    match schedule:
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return peak * (1 - done)
        case "constant":
            return peak
    raise ValueError(f"unknown schedule {schedule}")
