"""The server of recorded replies, in Serve's own mode without a cluster, and how it is deployed: as a vLLM engine is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.serve._private.common import DeploymentID, ReplicaID

from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import ClusterConfig, EngineConfig
from llm2llm_ray.runtime.models.hand_off import WrongWeights
from llm2llm_ray.runtime.serving.engines import EngineSpec, _application, deployment_options
from llm2llm_ray.runtime.streaming.transports import RepliesRoute, RepliesTransport
from llm2llm_ray.types import Prompt, Reply

ASKED = Request(
    row_id="r", prompt=Prompt(text="Write one."), sampling={"temperature": 1.0, "max_tokens": 9, "seed": 3}, attempt=1
)


def recorded(folder: Path, name: str, reply: str, **other: Any) -> tuple[str, str]:
    """Path and sha of a file with one reply to `ASKED`."""
    file = folder / name
    line = {"prompt": {"text": "Write one."}, "attempt": 1, "reply": reply, "model": "m", "completion_tokens": 2, **other}
    file.write_text(json.dumps(line))
    return str(file), hashlib.sha256(file.read_bytes()).hexdigest()


def spec(path: str, sha: str, **engine: Any) -> EngineSpec:
    return EngineSpec(
        role="teacher", app="llm2llm-x-teacher", model=path, sha=sha, engine=EngineConfig(**engine), replies="mine.jsonl",
        latency_s=0.0,
    )  # fmt: skip


def application(of: EngineSpec, **cluster: Any) -> serve.Application:
    return _application(of, ClusterConfig(**cluster), device="cpu", run_folder="/runs/x")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reply]:
    """Asks an application that serves `first.jsonl`, by a route that may mean another file."""
    replica = ReplicaID(unique_id="abc", deployment_id=DeploymentID(name="teacher"))
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(replica_id=replica))  # which that mode lacks
    path, sha = recorded(tmp_path, "first.jsonl", "one <think>so</think>two")
    handle = serve.run(application(spec(path, sha)), name="llm2llm-x-teacher", route_prefix=None, _local_testing_mode=True)

    def ask(weights: tuple[str, str] = (path, sha), request: Request = ASKED) -> Reply:
        transport = RepliesTransport.__new__(RepliesTransport)  # its own start wants a cluster
        transport._handle, transport._on_retry = handle, lambda: None
        transport._route = RepliesRoute(app="llm2llm-x-teacher", weights=weights)
        return asyncio.run(transport.ask(request))

    return ask


def test_a_reply_comes_from_the_file_with_its_model_and_its_sha(asked: Callable[..., Reply], tmp_path: Path) -> None:
    reply = asked()
    assert (reply.text, reply.reasoning, reply.finish_reason, reply.completion_tokens) == ("one\ntwo", "so", "stop", 2)
    assert reply.model == "m" and "abc" in reply.replica
    assert reply.weights_sha == recorded(tmp_path, "again.jsonl", "one <think>so</think>two")[1]


def test_what_is_not_there_is_told_and_what_was_refused_when_it_was_asked_is_refused(
    asked: Callable[..., Reply], tmp_path: Path
) -> None:
    missing = asked(request=replace(ASKED, ordinal=4))
    assert missing.error == "not_recorded: mine.jsonl has no reply to this prompt at ordinal 4, attempt 1"
    assert (missing.finish_reason, missing.text) == ("error", "")
    refused = recorded(tmp_path, "refused.jsonl", "", error="content_filter: no", finish_reason="error")
    assert asked(weights=refused).error == "content_filter: no"


def test_another_file_is_taken_when_a_request_means_it_and_only_if_it_is_that_one(
    asked: Callable[..., Reply], tmp_path: Path
) -> None:
    other = recorded(tmp_path, "other.jsonl", "three")
    assert [asked(weights=other).text, asked().text, asked(weights=other).weights_sha] == ["three", "one\ntwo", other[1]]
    with pytest.raises(WrongWeights, match=rf"other\.jsonl: the replies there are {other[1]}, not 0ther as they were"):
        asked(weights=(other[0], "0ther"))


@pytest.mark.parametrize("engine", [{"replicas": 2, "max_num_seqs": 4}, {"replicas": 2, "max_replicas": 5, "max_num_seqs": 4}])
def test_it_is_deployed_with_the_queues_health_checks_and_replicas_of_an_engine(engine: dict[str, int]) -> None:
    deployment = application(spec("/x", "5ha", **engine))._bound_deployment
    config, options = deployment._deployment_config, deployment_options(EngineConfig(**engine))
    assert (config.max_ongoing_requests, config.max_queued_requests) == (5, 20)
    assert config.health_check_timeout_s == options["health_check_timeout_s"]
    if "max_replicas" in engine:
        scaling = config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 2)
    else:
        assert config.num_replicas == 2
    assert deployment.version == "5ha", "deployed again it is scaled in place"


def test_it_stands_on_the_nodes_of_the_teacher_and_takes_no_gpu() -> None:
    options = application(spec("/x", "5ha"), labels={"teacher": {"pool": "teacher"}})._bound_deployment.ray_actor_options
    assert options["label_selector"] == {"pool": "teacher"} and not options.get("num_gpus")
    assert "label_selector" not in application(spec("/x", "5ha"))._bound_deployment.ray_actor_options
    assert options["runtime_env"]["env_vars"]["LLM2LLM_RUN"] == "/runs/x", "what a dead run leaves is found by it"
