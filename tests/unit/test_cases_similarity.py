"""Hard pairs, written by somebody who did not know the code: near_duplicate.json."""

import json
from pathlib import Path

import pytest

from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.config import AugmentationConfig

_CASES = json.loads((Path(__file__).parents[1] / "cases" / "near_duplicate.json").read_text())
_THRESHOLD = AugmentationConfig().near_duplicate


@pytest.mark.parametrize("case", _CASES, ids=[f"{k}: {case['why'][:60]}" for k, case in enumerate(_CASES)])
def test_pair(case: dict[str, str]) -> None:
    for stored, asked in ((case["a"], case["b"]), (case["b"], case["a"])):
        index = NearDuplicates(_THRESHOLD)
        index.add("stored", stored)
        assert (index.find(asked) is not None) == case["duplicate"]
