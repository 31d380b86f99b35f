"""What the documents name is there: files, commands, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FOLDERS = r"(?:llm2llm_ray|jobs|cluster|tests|benchmarks|docs|locks)"


def named_files(text: str) -> set[str]:
    """Paths in back quotes that begin with one of our folders and end in a file's or a folder's name."""
    return set(re.findall(rf"`({FOLDERS}/[\w./-]*)`", text))


def linked_files(text: str) -> set[str]:
    return {
        target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target and target[0] != "#"
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = {name for name in named_files(text) if not (REPOSITORY / name).exists()}
    missing |= {name for name in linked_files(text) if not (document.parent / name).exists()}
    assert missing == set()


def test_that_look_finds_both_kinds() -> None:
    text = "see `llm2llm_ray/algorithm.py`, `jobs/` and [this](CHANGELOG.md#top), not `run.name` or [that](https://x.y)"
    assert (named_files(text), linked_files(text)) == ({"llm2llm_ray/algorithm.py", "jobs/"}, {"CHANGELOG.md"})


def test_the_architecture_page_walks_through_every_room() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (REPOSITORY / "llm2llm_ray").glob("*/__init__.py")}
    rooms |= {path.parent.name for path in (REPOSITORY / "llm2llm_ray" / "runtime").glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in text} == set()
