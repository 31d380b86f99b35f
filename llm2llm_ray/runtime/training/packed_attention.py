"""Attention over rows laid end to end in one sequence, without padding: no row sees another.

Invariant: a model computes the same logits for packed rows as for each row alone. `use_packing` makes a model do so, or says why
it cannot and leaves it as it was; it finds out by computing a few tokens both ways, the same on every rank.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import distributed

NAME = "packed_rows"
"""Of this attention in transformers. No mask is registered under it, so transformers makes none, which for a pass of thousands of
tokens would be a square of them."""
_TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 5e-2}
"""Of the largest logit. Rounding is far below it, a row that sees its neighbour far above."""
_TOGETHER = 256
"""Tokens up to which rows are attended in one call, padded: on CPU a call costs 0.3 ms however little it does."""
_PADDED = 3
"""Times their tokens that such rows may be padded to: most of it then is still cheap beside the rest of a layer."""
_WINDOWS = ("sliding_window", "attention_chunk_size")
_PROBE = (9, 6, 1, 4)
"""Lengths of the rows computed both ways."""


def packed_inputs(lengths: list[int]) -> dict[str, torch.Tensor | int]:
    """What a model is called with beside the ids [1, sum of lengths]; the names are transformers'."""
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    longest = max(lengths)
    return {
        "position_ids": positions,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' own attention, short rows in one call and long ones row by row.

    A mask over the whole pass would be work for the square of its tokens.

    Without boundaries (a pass that is not packed) it is transformers' own. Shapes: [1, heads, tokens, size of a head].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise ValueError("its attention takes a mask or a bias of its own")
    if query.is_cuda and query.dtype != torch.float32 and not dropout and max_length_q is not None:
        return _on_gpu(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    if max_length_q is not None and _together(len(cu_seq_lens_q) - 1, max_length_q, query.shape[2]):
        places, own = _rows_side_by_side(cu_seq_lens_q, max_length_q)
        q, k, v = (
            each[0].transpose(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)
            for each in (query, key, value)
        )
        padded = sdpa_attention_forward(module, q, k, v, None, dropout=dropout, scaling=scaling, **kwargs)[0]
        return padded.flatten(0, 1).index_select(0, own)[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    parts = [sdpa_attention_forward(module, q, k, v, None, dropout=dropout, scaling=scaling, **kwargs)[0] for q, k, v in rows]
    return torch.cat(parts, dim=1), None


def _together(rows: int, longest: int, tokens: int) -> bool:
    return longest <= _TOGETHER and rows * longest <= _PADDED * tokens


def _rows_side_by_side(bounds: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, longest): the token at each place of each row; behind its end its last one, which causal attention hides from it.
    And which of these places, counted through, are the rows' own."""
    bounds = bounds.long()
    starts, lengths, steps = bounds[:-1, None], bounds.diff()[:, None], torch.arange(longest, device=bounds.device)
    return starts + torch.minimum(steps, lengths - 1), (steps < lengths).flatten().nonzero().flatten()


def _on_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, longest: int, scaling: float | None
) -> torch.Tensor:
    """One kernel for all rows, in bfloat16 or float16. Not run: no GPU so far."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    settings: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0)}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:
            settings["enable_gqa"] = True
        else:  # torch 2.11
            k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    return varlen_attn(q, k, v, bounds, bounds, longest, longest, **settings)[None]


def install(model: Any) -> None:
    """Let the model attend row by row wherever it is called with `packed_inputs`; no question whether it can."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def use_packing(engine: Any, longest: int) -> str | None:
    """Let the engine's model take packed rows of up to `longest` tokens. None, or why it is trained padded. On all ranks."""
    model = engine.module
    config = model.config.get_text_config()
    before = config._attn_implementation
    reason = _unfit(model, config, longest)
    if reason is None:
        ids = (torch.arange(sum(_PROBE)) * 7919 + 11).remainder(config.vocab_size)[None].to(engine.device)
        engine.eval()
        # With the attention it came with: ours makes no masks, which such a model may need.
        alone = torch.cat([_logits(engine, row) for row in ids.split(_PROBE, 1)], dim=1)
        install(model)
        reason = _differs(engine, ids, alone) if packs(engine) else "its attention cannot be replaced"
        engine.train()
    agreed = torch.tensor(float(reason is None), device=engine.device)
    distributed.all_reduce(agreed, op=distributed.ReduceOp.MIN)
    if agreed:
        return None
    if packs(engine):
        model.set_attn_implementation(before)
    return reason or "packed logits were wrong on another worker"


def packs(engine: Any) -> bool:
    """Whether `use_packing` succeeded for this engine."""
    config = getattr(engine.module, "config", None)
    return config is not None and config.get_text_config()._attn_implementation == NAME


def _unfit(model: Any, config: Any, longest: int) -> str | None:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        return "it takes no position_ids"
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation}, not sdpa"
    for name in _WINDOWS:  # the probe's rows are too short to show them
        window = getattr(config, name, None)
        if window is not None and window < longest:
            return f"its {name} of {window} is shorter than a row of {longest} tokens"
    return None


def _differs(engine: Any, ids: torch.Tensor, alone: torch.Tensor) -> str | None:
    """Why packed logits are not those of each row alone; None where they are."""
    inputs = packed_inputs(list(_PROBE))
    packed = {name: value.to(engine.device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    try:
        together = _logits(engine, ids, **packed)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever a model's own code makes of such a call
        return f"it cannot compute packed rows: {error}"
    difference = float((together - alone).abs().max() / alone.abs().max())
    # Not `>`: a difference that is no number must not pass.
    if not difference <= _TOLERANCE.get(together.dtype, 0.0):
        return f"its packed logits differ by {difference:.1e} of the largest"
    return None


@torch.no_grad()
def _logits(engine: Any, ids: torch.Tensor, **inputs: torch.Tensor | int) -> torch.Tensor:
    logits: torch.Tensor = engine(input_ids=ids, use_cache=False, **inputs).logits
    return logits
