"""What a dead run left behind is ended, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm2llm_ray.runtime.driver.leftovers import end_marked
from llm2llm_ray.runtime.environment import RUN_MARK

pytestmark = pytest.mark.integration


def sleeper(folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], env={**os.environ, RUN_MARK: folder})


def test_only_processes_with_this_runs_mark_are_ended(tmp_path: Path) -> None:
    mine, other = sleeper(str(tmp_path / "mine")), sleeper(str(tmp_path / "mine-too"))
    try:
        ended = end_marked(str(tmp_path / "mine"))
        assert [line.split()[0] for line in ended] == [str(mine.pid)]
        assert mine.wait(20) != 0 and other.poll() is None
    finally:
        other.kill()
        mine.kill()
