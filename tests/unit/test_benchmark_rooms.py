"""The rooms of benchmarks/: every file in one, imports of `measuring` and of the room itself only, and commands that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "benchmarks").rglob("*.py"))
PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/*.md"), *REPOSITORY.glob("jobs/*")]
LINES, COMMAND = 300, re.compile(r"python -m (benchmarks(?:\.[a-z_]+)+)")


def room_of(path: Path) -> str:
    return path.relative_to(REPOSITORY / "benchmarks").parts[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_file_has_a_room_and_every_room_says_what_it_measures() -> None:
    loose = [path.name for path in FILES if path.parent.name == "benchmarks"]
    assert loose == ["__init__.py"]
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_room_imports_itself_and_what_all_share(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("benchmarks.")}
    assert rooms <= {room_of(path), "measuring"}, "a room may use `measuring`, and no other"
    siblings = {other.stem for other in FILES} - {"__init__"}
    assert not imported(path) & siblings, "modules of benchmarks/ are imported by their whole name"


def test_the_package_knows_no_benchmark() -> None:
    known = [path for path in REPOSITORY.glob("llm2llm_ray/**/*.py") if any("benchmarks" in name for name in imported(path))]
    assert known == []


def test_the_commands_that_pages_and_docstrings_name_exist() -> None:
    texts = [*(path for path in PAGES if path.is_file()), *FILES, *REPOSITORY.glob("tests/**/*.py"), REPOSITORY / "Makefile"]
    named = {name for path in texts for name in COMMAND.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 10
    missing = [name for name in named if not (REPOSITORY / (name.replace(".", "/") + ".py")).is_file()]
    assert missing == []
