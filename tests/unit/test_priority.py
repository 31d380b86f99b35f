"""Everything that is not a model goes last."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llm2llm_ray.runtime import priority

_TOLD = """
import os, threading
from llm2llm_ray.runtime.priority import give_way
over = threading.Event()
threading.Thread(target=over.wait).start()
give_way()
threading.Thread(target=over.wait).start()
print([os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")])
child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "5"])
print(os.getpriority(os.PRIO_PROCESS, child))
os.kill(child, 9)
over.set()
"""


def test_all_threads_give_way_those_that_were_there_and_those_that_come() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    told = subprocess.run([sys.executable, "-c", _TOLD], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == ["[19, 19, 19]", "19"]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.parametrize(("computes", "gpu", "gives_way"), [(False, False, True), (True, False, False), (False, True, False)])
def test_models_and_nodes_with_a_gpu_keep_their_priority(
    computes: bool, gpu: bool, gives_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(priority, "give_way", lambda: called.append(True))
    monkeypatch.setattr(priority, "_GPUS", ("/dev/null",) if gpu else ("/dev/no-such-device",))
    monkeypatch.delenv(priority.COMPUTES, raising=False)
    if computes:
        monkeypatch.setenv(priority.COMPUTES, "1")
    priority.at_start()
    assert called == [True] * gives_way


def test_ray_finds_what_it_is_to_call() -> None:
    module, _, name = priority.AT_START.rpartition(".")
    assert getattr(sys.modules[module], name) is priority.at_start
