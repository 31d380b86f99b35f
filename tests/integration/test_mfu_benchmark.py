"""benchmarks/training/mfu.py in its small mode: full and LoRA train, at the stage asked for, and tokens and FLOPs are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
REPOSITORY = Path(__file__).parents[2]


def test_full_and_lora_train_and_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "mfu.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.mfu", "--small", "--json", str(file)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(file.read_text())
    full, lora = found["raw"]
    assert found["small"] and (full["method"], lora["method"]) == ("full", "lora")
    for case in (full, lora):
        assert case["engine"]["zero_stage"] == 2 and case["engine"]["dtype"] == "float32"
        assert case["padded_because"] is None and len(case["seconds"]) == 2
        assert 64 * 0.5 <= case["tokens"] <= 64 * 1.5
    # Base weights without a gradient: four FLOPs a token and weight instead of six, and the attention is the same.
    assert full["tokens"] == lora["tokens"] and 4 / 6 < lora["flops"] / full["flops"] < 1
    for claim, case in zip(found["claims"], (full, lora), strict=True):
        middle = sum(case["seconds"]) / 2
        assert claim["value"] == pytest.approx(case["flops"] / middle / 1e12) and claim["met"] is None
