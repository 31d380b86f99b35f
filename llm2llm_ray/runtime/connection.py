"""What this Ray cluster computes on, and connecting to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray._private import ray_constants

from llm2llm_ray.config import ClusterConfig
from llm2llm_ray.config.schedule import LOGICAL_CPUS
from llm2llm_ray.errors import UserError
from llm2llm_ray.machine import Device
from llm2llm_ray.runtime import environment
from llm2llm_ray.runtime.priority import AT_START

NAMESPACE = "llm2llm"


def driver_name(run: str) -> str:
    """The driver actor of a run, in `NAMESPACE`."""
    return f"driver-{run}"


def connect(cluster: ClusterConfig, *, env: Mapping[str, str] | None = None) -> bool:
    """Join the configured (or the surrounding job's) cluster, or start one here. Returns whether it is ours to stop.

    `env` comes on top of what every worker process of the job has (`environment.JOB`).
    """
    env_vars = {**environment.values(environment.JOB), **(env or {})}
    environment.send_no_usage()
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "WARNING"}
    if address:
        ray.init(address=address, runtime_env={"env_vars": env_vars, "worker_process_setup_hook": AT_START}, **common)
        return False
    environment.prepare_our_ray()
    start_workers_as_we_were_started()
    ray.init(
        address="local",
        num_cpus=max(LOGICAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
        runtime_env={"env_vars": env_vars, "worker_process_setup_hook": AT_START},
        **common,
    )
    return True


def start_workers_as_we_were_started() -> None:
    """By this interpreter. Behind `uv run` Ray would have every worker process start uv again, which syncs the project each time
    (and fails offline), and would upload the working folder. A cluster of others keeps that: its nodes may need it.
    """
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False


def device_of(cluster: ClusterConfig) -> Device:
    """cpu or gpu, as asked for or as found; UserError when GPUs are asked for and there are none."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if cluster.device == "gpu" and not gpus:
        raise UserError(
            "cluster.device: gpu was asked for, but this Ray cluster has no GPU; use cluster.device=cpu (or auto), or name a "
            "cluster that has one in cluster.address"
        )
    return "gpu" if cluster.device != "cpu" and gpus else "cpu"
