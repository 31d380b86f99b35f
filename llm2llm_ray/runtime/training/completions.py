"""What the model in training says of a few of its rows: the trainer's half of a hand-off (`runtime/models/hand_off.py`)."""

from __future__ import annotations

import torch

from llm2llm_ray.runtime.models.hand_off import Told, chosen
from llm2llm_ray.runtime.training import batching
from llm2llm_ray.runtime.training.packed_attention import packs
from llm2llm_ray.runtime.training.update import Training


@torch.no_grad()
def told_by(training: Training) -> Told:
    """On all ranks: under ZeRO-3 none has the whole model. The engine is left as it is for an export, not for training."""
    engine = training.engine
    engine.eval()
    join = batching.pack if packs(engine) else batching.collate
    found, dtype, rows = [], "", chosen(training.rows)
    for row in rows:
        part = join([row], training.pad_id).to(training.device)
        logits = engine(**part.inputs, use_cache=False).logits
        dtype = str(logits.dtype).removeprefix("torch.")
        scores = logits.float().log_softmax(-1).gather(-1, part.labels.unsqueeze(-1))
        found.append(tuple(scores.flatten().tolist()))
    return Told(rows=tuple(rows), log_probs=tuple(found), dtype=dtype)
