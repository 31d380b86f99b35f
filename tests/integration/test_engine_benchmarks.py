"""The engine benchmarks run end to end on a tiny model: both sides answer the same requests, and the JSON says what was done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
PROMPTS = 16


@pytest.mark.parametrize("name", ["evaluation", "teacher"])
def test_the_small_mode_asks_both_sides_the_same_and_tells_what_it_measured(name: str, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    line = [sys.executable, "-m", f"benchmarks.engines.{name}", "--small", "--json", str(told)]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(told.read_text())
    assert found["small"] and all(claim["met"] is None for claim in found["claims"]), "a small run asks nothing"
    assert found["claims"][0]["what"] == f"{name}: ours / bare vLLM, generated tokens per second"
    assert found["tables"][0]["title"] == "First submission to last answer" and len(found["tables"][0]["rows"]) == 1
    ours, bare = found["raw"]["passes"]
    assert (ours["side"], bare["side"]) == ("ours", "bare")
    assert ours["requests"] == bare["requests"] == PROMPTS
    assert ours["prompt_tokens"] == bare["prompt_tokens"] > 0 and min(ours["generated"], bare["generated"]) > 0
    if name == "evaluation":  # greedy: near ties may fall either way
        same = found["claims"][1]
        assert same["what"] == "evaluation: share of answers that are the same, greedy" and same["value"] > 0.8
