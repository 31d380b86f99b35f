"""Packed rows compute what each row computes alone: attention, gradients on any number of workers, and who may be packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    Lfm2Config,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
)

from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training import batching, packed_attention

pytestmark = pytest.mark.integration
SMALL: dict[str, Any] = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED: dict[str, Any] = SMALL | {"intermediate_size": 96, "num_key_value_heads": 2}
CONFIGS = {
    "qwen2": Qwen2Config(**GROUPED),
    "gpt2": GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, n_positions=128),
    "mistral": MistralConfig(**GROUPED, sliding_window=64),
    "mistral-short-window": MistralConfig(**GROUPED, sliding_window=12),
    "bloom": BloomConfig(vocab_size=512, hidden_size=64, n_layer=2, n_head=4),
    "lfm2": Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"]),  # its convolution runs over the boundaries
    "mamba": MambaConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2),
}


@pytest.fixture(scope="module")
def computed(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What packing_cases.py computes on one and on two ranks, without Ray."""
    out = tmp_path_factory.mktemp("packing")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(out / "models" / name)
    for world in (1, 2):
        run_ranks("packing_cases.py", world, tiny_model, out)
    return out


def test_packed_gradients_are_those_of_the_rows_alone(computed: Path) -> None:
    cases = [case for world in (1, 2) for case in json.loads((computed / f"cases-{world}.json").read_text())]
    assert len(cases) == 13
    for case in cases:
        assert case["why_padded"] is None, case
        assert case["loss_off"] < 1e-5 and case.get("gradient_off", 0) < 1e-5, case
        assert case.get("tokens") == case.get("padded"), case


def test_a_model_that_cannot_be_packed_is_found_out_and_trained_padded(computed: Path) -> None:
    verdicts = json.loads((computed / "verdicts.json").read_text())
    why = {name: reason for name, (reason, _) in verdicts.items()}
    assert [name for name in why if why[name] is None] == ["gpt2", "mistral", "qwen2"]
    assert why["mistral-short-window"] == "its sliding_window of 12 is shorter than a row of 19 tokens"
    assert why["bloom"] == why["mamba"] == "it takes no position_ids"
    assert why["lfm2"].startswith("its packed logits differ by")
    assert all(0 < loss < 20 for _, loss in verdicts.values())  # each was trained, one way or the other


@pytest.fixture
def packed_model(tiny_model: str) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    packed_attention.install(model)
    return model


def test_a_student_does_not_carry_the_name_of_our_attention_away(packed_model: PreTrainedModel, tmp_path: Path) -> None:
    assert packed_model.config._attn_implementation == packed_attention.NAME
    packed_model.save_pretrained(tmp_path)
    assert packed_attention.NAME not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


@torch.no_grad()
def test_a_row_does_not_see_its_neighbours(packed_model: PreTrainedModel) -> None:
    rows = [Row(tuple(range(10, 22)), 2), Row(tuple(range(40, 47)), 3)]
    other = [Row(tuple(range(110, 122)), 2), rows[1]]
    one, two = (packed_model(**batching.pack(each, 0).inputs, use_cache=False).logits for each in (rows, other))
    kept = rows[1].n_completion
    assert torch.equal(one[:, -kept:], two[:, -kept:])
    assert not torch.allclose(one[:, :-kept], two[:, :-kept], atol=1e-3)
    # The same pass without boundaries: the neighbour shows, so the equality above says something.
    ids = [batching.pack(each, 0).inputs["input_ids"] for each in (rows, other)]
    one, two = (packed_model(input_ids=each, use_cache=False).logits[:, -kept:] for each in ids)
    assert not torch.allclose(one, two, atol=1e-3)


@pytest.mark.parametrize(("lengths", "calls"), [((3, 7, 2), 1), ((1,), 1), ((256, 250), 1), ((257, 3), 2), ((1, 1, 1, 1, 40), 5)])
def test_short_rows_are_attended_in_one_call_and_all_as_if_each_were_alone(
    lengths: tuple[int, ...], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, where rows are of one length, of many, or too long or too different for one padded call."""
    from transformers.integrations import sdpa_attention

    module, made = torch.nn.Identity(), []
    module.num_key_value_groups = 2
    attend = sdpa_attention.sdpa_attention_forward
    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", lambda *a, **k: (made.append(a), attend(*a, **k))[1])
    torch.manual_seed(len(lengths))
    query, key, value = (torch.randn(1, heads, sum(lengths), 8, requires_grad=True) for heads in (4, 2, 2))
    inputs = packed_attention.packed_inputs(list(lengths))
    about = {name: inputs[name] for name in ("cu_seq_lens_q", "max_length_q")}
    together, _ = packed_attention.packed_attention(module, query, key, value, None, **about)
    rows = zip(*(each.split(lengths, 2) for each in (query, key, value)), strict=True)
    alone = torch.cat([attend(module, *row, None)[0] for row in rows], dim=1)
    assert len(made) == calls
    torch.testing.assert_close(together, alone)
    weights = torch.randn_like(alone)
    gradients = [torch.autograd.grad((each * weights).sum(), (query, key, value)) for each in (together, alone)]
    torch.testing.assert_close(*gradients)


def test_an_attention_with_a_mask_of_its_own_is_refused() -> None:
    query = torch.zeros(1, 2, 5, 8)
    bounds = torch.tensor([0, 2, 5])
    with pytest.raises(ValueError, match="mask or a bias"):
        packed_attention.packed_attention(torch.nn.Identity(), query, query, query, torch.ones(1, 1, 5, 5), cu_seq_lens_q=bounds)
