"""What this Ray cluster computes on, and connecting to it."""

from __future__ import annotations

import os
from typing import Any, Literal

import ray

from llm2llm_ray.config import ClusterConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.priority import AT_START
from llm2llm_ray.schedule import LOGICAL_CPUS

Device = Literal["cpu", "gpu"]
NAMESPACE = "llm2llm"


def driver_name(run: str) -> str:
    """The driver actor of a run, in `NAMESPACE`."""
    return f"driver-{run}"


def connect(cluster: ClusterConfig, *, env: dict[str, str]) -> bool:
    """Join the configured (or the surrounding job's) cluster, or start one here. Returns whether it is ours to stop."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "WARNING"}
    if address:
        ray.init(address=address, runtime_env={"env_vars": env, "worker_process_setup_hook": AT_START}, **common)
        return False
    os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")  # engine processes die with their replica
    # A worker process costs seconds of a laptop's CPU to start: keep those of one stage for the next. Not more: each wakes a
    # hundred times per second for as long as it idles, 1 % of a core.
    os.environ.setdefault("RAY_num_workers_soft_limit", "4")
    # Ray would put its workers, engines and trainings among them, behind everybody: what is around the models gives way instead.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Workers that it starts ahead have not our environment, and so never get work.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # Its log monitor lists all log files ten times per second, to send their lines where nobody listens (log_to_driver).
    os.environ.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0")
    os.environ.setdefault("LOG_NAME_UPDATE_INTERVAL_S", "30")
    # Ray's agent looks at every process of the node each 5 s, for a dashboard that is not there.
    os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "30000")
    # Nobody takes this node away with notice, for which Ray Train would keep an actor that asks every 5 s.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    ray.init(
        address="local",
        num_cpus=max(LOGICAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
        runtime_env={"env_vars": env, "worker_process_setup_hook": AT_START},
        **common,
    )
    return True


def device_of(cluster: ClusterConfig) -> Device:
    """cpu or gpu, as asked for or as found; UserError when GPUs are asked for and there are none."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if cluster.device == "gpu" and not gpus:
        raise UserError(
            "cluster.device: gpu was asked for, but this Ray cluster has no GPU; use cluster.device=cpu (or auto), or name a "
            "cluster that has one in cluster.address"
        )
    return "gpu" if cluster.device != "cpu" and gpus else "cpu"
