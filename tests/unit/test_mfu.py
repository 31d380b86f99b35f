"""What the MFU benchmark counts as model FLOPs, against sums written out by hand."""

from __future__ import annotations

import pytest

from benchmarks.training.mfu import flops
from llm2llm_ray.runtime.models.tokens import Row

SHAPE = {
    "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16,
    "vocab_size": 10,
}  # fmt: skip
# Queries and output 8 x 8 each, keys and values 8 x (2 heads of 2) each, three matrices of 8 x 16.
LAYER = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16


@pytest.mark.parametrize(("method", "each"), [("full", 6), ("lora", 4)])
def test_weights_head_and_attention_are_counted_once_for_each_token(method: str, each: int) -> None:
    rows = [Row(tuple(range(5)), 3), Row(tuple(range(4)), 1)]
    weights = each * 3 * LAYER * 9
    head = each * 8 * 10 * (2 + 3)
    attention = 12 * 3 * 8 * (5 * 5 + 4 * 4) / 2
    assert flops(SHAPE, rows, method) == weights + head + attention
