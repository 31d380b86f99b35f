"""Every environment variable that we set, by the processes that read it: what for, and the test that would notice its loss.

Nothing else in the package writes one. A variable that the user has set already wins where it is ours to choose (`OUR_RAY`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RUN_MARK = "LLM2LLM_RUN"
"""Marks every process of a run with its folder; `driver.leftovers` recognises what a dead run left behind by it."""
COMPUTES = "LLM2LLM_COMPUTES"
"""Of worker processes that models compute in, or that start one: `priority` leaves them what Ray gave them."""


@dataclass(frozen=True, slots=True)
class Variable:
    """Example: Variable("RAY_worker_niceness", "0", "…", "integration/test_loop.py::test_…")"""

    name: str
    value: str
    why: str
    noticed_by: str
    """file::test below tests/ that fails when the variable loses its effect."""


OUR_RAY = (
    Variable("RAY_USAGE_STATS_ENABLED", "0", "nothing is sent anywhere", "unit/test_environment.py::test_its_reader_sees_it"),
    Variable(
        "RAY_process_group_cleanup_enabled",
        "1",
        "engine processes die with their replica (vllm#55510)",
        "unit/test_environment.py::test_the_raylet_knows_them",
    ),
    Variable(
        "RAY_num_workers_soft_limit",
        "4",
        "a worker process costs seconds of a laptop's processor to start, so those of one stage are kept for the next; not more, "
        "as each wakes a hundred times per second while it idles, 1 % of a core",
        "unit/test_environment.py::test_the_raylet_knows_them",
    ),
    Variable(
        "RAY_worker_niceness",
        "0",
        "Ray would put all its workers behind everybody, engines and trainings too: what is around the models gives way instead",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    Variable(
        "RAY_memory_monitor_refresh_ms",
        "0",
        "above 95 % of the machine's memory, whoever holds it, Ray kills its newest workers, which are the small ones around the "
        "models; left to the kernel, which ends nothing while memory lasts, and then what frees most (`priority.at_start`)",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    Variable(
        "RAY_prestart_worker_first_driver",
        "0",
        "workers started ahead have not our environment, and so never get work",
        "unit/test_environment.py::test_the_raylet_knows_them",
    ),
    Variable(
        "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD",
        "0",
        "the log monitor lists all log files ten times per second, to send their lines where nobody listens (log_to_driver)",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "LOG_NAME_UPDATE_INTERVAL_S",
        "30",
        "with the one before: how often it lists them then",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "REPORTER_UPDATE_INTERVAL_MS",
        "30000",
        "Ray's agent looks at every process each 5 s, for a dashboard that is not there",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
        "0",
        "nobody takes this node away with notice, for which Ray Train would keep an actor that asks every 5 s",
        "unit/test_environment.py::test_their_readers_still_have_these_names",
    ),
)
"""In the process that starts a local Ray; its daemons inherit them."""

JOB = (
    Variable(
        "RAY_DATA_DISABLE_PROGRESS_BARS",
        "1",
        "they would fight with ours",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable("VLLM_NO_USAGE_STATS", "1", "nothing is sent anywhere", "unit/test_environment.py::test_its_reader_sees_it"),
    Variable(
        "TOKENIZERS_PARALLELISM",
        "false",
        "tokenizers warn and fall back after a fork; rows are short",
        "unit/test_environment.py::test_tokenizers_start_no_threads",
    ),
)
"""In every worker process of the job."""

SERVE = (
    Variable(
        "RAY_SERVE_USE_GRPC_BY_DEFAULT",
        "1",
        "a request goes to the replica's own gRPC server (each has one, behind Ray's token) instead of as an actor task: "
        "half of the processor time of a call and its answer",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD",
        "0",
        "crosses no thread in the replica",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP",
        "0",
        "nor in the asker; handles are then called from a running loop only",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE",
        "1000",
        "log lines are written in batches",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS",
        "1000",
        "counters are sent once per second, not at every request",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
)
"""In replicas and askers: what Ray Serve's throughput mode sets."""

CPU_ENGINE = (
    Variable(
        "VLLM_CPU_OMP_THREADS_BIND",
        "nobind",
        "bound threads of two engines would share one core and leave the other idle",
        "unit/test_environment.py::test_its_reader_sees_it",
    ),
    Variable(
        "OMP_WAIT_POLICY",
        "PASSIVE",
        "threads that spin would take the core from the other engine",
        "unit/test_environment.py::test_openmp_says_so",
    ),
    Variable(
        "RAYLLM_VLLM_ENGINE_CLS",
        "llm2llm_ray.runtime.serving.cpu_engine.CpuEngine",
        "the model runs in the engine's process",
        "integration/test_engines.py::test_the_model_runs_in_the_engines_own_process",
    ),
)
"""In engines that compute on CPU."""

CPU_TRAINING = (
    Variable(
        "DS_ACCELERATOR",
        "cpu",
        "else it looks for a GPU",
        "unit/test_environment.py::test_deepspeed_computes_on_cpu",
    ),
    *(
        Variable(
            name,
            value,
            "glibc gives freed gradients back to the kernel and takes them again at every update, half of whose time then goes "
            "into page faults; kept instead",
            "unit/test_environment.py::test_freed_memory_is_kept",
        )
        for name, value in (
            ("MALLOC_ARENA_MAX", "1"),
            ("MALLOC_MMAP_MAX_", "0"),
            ("MALLOC_TRIM_THRESHOLD_", str(2**33)),
            ("MALLOC_TOP_PAD_", str(2**28)),
        )
    ),
    Variable(
        "GOMP_SPINCOUNT",
        "5000",
        "a thread spins for some 0.2 ms at a barrier before it sleeps: an update has thousands of them, most over by then",
        "unit/test_environment.py::test_openmp_says_so",
    ),
)
"""In training workers on CPU."""


def values(variables: Sequence[Variable]) -> dict[str, str]:
    return {variable.name: variable.value for variable in variables}


def prepare_our_ray() -> None:
    """For a local Ray that this process is about to start. What the user set stays."""
    for variable in OUR_RAY:
        os.environ.setdefault(variable.name, variable.value)


def send_no_usage() -> None:
    """For a process that only joins a Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def use_token() -> None:
    """For a process that will join a Ray by its address, before it imports Ray: one that a run started for itself asks for this
    user's token, and Ray sends that by itself only to a Ray that it finds itself."""
    kept = (Path.home() / ".ray" / "auth_token").is_file()
    if kept or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def wait_for_workers(seconds: int) -> None:
    """Ray Train's controller takes RAY_TRAIN_* from its caller; the default of 60 s would have to do for a node's start."""
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(seconds)


def engine(run_folder: str, *, cpu_threads: int | None) -> dict[str, str]:
    """Of an engine's replica; `cpu_threads` where it computes on CPU."""
    found = {RUN_MARK: run_folder, COMPUTES: "1", **values(JOB[1:]), **values(SERVE)}
    return found if cpu_threads is None else found | values(CPU_ENGINE) | {"OMP_NUM_THREADS": str(cpu_threads)}


def replies_server(run_folder: str) -> dict[str, str]:
    """Of a replica that has no model."""
    return {RUN_MARK: run_folder, **values(JOB[2:]), **values(SERVE)}


def training_worker(run_folder: str, *, on_cpu: bool, threads: int | None) -> dict[str, str]:
    found = {RUN_MARK: run_folder, COMPUTES: "1", **values(JOB[2:])}
    if on_cpu:
        found |= values(CPU_TRAINING) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    return found


def deepspeed_on_cpu(workers_here: int) -> Mapping[str, str]:
    """Set by the worker itself, before DeepSpeed is imported: its CPU accelerator counts devices by LOCAL_SIZE."""
    found = {"DS_ACCELERATOR": "cpu", "LOCAL_SIZE": str(workers_here)}
    os.environ.update(found)
    return found
