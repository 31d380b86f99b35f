"""Who goes first on cores that the models share with what stands around them.

A model computes on all cores at once and is as fast as the slowest of them: whatever takes one core for a moment in the middle of
a step makes the others wait. 500 evaluation prompts on 2 cores took 37 and 41 s with equal priorities, 27 to 29 s with these.
"""

from __future__ import annotations

import contextlib
import os

from llm2llm_ray.runtime.environment import COMPUTES

AT_START = f"{__name__}.at_start"
"""Ray calls it in every worker process of a job that begins (its `worker_process_setup_hook`), Serve's and Ray Data's own too."""
_LAST = 19
_GPUS = ("/dev/nvidiactl", "/dev/kfd")


def at_start() -> None:
    """On a node with a GPU nothing changes: its models do not compute on the cores."""
    if COMPUTES not in os.environ and not any(map(os.path.exists, _GPUS)):
        give_way()


def give_way() -> None:
    """Put all threads of this process, and those that they start, behind everybody else's. There is no way back without root."""
    try:
        threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    except FileNotFoundError:  # where priorities are the process's: macOS
        threads = [0]
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, _LAST)
