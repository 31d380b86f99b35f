"""benchmarks/training/throughput.py in its small mode: the same examples for both sides, packed computes what padded does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


def test_the_small_benchmark_trains_both_sides_on_the_same(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    words = ["where", "when", "how", "which", "who", "what", "why", "is", "the", "a", "of", "in", "on", "at", "far", "long"]
    texts = [" ".join(words[(n * k) % len(words)] for k in range(3, 5 + n * n % 14)) for n in range(60)]
    data.write_text("".join(json.dumps({"text": text, "label": "NUM"}) + "\n" for text in texts))
    command = [
        sys.executable,
        "-m",
        "benchmarks.training.throughput",
        "--small",
        "--data",
        str(data),
        "--json",
        str(tmp_path / "result.json"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    speed, loss, gradient = result["claims"]
    assert speed["what"] == "training, 8 per update: real tokens/s, ours / Trainer, dynamic padding"
    assert result["small"] and speed["met"] is None, "a small run asks nothing of times"
    assert (loss["at_most"], gradient["at_most"], loss["met"], gradient["met"]) == (1e-4, 1e-4, True, True)
    (ours,), (dynamic,) = (result["raw"]["rounds"]["8"][side] for side in ("ours", "dynamic"))
    assert ours["updates"] == dynamic["updates"] == 2 and ours["tokens"] == dynamic["tokens"]
    assert ours["computed"] == ours["tokens"] < dynamic["computed"], "packed has no padding"
    assert abs(ours["loss"] - dynamic["loss"]) < 1e-3, "the same examples in the same updates: the same student"
