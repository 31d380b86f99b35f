"""Where the real data for tests lies, and a skip with a reason where it does not."""

import json
import os
from pathlib import Path
from typing import Any

import pytest


def data_folder(test_file: Path) -> Path:
    """`shared/data` in a folder above the checkout (a clone beside it, or a worktree farther down), or what LLM2LLM_DATA says."""
    if named := os.environ.get("LLM2LLM_DATA"):
        return Path(named)
    places = [parent / "shared" / "data" for parent in test_file.resolve().parents[3:]]
    return next((place for place in places if place.is_dir()), places[0])


DATA = data_folder(Path(__file__))


def real_rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {path}: set LLM2LLM_DATA to the folder with the real data sets")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def real_folder(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {DATA / name}: set LLM2LLM_DATA to the folder with the real data sets")
    return str(DATA / name)
