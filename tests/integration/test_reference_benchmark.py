"""benchmarks/reference/whole_loop.py: all three loops run, and do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).parents[2]
LINE = [sys.executable, "-m", "benchmarks.reference.whole_loop", "--small"]


def test_all_three_loops_do_the_same_work(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    done = subprocess.run([*LINE, "--json", str(file)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    laps = {lap["side"]: lap for lap in found["raw"]["laps"]}
    assert set(laps) == {"ours", "careful", "official"} and found["small"] is True
    for side, lap in laps.items():
        first, last = lap["outcome"]["turns"]
        assert first["rows"] == 8 and last["rows"] == 8 + first["accepted"], side
        assert first["asked"] >= first["wrong"] > 0 == last["asked"], side
        assert {span["what"] for span in lap["outcome"]["spans"]} >= {"start", "load", "train", "evaluate", "augment", "gates"}
    answered = {side: [row[4] for row in found["tables"][1]["rows"] if row[0] == side] for side in laps}
    # Where nothing was accepted the student is the same, and our run has its answers already.
    again = 8 if laps["ours"]["outcome"]["turns"][0]["accepted"] else 0
    assert answered["careful"] == [8, 8] and answered["ours"] == [8, again]
    assert answered["official"] == [turn["rows"] for turn in laps["official"]["outcome"]["turns"]]
