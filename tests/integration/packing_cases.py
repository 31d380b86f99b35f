"""Packed updates on real DeepSpeed engines, as one of the ranks of ranks.py; what they computed goes to `out`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from engine_cases import ROWS, WEIGHTS, first_moments, training
from ranks import join
from transformers import AutoModelForCausalLM

from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.packed_attention import use_packing
from llm2llm_ray.runtime.training.update import Training, run_update

WEIGHTED = [replace(row, weight=weight) for row, weight in zip(ROWS, WEIGHTS, strict=True)]
LONGEST = max(len(row.ids) for row in ROWS)
SETTINGS = {1: [(1, 0), (4, 0), (8, 0), (8, 2)], 2: [(4, 0), (1, 2), (4, 3)]}
"""(micro-batch, ZeRO stage) by the number of workers."""


def gradients(case: Training) -> dict[str, torch.Tensor]:
    return {name: moment * 10 for name, moment in first_moments(case.engine).items()}  # Adam keeps a tenth of the first gradient


def expected(model: str, rows: Sequence[Row]) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient and value of the mean completion-token loss: row by row, nothing padded or packed, no DeepSpeed."""
    plain = AutoModelForCausalLM.from_pretrained(model)
    total = torch.zeros(())
    for row in rows:
        scores = plain(input_ids=torch.tensor([row.ids])).logits.log_softmax(-1)[0]
        total = total - row.weight * sum(scores[i - 1, row.ids[i]] for i in range(row.n_prompt, len(row.ids)))
    loss = total / sum(row.weight * row.n_completion for row in rows)
    loss.backward()
    return {name: p.grad for name, p in plain.named_parameters()}, float(loss.detach())


def gradient_case(
    model: str, rank: int, world: int, micro: int, zero: int, numbers: list[int], of: Sequence[Row]
) -> dict[str, object]:
    """How far one packed update is from the truth, relative to the largest gradient of each matrix."""
    case = training(model, rank, world, micro, zero_stage=zero)
    case.rows = list(of)
    why_padded = use_packing(case.engine, LONGEST)
    loss, tokens, padded, *_ = run_update(case, numbers, case.lengths)
    found = gradients(case)
    truth, true_loss = expected(model, [of[number] for number in numbers])
    off = max(float((found[name] - truth[name]).abs().max() / truth[name].abs().max()) for name in truth)
    return {
        "case": f"{world} workers, micro {micro}, zero {zero}, {len(numbers)} rows{', weighted' if of is WEIGHTED else ''}",
        "why_padded": why_padded,
        "tokens": tokens,
        "padded": padded,
        "loss_off": abs(loss - true_loss) / true_loss,
        "gradient_off": off,
    }


def lora_case(model: str, rank: int, world: int, zero: int) -> dict[str, object]:
    """How far the losses of five packed updates of an adapter are from those of padded ones."""
    found = []
    for packed in (True, False):
        case = training(model, rank, world, 4, zero_stage=zero, method="lora", lora={"rank": 4, "alpha": 64})
        why_padded = use_packing(case.engine, LONGEST) if packed else None
        losses = [run_update(case, list(range(7)), case.lengths)[0] for _ in range(5)]
        found.append((why_padded, losses))
    (why_padded, packed_losses), (_, padded_losses) = found
    off = max(abs(a - b) / b for a, b in zip(packed_losses, padded_losses, strict=True))
    return {"case": f"lora, {world} workers, zero {zero}", "why_padded": why_padded, "loss_off": off}


def main() -> None:
    joined = join()
    rank, world, model, out = joined.rank, joined.world, joined.model, joined.out
    cases = [gradient_case(model, rank, world, micro, zero, list(range(7)), ROWS) for micro, zero in SETTINGS[world]]
    cases.append(gradient_case(model, rank, world, *SETTINGS[world][0], list(range(7)), WEIGHTED))
    cases.append(gradient_case(model, rank, world, 4, 2, [3], ROWS))  # on two workers one has no row
    cases.append(lora_case(model, rank, world, {1: 2, 2: 3}[world]))
    if world == 1:
        verdicts = {}
        for folder in sorted((out / "models").iterdir()):
            case = training(str(folder), rank, world, 4, zero_stage=0)
            verdicts[folder.name] = (use_packing(case.engine, LONGEST), run_update(case, list(range(7)), case.lengths)[0])
        (out / "verdicts.json").write_text(json.dumps(verdicts))
    if rank == 0:
        (out / f"cases-{world}.json").write_text(json.dumps(cases))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
