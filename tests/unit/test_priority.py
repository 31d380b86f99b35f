"""Everything that is not a model goes behind the models, by a few levels, and is not killed in their place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from llm2llm_ray.runtime import priority

_TOLD = """
import os, threading
from llm2llm_ray.runtime.priority import give_way
over = threading.Event()
threading.Thread(target=over.wait).start()
give_way()
threading.Thread(target=over.wait).start()
give_way()
print([os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")])
child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "5"])
print(os.getpriority(os.PRIO_PROCESS, child))
os.kill(child, 9)
over.set()
"""


def test_all_threads_give_way_those_that_were_there_and_those_that_come() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    told = subprocess.run([sys.executable, "-c", _TOLD], capture_output=True, text=True, check=True).stdout.splitlines()
    levels = before + 5
    assert told == [str([levels] * 3), str(levels)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of a process that is no model, on a node without a GPU: an entry for each time that it gave way."""
    called: list[bool] = []
    monkeypatch.setattr(priority, "give_way", lambda: called.append(True))
    monkeypatch.setattr(priority, "outlive_models", lambda: None)  # it would change this process
    monkeypatch.setattr(priority, "_GPUS", ("/dev/no-such-device",))
    monkeypatch.delenv(priority.COMPUTES, raising=False)
    return called


def timers() -> list[threading.Timer]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.parametrize(("computes", "gpu", "gives_way"), [(False, False, True), (True, False, False), (False, True, False)])
def test_models_and_nodes_with_a_gpu_keep_their_priority(
    computes: bool, gpu: bool, gives_way: bool, given: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority, "STARTING_S", 0.0)
    if gpu:
        monkeypatch.setattr(priority, "_GPUS", ("/dev/null",))
    if computes:
        monkeypatch.setenv(priority.COMPUTES, "1")
    priority.at_start()
    for timer in timers():
        timer.join()
    assert given == [True] * gives_way
    priority.stands()
    assert given == [True, True] * gives_way


def test_what_starts_keeps_its_priority_until_it_stands(given: list[bool]) -> None:
    """No model computes yet, and a start behind other programs takes minutes."""
    priority.at_start()
    (waiting,) = timers()
    waiting.cancel()
    assert waiting.interval >= 30 and waiting.daemon and given == []
    priority.stands()
    assert given == [True]


def test_ray_finds_what_it_is_to_call() -> None:
    module, _, name = priority.AT_START.rpartition(".")
    assert getattr(sys.modules[module], name) is priority.at_start


@pytest.mark.skipif(not os.path.exists("/proc/self/oom_score_adj"), reason="Linux only")
@pytest.mark.parametrize(("computes", "score"), [(False, "0"), (True, "1000")])
def test_what_is_no_model_is_judged_by_its_own_size_when_memory_is_gone(computes: bool, score: str) -> None:
    """As a worker of Ray's begins: with the score that its raylet gave it."""
    code = (
        "from pathlib import Path\nscore = Path('/proc/self/oom_score_adj')\nscore.write_text('1000')\n"
        "from llm2llm_ray.runtime.priority import at_start\nat_start()\nprint(score.read_text())"
    )
    env = {name: value for name, value in os.environ.items() if name != priority.COMPUTES}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=env | ({priority.COMPUTES: "1"} if computes else {}),
    )  # fmt: skip
    assert done.stdout.strip() == score
