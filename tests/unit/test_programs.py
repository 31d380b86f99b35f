"""Who holds the memory of this machine: a real process that holds some is found, by a name that a person knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm2llm_ray.programs import Program, largest_programs

HELD = 200 * 2**20
_HOLDS = "import sys, time\nheld = b'x' * int(sys.argv[1])\nprint('holds', flush=True)\ntime.sleep(120)\n"


def named(name: str, programs: list[Program]) -> list[Program]:
    return [program for program in programs if program.name.endswith(name)]


def test_what_a_process_of_ours_and_one_of_others_hold(tmp_path: Path) -> None:
    for name in ("ours.py", "others.py"):
        (tmp_path / name).write_text(_HOLDS)
    command = [sys.executable, str(tmp_path / "ours.py"), str(HELD)]
    # The shell ends at once, and what it started is nobody's child here.
    apart = f"{sys.executable} {tmp_path / 'others.py'} {HELD} > {tmp_path / 'told'} 2>&1 & echo $!"
    other = int(subprocess.run(["sh", "-c", apart], capture_output=True, text=True, check=True).stdout)
    mine = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in mine:
            assert process.stdout is not None and process.stdout.readline() == "holds\n"
        while not (tmp_path / "told").read_text():
            time.sleep(0.01)
        ours, others = largest_programs(1000)
    finally:
        os.kill(other, signal.SIGKILL)
        for process in mine:
            process.kill()
            process.wait()
    (found,) = named("others.py", others)
    assert (found.pid, found.processes) == (other, 1)
    assert 200 <= found.gib * 1024 < 300, "200 MiB, and what Python itself takes"
    (found,) = named("ours.py", ours)
    assert found.pid in {process.pid for process in mine} and found.processes == 2
    assert 400 <= found.gib * 1024 < 600
    assert not named("ours.py", others) and not named("others.py", ours)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (Program(name="python train.py", pid=4121, processes=1, gib=14.04), "python train.py 14.0 GiB (pid 4121)"),
        (Program(name="firefox", pid=812, processes=32, gib=6.25), "firefox 6.2 GiB (pid 812 and 31 more)"),
    ],
)
def test_how_it_is_told(program: Program, told: str) -> None:
    assert str(program) == told
