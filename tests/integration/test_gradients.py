"""What our DeepSpeed engines compute, on ranks without Ray: gradients, their norm, their sums, and what is exported of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine_cases(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What engine_cases.py computes on one and on two ranks, without Ray."""
    out = tmp_path_factory.mktemp("engines")
    for world in (1, 2):
        run_ranks("engine_cases.py", world, tiny_model, out)
    return out


def reference_known(model: str) -> int:
    """Completion tokens that are likelier than all others, row by row."""
    from engine_cases import ROWS

    plain = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        likeliest = [plain(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1).tolist() for row in ROWS]
    return sum(
        said[i - 1] == row.ids[i] for row, said in zip(ROWS, likeliest, strict=True) for i in range(row.n_prompt, len(row.ids))
    )


def reference_gradient(model: str, weights: Sequence[float] = (1.0,) * 7) -> tuple[dict[str, torch.Tensor], float]:
    """The gradient of the batch's mean completion-token loss: row by row, no padding, no DeepSpeed."""
    from engine_cases import ROWS

    plain = AutoModelForCausalLM.from_pretrained(model)
    total = torch.zeros(())
    for row, weight in zip(ROWS, weights, strict=True):
        ids = torch.tensor([row.ids])
        scores = plain(input_ids=ids).logits.log_softmax(-1)[0]
        total = total - weight * sum(scores[i - 1, row.ids[i]] for i in range(row.n_prompt, len(row.ids)))
    loss = total / sum(weight * (len(row.ids) - row.n_prompt) for row, weight in zip(ROWS, weights, strict=True))
    loss.backward()
    return {name: p.grad for name, p in plain.named_parameters()}, float(loss.detach())


def test_neither_micro_batches_nor_workers_nor_zero_change_the_gradient(engine_cases: Path, tiny_model: str) -> None:
    from engine_cases import ROWS

    expected, loss = reference_gradient(tiny_model)
    known = reference_known(tiny_model)
    files = sorted(engine_cases.glob("gradient-*.pt"))
    assert len(files) == 8
    for file in files:
        case = torch.load(file)
        assert case["loss"] == pytest.approx(loss, rel=1e-5), file.name
        assert case["tokens"] == 91 <= case["padded"]
        assert (case["known"], case["scored"]) == (known, 91 - sum(row.n_prompt for row in ROWS)), file.name
        for name, gradient in expected.items():
            found = case["moments"][name] * 10  # Adam keeps a tenth of the first gradient
            assert (found - gradient).abs().max() <= 1e-5 * gradient.abs().max(), f"{file.name} {name}"


def test_the_weights_of_rows_are_in_the_gradient_however_it_is_cut(engine_cases: Path, tiny_model: str) -> None:
    from engine_cases import WEIGHTS

    expected, loss = reference_gradient(tiny_model, WEIGHTS)
    plain, _ = reference_gradient(tiny_model)
    files = sorted(engine_cases.glob("weighted-*.pt"))
    assert len(files) == 4
    for file in files:
        case = torch.load(file)
        assert case["loss"] == pytest.approx(loss, rel=1e-5), file.name
        for name, gradient in expected.items():
            found = case["moments"][name] * 10
            assert (found - gradient).abs().max() <= 1e-5 * gradient.abs().max(), f"{file.name} {name}"
            assert (found - plain[name]).abs().max() > 1e-2 * gradient.abs().max(), f"{file.name} {name}: weights without effect"


@pytest.mark.parametrize(("case", "optimizer"), [("1-0", "ClippingAdamW"), ("1-2", "AdamW"), ("2-0", "AdamW")])
def test_gradients_are_clipped_once_whoever_does_it(engine_cases: Path, tiny_model: str, case: str, optimizer: str) -> None:
    from engine_cases import CLIPPED

    expected, _ = reference_gradient(tiny_model)
    norm = torch.nn.utils.get_total_norm(list(expected.values()))
    assert norm > 2 * CLIPPED
    found = torch.load(engine_cases / f"clipped-{case}.pt")
    assert found["optimizer"] == optimizer
    for name, gradient in expected.items():
        clipped = gradient * CLIPPED / norm
        assert (found["moments"][name] * 10 - clipped).abs().max() <= 1e-4 * clipped.abs().max(), name


@pytest.mark.parametrize(("world", "zero"), [(1, 0), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_a_gradient_that_is_not_finite_is_seen_on_every_rank(engine_cases: Path, world: int, zero: int) -> None:
    said = [(engine_cases / f"diverging-{world}-{zero}-fp32-{rank}").read_text() for rank in range(world)]
    assert [text.startswith("the norm of the gradient is ") for text in said] == [True] * world, said


@pytest.fixture(scope="module")
def bfloat16_cases(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bfloat16_cases.py computes on two ranks, without Ray."""
    out = tmp_path_factory.mktemp("bfloat16")
    run_ranks("bfloat16_cases.py", 2, tiny_model, out)
    return out


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_bfloat16_gradients_are_summed_and_reduced_in_float32(bfloat16_cases: Path, zero: int) -> None:
    def gradient(case: str) -> torch.Tensor:
        moments = torch.load(bfloat16_cases / f"{case}-{zero}.pt")
        return torch.cat([moments[name].float().flatten() * 10 for name in sorted(moments)])

    many, few = gradient("many-passes"), gradient("few-passes")
    assert (many - few).norm() < 0.004 * few.norm()  # half of a bfloat16's last bit is 1/512 = 0.002: one rounding, not 64
    mean = gradient("one-each")
    mean = mean[mean != 0]
    in_bfloat16 = (mean - mean.bfloat16().float()).abs() < 1e-5 * mean.abs()
    assert in_bfloat16.float().mean() < 0.75  # half the means of two bfloat16 numbers near each other are none themselves


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_is_seen_in_bfloat16_too(bfloat16_cases: Path, zero: int) -> None:
    said = [(bfloat16_cases / f"diverging-2-{zero}-bf16-{rank}").read_text() for rank in range(2)]
    assert [text.startswith("the norm of the gradient is ") for text in said] == [True] * 2, said


@pytest.mark.parametrize("case", ["lora-1-0", "lora-1-2", "lora-2-3"])
def test_a_merged_adapter_computes_what_the_engine_did(engine_cases: Path, tiny_model: str, case: str) -> None:
    from engine_cases import PROBE
    from safetensors.torch import load_file

    engine = torch.load(engine_cases / f"{case}.pt")
    ids = torch.tensor(PROBE)
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(engine_cases / case)(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_model)(input_ids=ids).logits
    assert (merged - engine).abs().max() < 1e-4
    assert (merged - base).abs().max() > 1e-2  # the adapter does something
    adapter = load_file(engine_cases / case / "adapter" / "adapter_model.safetensors")
    assert sum("lora_B" in name for name in adapter) == 14
    assert all(tensor.any() for tensor in adapter.values())
