"""What `llm2llm doctor` can only learn by importing the heavy libraries, in a process of its own: JSON, the last line of stdout.

    python -m llm2llm_ray.runtime.doctor_probe [--address RAY_ADDRESS]

A library that cannot be imported (a wrong build, a missing system library) is told as such and breaks nothing else. Looking
at a GPU and joining a cluster were not run (there was neither).
"""

from __future__ import annotations

import argparse
import importlib
import json
import socket
import sys
from typing import Any

LIBRARIES = ("torch", "ray", "deepspeed", "transformers", "peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address")
    given = parser.parse_args()
    told: dict[str, Any] = {"libraries": {name: imported(name) for name in LIBRARIES}}
    told["gpus"] = gpus() if told["libraries"]["torch"]["error"] is None else []
    if given.address and told["libraries"]["ray"]["error"] is None:
        told["cluster"] = cluster(given.address)
    sys.stdout.flush()
    print("\n" + json.dumps(told))


def imported(name: str) -> dict[str, Any]:
    """{"version", "error"}: any way an import of others' code can fail is a finding here, not a crash of ours."""
    try:
        library = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        return {"version": None, "error": f"{type(error).__name__}: {error}"[:300]}
    return {"version": str(getattr(library, "__version__", "")), "error": None}


def gpus() -> list[dict[str, Any]]:
    """What torch can compute on. Not run with a GPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        about = torch.cuda.get_device_properties(index)
        found.append({"name": about.name, "memory_gib": total / 2**30, "free_gib": free / 2**30, "bf16": about.major >= 8})
    return found


def cluster(address: str) -> dict[str, Any]:
    """Resources and node labels of a running cluster. Not run against one."""
    import ray
    from ray.exceptions import RayError

    try:
        reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, RayError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    nodes = [node for node in ray.nodes() if node["Alive"]]
    told = {
        "error": None,
        "resources": ray.cluster_resources(),
        "available": ray.available_resources(),
        "nodes": [{"resources": node["Resources"], "labels": node.get("Labels", {})} for node in nodes],
    }
    ray.shutdown()
    return told


def reach(address: str) -> None:
    """Raises OSError when nothing answers at host:port: Ray itself would go on trying for more than a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


if __name__ == "__main__":
    main()
