"""A vLLM plugin: on CPU, an engine and its worker sleep while they wait for each other.

vLLM 0.29 runs the model in a process of its own, and both ends of the queue between them spin for a second after each message
(`SpinCondition`, sched_yield in Python): good where a GPU computes, but on a few cores the spinning takes its share of a step's
time from the threads that compute. Registered under `vllm.general_plugins`, which vLLM loads in each of its processes; acts only
where LLM2LLM_QUIET_WAIT is set. Where the package is not installed (a job's working dir on a cluster) the engine spins as before.
"""

from __future__ import annotations

import os

ENV = "LLM2LLM_QUIET_WAIT"


def register() -> None:
    if os.environ.get(ENV) != "1":
        return
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    SpinCondition.__init__.__defaults__ = (0.0,)  # busy_loop_s: straight to the socket that every write pings
