"""The proof that an engine holds the weights that a trainer had: both say how likely they find a few completions.

Invariant: what the trainer says comes from the weights that it holds, before they are merged, written, uploaded, fetched and read
by another program, so that a fault in any of these shows. A student folder has it in FILE, which is no part of the folder's sha.

The difference is the mean over the completions' tokens of |engine's - trainer's|, in nats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm2llm_ray.runtime.models.tokens import Row

FILE = "_hand_off.json"
_ROWS, _TOKENS = 8, 1024
"""At most, so that it stays a matter of a second."""
MOST = {"float32": 1e-3, "bfloat16": 0.3}
"""Difference allowed, by the coarser of the two types. SmolLM2-135M after 12 updates at 5e-5: bfloat16 for float32 makes 0.08, a
head left from before 0.006, the model before instead of the student 13, one matrix left from before 0.1, a layer of zeros 25. So
with bfloat16 a stale head may pass, where it does less than the rounding does."""


class WrongWeights(RuntimeError):
    """What is held is not what its label says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a model says. Example: Told(rows=(Row((5, 9, 3), 2),), log_probs=((-0.7,),), dtype="float32")"""

    rows: tuple[Row, ...]
    log_probs: tuple[tuple[float, ...], ...]
    """Of each row's completion tokens, each after all before it."""
    dtype: str
    """That it was computed in."""

    def fitting(self, context: int) -> Told:
        """The part whose rows leave room for a token in a context of so many."""
        kept = [pair for pair in zip(self.rows, self.log_probs, strict=True) if len(pair[0].ids) < context]
        return replace(self, rows=tuple(row for row, _ in kept), log_probs=tuple(said for _, said in kept))

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def read(folder: str) -> Told | None:
    """What was told of the weights in this folder; None where no training of ours left them."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    found = json.loads(path.read_bytes())
    rows = tuple(Row(tuple(row["ids"]), row["n_prompt"]) for row in found["rows"])
    return Told(rows=rows, log_probs=tuple(map(tuple, found["log_probs"])), dtype=found["dtype"])


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The shortest rows, in their order: they fit into an engine's context if any do, and cost least."""
    few: list[int] = []
    tokens = 0
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number].ids))[:_ROWS]:
        tokens += len(rows[number].ids)
        if few and tokens > _TOKENS:
            break
        few.append(number)
    return [rows[number] for number in sorted(few)]


def compared(told: Told, found: Sequence[Sequence[float]], dtype: str) -> dict[str, Any]:
    """The numbers of a hand-off that is right. Raises WrongWeights for one that is not; `found` is the engine's, of all rows."""
    pairs = [pair for ours, theirs in zip(told.log_probs, found, strict=True) for pair in zip(ours, theirs, strict=True)]
    differences = [abs(ours - theirs) for ours, theirs in pairs]
    mean, most = sum(differences) / len(pairs), MOST["float32" if {dtype, told.dtype} == {"float32"} else "bfloat16"]
    # Not `>`: a difference that is no number must not pass.
    if not mean <= most:
        raise WrongWeights(
            "the engine does not compute with the weights that it was given: its log-probabilities of "
            f"{len(pairs)} tokens differ from the trainer's by {mean:.2g} on average; {most:g} is allowed ({dtype}, {told.dtype})"
        )
    return {
        "tokens": len(pairs), "mean_difference": mean, "largest_difference": max(differences), "allowed": most,
        "trainer_dtype": told.dtype, "engine_dtype": dtype,
    }  # fmt: skip
