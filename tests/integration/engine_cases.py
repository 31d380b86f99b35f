"""Runs real DeepSpeed engines as one of the ranks of ranks.py, and leaves what they computed in `out`."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from ranks import Joined, join

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.completions import told_by
from llm2llm_ray.runtime.training.engine import Progress, prepare_process, start_engine
from llm2llm_ray.runtime.training.student_folder import export_student
from llm2llm_ray.runtime.training.update import NotFinite
from llm2llm_ray.runtime.training.worker import Training, run_update
from llm2llm_ray.storage.files import Files

ROWS = [Row(tuple(range(5 + i, 12 + 3 * i)), 3 + i % 4) for i in range(7)]
"""7 rows of 7 to 19 tokens with completions of different length: not divisible by 2 workers or by 4."""
WEIGHTS = [1.0, 0.5, 2.0, 1.0, 0.1, 1.0, 3.0]
PROBE = [[5, 9, 17, 33, 65, 129, 257, 300]]


def training(model: str, rank: int, world: int, micro: int, **settings: object) -> Training:
    student = StudentConfig.model_validate(
        {"model": model, "workers": world, "global_batch_size": 8, "gradient_clipping": 1e9, "learning_rate": 1e-3} | settings
    )
    device = prepare_process("cpu", 1)
    engine = start_engine(model, student, device="cpu", workers=world, micro=micro)
    return Training(
        student=student,
        engine=engine,
        rows=ROWS,
        pad_id=3,
        micro=micro,
        rank=rank,
        workers=world,
        device=device,
        total=4,
        progress=Progress(),
    )


def first_moments(engine: object) -> dict[str, torch.Tensor]:
    """Adam's first moments after one update: a tenth of the gradient, with nothing done to it."""
    from deepspeed.utils import safe_get_full_optimizer_state

    named = list(engine.module.named_parameters())  # type: ignore[attr-defined]
    if engine.zero_optimization_stage() == 0:  # type: ignore[attr-defined]
        state, optimizer = engine.basic_optimizer.state, engine.optimizer  # type: ignore[attr-defined]
        masters = {p: p for _, p in named}
        if engine.bfloat16_enabled():  # type: ignore[attr-defined]
            pairs = zip(chain(*optimizer.fp16_groups), chain(*optimizer.fp32_groups), strict=True)
            masters = dict(pairs)
        return {n: state[masters[p]]["exp_avg"].clone() for n, p in named}
    return {name: safe_get_full_optimizer_state(p, "exp_avg").clone() for name, p in named}


def gradient_case(
    model: str, rank: int, world: int, micro: int, zero: int, out: Path, weights: list[float] | None = None
) -> None:
    case = training(model, rank, world, micro, zero_stage=zero)
    if weights:
        case.rows = [replace(row, weight=weight) for row, weight in zip(ROWS, weights, strict=True)]
    loss, tokens, padded, known, scored = run_update(case, list(range(7)), case.lengths)
    moments = first_moments(case.engine)
    if rank == 0:
        result = {"loss": loss, "tokens": tokens, "padded": padded, "known": known, "scored": scored, "moments": moments}
        torch.save(result, out / f"{'weighted' if weights else 'gradient'}-{world}-{micro}-{zero}.pt")


CLIPPED = 0.05
"""Total norm; that of the first gradient is some 20 times as large."""


def clipped_case(model: str, rank: int, world: int, zero: int, out: Path, **settings: object) -> None:
    case = training(model, rank, world, 4, zero_stage=zero, gradient_clipping=CLIPPED, **settings)
    run_update(case, list(range(7)), case.lengths)
    moments = first_moments(case.engine)
    if rank == 0:
        torch.save(
            {"optimizer": type(case.engine.basic_optimizer).__name__, "moments": moments}, out / f"clipped-{world}-{zero}.pt"
        )


def diverging_case(joined: Joined, zero: int, precision: str) -> None:
    """A finite loss, and the last rank's gradient of one weight infinite. What each rank says of it, or "went on"."""
    case = training(joined.model, joined.rank, joined.world, 4, zero_stage=zero, precision=precision, gradient_clipping=1.0)
    if joined.rank == joined.world - 1:
        case.engine.module.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    said = "went on"
    try:
        run_update(case, list(range(7)), case.lengths)
    except NotFinite as error:
        said = str(error)
    (joined.out / f"diverging-{joined.world}-{zero}-{precision}-{joined.rank}").write_text(said)


def lora_case(model: str, rank: int, world: int, zero: int, out: Path) -> None:
    """Train an adapter, keep the engine's own logits, export."""
    from transformers import AutoTokenizer

    settings = {"gradient_clipping": 1.0} if zero == 0 else {}
    case = training(model, rank, world, 2, zero_stage=zero, method="lora", lora={"rank": 4, "alpha": 64}, **settings)
    for _ in range(5):
        run_update(case, list(range(7)), case.lengths)
    case.engine.eval()
    with torch.no_grad():
        logits = case.engine(input_ids=torch.tensor(PROBE)).logits
    files = Files(str(out))
    tokenizer = AutoTokenizer.from_pretrained(model)
    target = f"lora-{world}-{zero}"
    export_student(case.engine, tokenizer, {}, told_by(case), start=model, student=case.student, files=files, target=target)
    if rank == 0:
        torch.save(logits, out / f"lora-{world}-{zero}.pt")


def main() -> None:
    joined = join()
    rank, world, model, out = joined.rank, joined.world, joined.model, joined.out
    cases = {1: [(1, 0), (4, 0), (4, 2), (8, 1)], 2: [(1, 0), (4, 2), (1, 3), (4, 3)]}[world]
    for micro, zero in cases:
        gradient_case(model, rank, world, micro, zero, out)
    for micro, zero in {1: [(1, 0), (4, 0)], 2: [(1, 2), (4, 3)]}[world]:
        gradient_case(model, rank, world, micro, zero, out, WEIGHTS)
    for zero in {1: (0, 2), 2: (0,)}[world]:
        clipped_case(model, rank, world, zero, out)
    for zero in {1: (0, 2), 2: (0, 1, 2, 3)}[world]:
        diverging_case(joined, zero, "fp32")
    for zero in {1: (0, 2), 2: (3,)}[world]:
        lora_case(model, rank, world, zero, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
