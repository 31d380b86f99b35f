"""Training rows as token ids, and which of them are computed when, where and together.

Invariants: which examples share an update depends on the seed and the epoch only, never on how many workers there are or
how large a micro-batch is; every rank does the same number of forward passes (a rank with nothing left computes a dummy row
without a loss); and the loss of an update is the mean over the completion tokens of the whole global batch.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from llm2llm_ray.runtime.tokens import Row

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
    """One update as passes[p][rank] = row numbers: at most `micro` each, neighbours in length, spread evenly.

    Rows of one pass are about equally long on all ranks, so that none waits; the longest come first, so that a micro-batch
    that is too large for the memory fails in the first pass. A list can be empty where rows are fewer than ranks.
    """
    ordered = sorted(batch, key=lambda row: (-lengths[row], row))
    passes = math.ceil(len(ordered) / (workers * micro))
    parts = passes * workers
    bounds = [math.ceil(i * len(ordered) / parts) for i in range(parts + 1)]
    groups = [ordered[a:b] for a, b in itertools.pairwise(bounds)]
    return [groups[p * workers : (p + 1) * workers] for p in range(passes)]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass of one rank: right-padded ids with labels already shifted to the position that predicts them."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    tokens: int
    """Tokens that are not padding; 0 for a dummy."""

    def to(self, device: torch.device) -> Batch:
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device), self.tokens)


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad to the longest row. No rows: a dummy that takes part in the collectives and has no loss."""
    if not rows:
        ids = torch.full((1, 2), pad_id)
        return Batch(ids, torch.ones_like(ids), torch.full_like(ids, IGNORED), 0)
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        mask[i, :n] = 1
        labels[i, row.n_prompt - 1 : n - 1] = ids[i, row.n_prompt : n]
    return Batch(ids, mask, labels, int(mask.sum()))


def loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the token losses in float32; exactly 0, but still with a graph, where no label counts."""
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def scored_positions(labels: torch.Tensor) -> torch.Tensor:
    """Columns in which some row has a label: logits elsewhere need not be computed. At least one."""
    columns = (labels != IGNORED).any(dim=0).nonzero().flatten()
    return columns if len(columns) else torch.zeros(1, dtype=torch.long, device=labels.device)


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
