"""What an engine of DeepSpeed held is free again once a training is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
ONE_TRAINING = """
import gc, os, sys, weakref
import torch
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=0, world_size=1)
from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models.tokens import Row
from llm2llm_ray.runtime.training.engine import Progress, let_go, prepare_process, start_engine
from llm2llm_ray.runtime.training.packed_attention import use_packing
from llm2llm_ray.runtime.training.update import Training, run_update
device = prepare_process("cpu", 1)
student = StudentConfig(
    model=sys.argv[1], zero_stage=int(sys.argv[2]), updates=1, global_batch_size=2, micro_batch_size=2, precision="fp32"
)
engine = start_engine(sys.argv[1], student, device="cpu", workers=1, micro=2)
use_packing(engine, 4)
rows = [Row((1, 2, 3, 4), 2), Row((5, 6, 7, 8), 2)]
training = Training(
    student=student, engine=engine, rows=rows, pad_id=0, micro=2, rank=0, workers=1, device=device, total=1, progress=Progress()
)
run_update(training, [0, 1], training.lengths)
held = weakref.ref(engine), weakref.ref(engine.optimizer)
let_go(engine)
del training, engine
gc.collect()
print("left:", *[part() is not None for part in held])
"""


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_nothing_of_a_training_stays_in_its_worker(tmp_path: Path, tiny_model: str, zero: int) -> None:
    """Without `let_go` engine and optimizer stay under ZeRO 1 and 2, with all weights and moments."""
    command = [sys.executable, "-c", ONE_TRAINING, tiny_model, str(zero), str(tmp_path / "meeting")]
    env = os.environ | {"DS_BUILD_OPS": "0", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["left: False False"], done.stderr[-2000:]
