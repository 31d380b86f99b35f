"""The engines of student, teacher and judge: Ray Serve applications that live as long as the run, of vLLM or of recorded replies.

Weights change by `load_weights` and replica counts by `scale_engine`, both without a restart. Names carry the run, so that only
this run's applications are ever deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from ray import serve
from ray.serve.handle import DeploymentHandle

from llm2llm_ray.config import ClusterConfig, EngineConfig
from llm2llm_ray.runtime import environment

LOAD_TIMEOUT_S = 600


def in_flight_of(slots: int) -> int:
    """Requests that a replica of `slots` takes at once: a quarter waits in it, so that one follows as a sequence ends."""
    return max(2, int(slots * 1.25))


def queues(slots: int) -> dict[str, Any]:
    """Options of a deployment whose replicas work on `slots` requests at once."""
    return {
        "max_ongoing_requests": in_flight_of(slots),
        "max_queued_requests": 4 * in_flight_of(slots),
        "logging_config": {"enable_access_log": False},  # a line for each request
    }


def deployment_options(engine: EngineConfig) -> dict[str, Any]:
    """What Serve is told of a deployment, whatever its replicas run: queues, health, how many of them."""
    options: dict[str, Any] = {
        **queues(engine.max_num_seqs),
        "ray_actor_options": {"num_cpus": 0.1},
        "health_check_period_s": 10,
        "health_check_timeout_s": 60,
        "graceful_shutdown_timeout_s": 20,
    }
    if engine.max_replicas and engine.max_replicas > engine.replicas:
        autoscaling = {
            "min_replicas": engine.replicas,
            "initial_replicas": engine.replicas,
            "max_replicas": engine.max_replicas,
            "target_ongoing_requests": max(1, int(engine.max_num_seqs * 0.7)),
        }
        return options | {"autoscaling_config": autoscaling}
    return options | {"num_replicas": engine.replicas}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine of one run. Example: EngineSpec(role="student", app="llm2llm-demo-student", model="/…/base", sha="9f…")"""

    role: Literal["student", "teacher", "judge"]
    app: str
    model: str
    sha: str
    engine: EngineConfig
    replies: str | None = None
    """File of recorded replies, as the user named it, that is served instead of a model; `model` is then where nodes find it."""
    latency_s: float = 0.0
    """Service time of a recorded reply."""


def app_name(run: str, role: str) -> str:
    return f"llm2llm-{run}-{role}"


def import_engines() -> None:
    """vLLM's import, which takes ten seconds; most users of this module only name or delete applications."""

    import llm2llm_ray.runtime.serving.server  # noqa: F401


def start_engines(specs: Sequence[EngineSpec], cluster: ClusterConfig, *, device: str, run_folder: str) -> None:
    """Bring up the applications side by side and return when all are running; one that runs already is kept."""
    serve.start(proxy_location="Disabled")  # requests go by handle: no HTTP hop
    running = serve.status().applications
    targets = [
        serve.RunTarget(_application(spec, cluster, device=device, run_folder=run_folder), name=spec.app, route_prefix=None)
        for spec in specs
        if spec.app not in running or running[spec.app].status != "RUNNING"
    ]
    # Engines that share a GPU measure its free memory when they start, so they start one after the other there.
    one_by_one = device == "gpu" and cluster.gpus_per_engine < 1
    for group in [[target] for target in targets] if one_by_one else [targets]:
        if group:
            serve.run_many(group)


def identities(app: str) -> list[dict[str, Any]]:
    """Each replica's name, node id, pid and weights, told by itself."""
    return list(engine_handle(app).broadcast("identity").results(timeout_s=LOAD_TIMEOUT_S))


def scale_engine(spec: EngineSpec, cluster: ClusterConfig, *, device: str, run_folder: str) -> None:
    """Bring a running application to the replicas that `spec` names; replicas that stay go on undisturbed.

    Returns when it has them. Replicas that go end their open requests first (`graceful_shutdown_timeout_s`).
    """
    application = _application(spec, cluster, device=device, run_folder=run_folder)
    serve.run_many([serve.RunTarget(application, name=spec.app, route_prefix=None)])


def _application(spec: EngineSpec, cluster: ClusterConfig, *, device: str, run_folder: str) -> serve.Application:
    labels = cluster.labels.get("student" if spec.role == "student" else "teacher")
    if spec.replies is not None:
        return _replies_application(spec, labels, run_folder)
    # Not at the top: see `import_engines`.
    from ray.serve.llm import build_llm_deployment

    from llm2llm_ray.runtime.serving.server import EngineServer

    application = build_llm_deployment(
        llm_config(spec, cluster, device=device, run_folder=run_folder),
        deployment_cls=EngineServer,
        bind_kwargs={"weights_sha": spec.sha},
        # One selector stands for all bundles of the replica's placement group.
        override_serve_options={"placement_group_bundle_label_selector": [labels]} if labels else None,
    )
    # Deployed again under the same version it is scaled in place; Serve would invent a new one each time and restart all.
    application._bound_deployment = application._bound_deployment.options(version=spec.sha, _internal=True)
    return application


def _replies_application(spec: EngineSpec, labels: Mapping[str, str] | None, run_folder: str) -> serve.Application:
    """Its version is the sha, as an engine's: deployed again under the same it is scaled in place."""
    from llm2llm_ray.runtime.serving.replies_server import RepliesServer

    options = deployment_options(spec.engine)
    options["ray_actor_options"] |= {"runtime_env": {"env_vars": environment.replies_server(run_folder)}}
    options["ray_actor_options"] |= {"label_selector": dict(labels)} if labels else {}
    deployment = serve.deployment(RepliesServer, name=spec.role).options(**options, version=spec.sha, _internal=True)
    slots = spec.engine.max_num_seqs
    application: serve.Application = deployment.bind(
        spec.model, spec.sha, file=spec.replies, slots=slots, service_s=spec.latency_s
    )
    return application


def stop_engines(run: str) -> list[str]:
    """Delete this run's applications and no others. Returns their names."""
    # Whole names: run "demo" must not take those of run "demo-2".
    mine = sorted({app_name(run, role) for role in ("student", "teacher", "judge")} & serve.status().applications.keys())
    with ThreadPoolExecutor(max(1, len(mine))) as beside:  # each takes three seconds to end
        list(beside.map(serve.delete, mine))
    return mine


def engine_handle(app: str) -> DeploymentHandle:
    return serve.get_app_handle(app)


def load_weights(app: str, path: str, sha: str) -> list[dict[str, Any]]:
    """Load weights into every replica of `app`; the broadcast runs only because its results are awaited."""
    return list(engine_handle(app).broadcast("load", path, sha).results(timeout_s=LOAD_TIMEOUT_S))


def rest_engines(specs: Sequence[EngineSpec]) -> None:
    """Every replica frees its GPU until the next request (`cluster.share_gpu`). Not run."""
    for answers in [engine_handle(spec.app).broadcast("rest") for spec in specs]:
        answers.results(timeout_s=LOAD_TIMEOUT_S)


def llm_config(spec: EngineSpec, cluster: ClusterConfig, *, device: str, run_folder: str) -> Any:
    """ray.serve.llm's LLMConfig for this engine on this device."""
    from ray.serve.llm import LLMConfig

    engine = spec.engine
    kwargs: dict[str, Any] = {
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "dtype": engine.dtype if engine.dtype != "auto" else native_dtype(device),
        "tensor_parallel_size": engine.tensor_parallel,
        "enable_prefix_caching": True,
        "worker_extension_cls": "llm2llm_ray.runtime.serving.tied_head.TiedHead",
        "seed": 0,
    }
    threads = (cluster.threads or os.cpu_count() or 1) if device == "cpu" else None
    if device == "cpu":
        kwargs |= {"enforce_eager": True, "kv_cache_memory_bytes": int(engine.kv_cache_gib * 2**30)}
        # vLLM's own is 128 on CPU: a shared prompt prefix is only kept in whole blocks, and most of ours are shorter than one.
        kwargs |= {"block_size": 32}
        # vLLM 0.29 on CPU: a prompt that is cut into chunks while its request has a seed rewinds the seed's generator, which
        # torch cannot do on CPU, and the engine dies ("CPU Generator does not use offset"). So prompts are never cut.
        kwargs |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(2048, engine.max_model_len)}
        bundle = {"CPU": 0.1}
    else:
        kwargs |= {"gpu_memory_utilization": engine.gpu_memory_utilization, "enable_sleep_mode": cluster.share_gpu}
        bundle = {"CPU": 1, "GPU": cluster.gpus_per_engine}
    return LLMConfig(
        model_loading_config={"model_id": spec.role, "model_source": spec.model},
        engine_kwargs=kwargs | engine.engine_kwargs,
        placement_group_config={"bundle_per_worker": bundle},
        deployment_config=deployment_options(engine),
        runtime_env={"env_vars": environment.engine(run_folder, cpu_threads=threads)},
        log_engine_metrics=True,
        callback_config={"callback_class": "llm2llm_ray.runtime.serving.server.ModelIsThere"},
    )


def native_dtype(device: str) -> str:
    """bfloat16, unless this is a CPU that only emulates it: seen here (AVX-512 without BF16), 2 to 3 times slower than float32.

    Looks at the node that starts the engines, which stands for the others.
    """
    if device == "gpu" or not os.path.exists("/proc/cpuinfo"):
        return "bfloat16"
    with open("/proc/cpuinfo") as stream:
        flags = set(next((line for line in stream if line.startswith("flags")), "").split())
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16"} else "float32"
