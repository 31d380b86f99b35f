"""How packed rows are handed to the GPU's kernel, in the torch that is here and in one without `enable_gqa` (2.11).

The kernel itself needs a GPU: what stands here for it attends the rows one by one, by its documentation.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.attention.varlen

from llm2llm_ray.runtime.training.packed_attention import _on_gpu, packed_inputs

LENGTHS, SIZE = [5, 1, 3], 4


def by_rows(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, **settings: Any) -> Any:
    """[tokens, heads, size] each."""
    assert torch.equal(cu_seq_q, cu_seq_k) and cu_seq_q.dtype == torch.int32 and max_q == max_k == max(LENGTHS)
    assert settings.pop("window_size") == (-1, 0), "causal"
    parts = zip(*(each.transpose(0, 1).split(cu_seq_q.diff().tolist(), 1) for each in (query, key, value)), strict=True)
    rows = [torch.nn.functional.scaled_dot_product_attention(*row, is_causal=True, **settings) for row in parts]
    return torch.cat(rows, dim=1).transpose(0, 1)


def newer(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *, scale: Any = None,
    window_size: Any = (-1, -1), enable_gqa: bool = False,
) -> Any:  # fmt: skip
    return by_rows(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=enable_gqa
    )


def older(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *, scale: Any = None,
    window_size: Any = (-1, -1),
) -> Any:  # fmt: skip
    return by_rows(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


@pytest.mark.parametrize("kernel", [newer, older])
@pytest.mark.parametrize("key_heads", [6, 2])
def test_each_row_is_attended_by_itself_with_its_own_heads(kernel: Any, key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", kernel)
    noise = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(LENGTHS), SIZE, generator=noise) for heads in (6, key_heads, key_heads))
    bounds = packed_inputs(LENGTHS)["cu_seq_lens_q"]
    assert isinstance(bounds, torch.Tensor)
    found = _on_gpu(query, key, value, bounds, max(LENGTHS), 0.5)

    expected = []
    for q, k, v in zip(*(each.split(LENGTHS, 2) for each in (query, key, value)), strict=True):
        for head in range(6):
            keys, values = (each[0, head * key_heads // 6] for each in (k, v))
            scores = (q[0, head] @ keys.T * 0.5).masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), float("-inf"))
            expected.append(scores.softmax(-1) @ values)
    rows = [torch.stack(expected[6 * n : 6 * n + 6], dim=1) for n in range(len(LENGTHS))]
    torch.testing.assert_close(found, torch.cat(rows)[None])
