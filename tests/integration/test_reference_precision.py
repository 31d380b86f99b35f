"""benchmarks/reference/whole_loop.py: its two single-process loops in bfloat16, which they take on a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
REPOSITORY = Path(__file__).parents[2]
LINE = [sys.executable, "-m", "benchmarks.reference.whole_loop", "--small"]


def test_both_loops_train_and_answer_in_bfloat16(tmp_path: Path) -> None:
    file, kept = tmp_path / "reference.json", tmp_path / "kept"
    command = [*LINE, "--sides", "careful", "official", "--json", str(file)]
    command += ["--set", "student.precision=bf16", "--set", "run.iterations=1", "--keep", str(kept)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    laps = {lap["side"]: lap for lap in json.loads(file.read_text())["raw"]["laps"]}
    (careful,), (official,) = laps["careful"]["outcome"]["turns"], laps["official"]["outcome"]["turns"]
    assert careful == official and careful["updates"] == 3 and careful["evaluated"] == 8
    config = json.loads((kept / "careful-0" / "student" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
