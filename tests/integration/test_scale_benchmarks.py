"""benchmarks/overlap.py and scale.py in their small modes: the commands run, and their ratios point the right way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.alone]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def measured(script: str, model: str, folder: Path) -> dict[str, Any]:
    file = folder / "measured.json"
    command = [sys.executable, str(BENCHMARKS / script), "--small", "--model", model, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(file.read_text())


def test_evaluating_and_augmenting_together_is_shorter_than_one_after_the_other(tiny_model: str, tmp_path: Path) -> None:
    found = measured("overlap.py", tiny_model, tmp_path)
    assert found["small"] and len(found["claims"]) == 2
    spans = found["raw"][0]
    assert spans["together"]["rows"] == spans["evaluate"]["rows"] == found["settings"]["rows"]
    assert 0 < spans["augment"]["rows"] < spans["evaluate"]["rows"], "the teacher alone is given the wrong rows only"
    assert spans["together"]["working"] < spans["evaluate"]["working"] + spans["augment"]["working"]


def test_a_second_replica_brings_a_third_more_at_least(tiny_model: str, tmp_path: Path) -> None:
    one, two = measured("scale.py", tiny_model, tmp_path)["raw"]["replicas"]
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert two["rate"] > 1.33 * one["rate"]
    assert one["rate"] <= one["linear"] and two["rate"] <= two["linear"], "no faster than the slots allow"
