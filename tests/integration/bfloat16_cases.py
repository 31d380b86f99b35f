"""Runs our DeepSpeed engines in bfloat16 at every ZeRO stage, as ranks of ranks.py; what they computed is left in `out`."""

from __future__ import annotations

import torch
from engine_cases import diverging_case, first_moments, training
from ranks import Joined, join

from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.worker import run_update

STAGES = (0, 1, 2, 3)
ALIKE = [Row(tuple(range(5, 13)), 3)] * 128
"""64 rows for each of two ranks: what each pass adds is a 64th of the sum in the end, and a bfloat16 has 8 bits."""
ONE_EACH = [Row(tuple(range(5, 25)), 2), Row(tuple(range(40, 57)), 2)]


def moments_case(joined: Joined, name: str, rows: list[Row], micro: int, zero: int) -> None:
    case = training(
        joined.model, joined.rank, joined.world, micro, zero_stage=zero, precision="bf16", global_batch_size=len(rows)
    )
    case.rows = rows
    run_update(case, list(range(len(rows))), case.lengths)
    moments = first_moments(case.engine)
    if joined.rank == 0:
        torch.save(moments, joined.out / f"{name}-{zero}.pt")


def main() -> None:
    joined = join()
    for zero in STAGES:
        moments_case(joined, "many-passes", ALIKE, 1, zero)
        moments_case(joined, "few-passes", ALIKE, 8, zero)
        moments_case(joined, "one-each", ONE_EACH, 1, zero)
        diverging_case(joined, zero, "bf16")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
