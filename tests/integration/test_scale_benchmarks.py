"""benchmarks/overhead/overlap.py and scale.py in their small modes: each part is given the rows it should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]


def measured(name: str, model: str, folder: Path) -> dict[str, Any]:
    file = folder / "measured.json"
    command = [sys.executable, "-m", f"benchmarks.overhead.{name}", "--small", "--model", model, "--json", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(file.read_text())


def test_evaluating_and_augmenting_are_measured_alone_and_together(tiny_model: str, tmp_path: Path) -> None:
    found = measured("overlap", tiny_model, tmp_path)
    kinds = ("working", "with start")
    assert [claim["what"] for claim in found["claims"]] == [f"service-time engines: together / sum, {kind}" for kind in kinds]
    assert found["small"] and all(claim["met"] is None for claim in found["claims"]), "a small run asks nothing"
    (spans,) = found["raw"]
    assert spans["together"]["rows"] == spans["evaluate"]["rows"] == found["settings"]["rows"]
    assert 0 < spans["augment"]["rows"] < spans["evaluate"]["rows"], "the teacher alone is given the wrong rows only"


def test_two_replicas_are_given_twice_the_rows_of_one(tiny_model: str, tmp_path: Path) -> None:
    found = measured("scale", tiny_model, tmp_path)
    assert [claim["what"] for claim in found["claims"]] == [f"{count} replicas: share of linear" for count in (1, 2)]
    assert all(claim["met"] is None for claim in found["claims"]), "a small run asks nothing"
    one, two = found["raw"]["replicas"]
    slots, waves, service_s = (found["settings"][name] for name in ("slots", "waves", "service_s"))
    for line, replicas in ((one, 1), (two, 2)):
        assert (line["replicas"], line["rows"]) == (replicas, replicas * slots * waves)
        assert line["linear"] == pytest.approx(replicas * slots / service_s)
