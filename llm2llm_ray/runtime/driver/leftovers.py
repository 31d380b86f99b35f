"""After an unclean death: remove what the dead run left behind, its own Serve applications and processes and no others.

A run's processes carry its folder in the environment (`RUN_MARK`); vLLM's engine processes inherit it and outlive a
replica that was killed (vllm#55510). Called under the run's lease, so no live run can own what it finds.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import ray
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from llm2llm_ray.runtime.environment import RUN_MARK
from llm2llm_ray.runtime.serving.engines import stop_engines

_GRACE_S = 10.0


def sweep(run: str, run_folder: str) -> dict[str, list[str]]:
    """Returns what was removed: {"apps": names, "processes": "node: pid command"}."""
    apps = stop_engines(run) if _serve_is_up() else []
    remote = ray.remote(num_cpus=0)(end_marked)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    ended = ray.get(
        [
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(run_folder)
            for node in nodes
        ]
    )
    return {
        "apps": apps,
        "processes": [f"{node[:8]}: {line}" for node, lines in zip(nodes, ended, strict=True) for line in lines],
    }


def _serve_is_up() -> bool:
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return bool(serve.status())


def end_marked(run_folder: str) -> list[str]:
    """End this node's processes whose environment carries the run's mark: SIGTERM, then SIGKILL. Returns them."""
    found = {pid: command for pid, command in _marked(run_folder).items() if pid != os.getpid()}
    for pid in found:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    while found.keys() & _marked(run_folder).keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in found.keys() & _marked(run_folder).keys():
        _signal(pid, signal.SIGKILL)
    return [f"{pid} {command}" for pid, command in found.items()]


def _marked(run_folder: str) -> dict[int, str]:
    wanted = f"{RUN_MARK}={run_folder}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue  # ended meanwhile, or another user's
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
