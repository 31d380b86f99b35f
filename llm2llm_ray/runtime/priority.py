"""Who goes first of what this run started: the models, on cores and when memory is gone. Nobody falls behind other people's work.

A model computes on all cores at once and is as fast as the slowest of them: whatever takes one core for a moment in the middle of
a step makes the others wait. So what stands around the models is put a few levels behind them. Not last: a process of the lowest
priority gets a hundredth of a core beside any other busy program, and the models would wait for it.
"""

from __future__ import annotations

import contextlib
import os
import threading

from llm2llm_ray.runtime.environment import COMPUTES

AT_START = f"{__name__}.at_start"
"""Ray calls it in every worker process of a job that begins (its `worker_process_setup_hook`), Serve's and Ray Data's own too."""
LEVELS = 5
"""Of niceness. Beside a busy program that has none, a process keeps a third of what it would get without."""
STARTING_S = 60.0
"""So long a process has the priority that Ray gave it, unless it says sooner that it `stands`: at a run's start no model computes
yet, and all that starts would wait behind other programs."""
_LAST = 19
_GPUS = ("/dev/nvidiactl", "/dev/kfd")
_OOM_SCORE = "/proc/self/oom_score_adj"
_GIVEN_WAY = threading.Lock()
"""Held by who has: levels are counted from what a process had."""


def at_start() -> None:
    """On a node with a GPU nothing changes on the cores: its models do not compute there."""
    if COMPUTES in os.environ:
        return
    outlive_models()
    if not any(map(os.path.exists, _GPUS)):
        later = threading.Timer(STARTING_S, give_way)
        later.daemon = True
        later.start()


def stands() -> None:
    """Of a process that works beside the models from now on: it gives way at once."""
    if COMPUTES not in os.environ and not any(map(os.path.exists, _GPUS)):
        give_way()


def give_way() -> None:
    """Put all threads of this process, and those that they start, behind the models; once. There is no way back without root."""
    if not _GIVEN_WAY.acquire(blocking=False):
        return
    try:
        threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    except FileNotFoundError:  # where priorities are the process's: macOS
        threads = [0]
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, min(_LAST, os.getpriority(os.PRIO_PROCESS, thread) + LEVELS))


def outlive_models() -> None:
    """When memory is gone, the kernel ends Ray's workers before any other program and the largest first: Ray raises the score of
    each to the top. This process is judged by its own size again, so that a model goes, which frees most and is started anew."""
    with contextlib.suppress(OSError), open(_OOM_SCORE, "w") as file:  # no Linux, or not allowed
        file.write("0")
