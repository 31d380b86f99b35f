"""What all tests share: how hypothesis searches, and where the real data sets lie. Nothing here starts Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: shared machines are slow in bursts. In CI the same examples each time: a failure there is one of the change.
settings.register_profile("here", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def data_folder() -> Callable[[str], Path]:
    """Name of a real data set -> its folder; skips the test where there is none."""
    root = Path(os.environ.get("LLM2LLM_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no {root / name}: set LLM2LLM_DATA to the folder with the real data sets")
        return root / name

    return folder
