"""Pairs by hand: contamination.json. `known` are real rows that may show a template."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.types import Example

_CASES = json.loads((Path(__file__).parents[1] / "cases" / "contamination.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", _CASES, ids=[f"{k}: {case['why'][:60]}" for k, case in enumerate(_CASES)])
def test_pair(case: dict[str, Any]) -> None:
    known = [Example(id=f"s-{number}", input=text, output="") for number, text in enumerate(case["known"])]
    gate = HeldOut([Example(id="t", input=case["held_out"], output="")], AugmentationConfig().near_test, known)
    assert (gate.find(case["candidate"]) is not None) == case["near"]
