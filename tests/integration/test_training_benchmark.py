"""benchmarks/training.py in its small mode: packed is faster, and computes the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


def test_the_small_benchmark_says_packed_is_faster_and_computes_the_same(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    words = ["where", "when", "how", "which", "who", "what", "why", "is", "the", "a", "of", "in", "on", "at", "far", "long"]
    texts = [" ".join(words[(n * k) % len(words)] for k in range(3, 5 + n * n % 14)) for n in range(1200)]
    data.write_text("".join(json.dumps({"text": text, "label": "NUM"}) + "\n" for text in texts))
    command = [sys.executable, "benchmarks/training.py", "--small", "--data", str(data), "--json", str(tmp_path / "result.json")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["small"] and all(claim["met"] for claim in result["claims"])
    assert [claim["what"].rpartition(" / ")[2] for claim in result["claims"][:2]] == [
        "Trainer, dynamic padding",
        "Trainer, padded to 256",
    ]
    sides = result["raw"]["rounds"]["32"]
    # The same examples in the same updates: the same student.
    assert abs(sides["ours"][0]["loss"] - sides["dynamic"][0]["loss"]) < 1e-3
