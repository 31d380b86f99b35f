"""`make test`: every part is run to its end, and one that failed is named and fails the whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# Says what it was called for, and leaves with the number that stands in the file of this name, if there is one.
COMMAND = """#!/bin/sh
case "$(basename "$0") $*" in
  *tests/unit*) name=unit ;;
  *tests/integration*) name=integration ;;
  "ruff format"*) name=format ;;
  *) name=$(basename "$0") ;;
esac
echo "$name" >> {log}
exit "$(cat {codes}/$name 2> /dev/null || echo 0)"
"""


def make_test(folder: Path, **codes: int) -> tuple[int, list[str], list[str]]:
    """With the tools of an environment that does nothing: exit code, what was called, and the last three lines."""
    log, tools = folder / "called", folder / "venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff", "mypy"):
        (tools / name).write_text(COMMAND.format(log=log, codes=folder))
        (tools / name).chmod(0o755)
    for name, code in codes.items():
        (folder / name).write_text(str(code))
    (folder / "venv" / ".installed").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # we may stand below a make
    line = ["make", "test", f"VENV={folder / 'venv'}", "PYTHON=sh"]
    done = subprocess.run(line, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    return done.returncode, log.read_text().split(), done.stdout.splitlines()[-3:]


ALL = ["ruff", "format", "mypy", "unit", "integration"]


@pytest.mark.parametrize(
    ("failing", "part"),
    [("ruff", "check"), ("format", "check"), ("mypy", "check"), ("unit", "unit"), ("integration", "integration")],
)
def test_a_part_that_fails_keeps_none_from_running(tmp_path: Path, failing: str, part: str) -> None:
    code, called, told = make_test(tmp_path, **{failing: 1})
    assert called == ALL
    assert told == [f"{name}: {'FAILED' if name == part else 'passed'}" for name in ("check", "unit", "integration")]
    assert code == 2


def test_all_that_pass_pass(tmp_path: Path) -> None:
    code, called, told = make_test(tmp_path)
    assert (code, called) == (0, ALL)
    assert told == ["check: passed", "unit: passed", "integration: passed"]


def test_tests_that_nobody_found_have_not_passed(tmp_path: Path) -> None:
    code, _, told = make_test(tmp_path, integration=5)
    assert told[2] == "integration: FAILED" and code == 2
