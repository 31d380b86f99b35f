"""cluster/: manifests against schemas, the facts they must agree on, and the local cluster's bookkeeping. Ray is not started.

`ray up`'s validator and what Ray's autoscaler makes of the RayCluster: integration/test_cluster_yaml.py.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llm2llm_ray.config.file import load_config
from llm2llm_ray.config.profiles import POOL_LABEL, PROFILES
from llm2llm_ray.runtime.environment import JOB, values

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
sys.path.insert(0, str(CLUSTER))

import local_cluster  # noqa: E402

KUBERNETES = "1.34"
SCHEMA = json.loads((REPOSITORY / "tests" / "cases" / "kuberay_schema.json").read_text())
DOCUMENTS = {
    f"{path.stem}:{document['kind']}": document
    for path in sorted(CLUSTER.glob("kuberay-*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
RAY_DOCUMENTS = {name: document for name, document in DOCUMENTS.items() if document["apiVersion"] == "ray.io/v1"}
RAY_CLUSTER = DOCUMENTS["kuberay-raycluster:RayCluster"]["spec"]
RAY_JOB = DOCUMENTS["kuberay-rayjob:RayJob"]["spec"]
RAY_UP = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def pods() -> dict[str, Any]:
    groups = {group["groupName"]: group["template"] for group in RAY_CLUSTER["workerGroupSpecs"]}
    return {"head": RAY_CLUSTER["headGroupSpec"]["template"], **groups}


def constant(file: str, name: str) -> Any:
    """A module's literal constant, read without importing the module (it imports ray)."""
    for node in ast.parse((REPOSITORY / "llm2llm_ray" / file).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} has no {name}")


# Kubernetes.


@pytest.mark.parametrize("name", RAY_DOCUMENTS)
def test_the_operators_fields_and_types(name: str) -> None:
    assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(RAY_DOCUMENTS[name])] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.workerGroupSpecs.0.labels", {POOL_LABEL: True}),
        ("spec.workerGroupSpecs.0.replicas", "1"),
        ("spec.workerGroupSpecs.0.minReplica", 1),
        ("spec.headGroupSpec.rayStartParams", {"num-cpus": 0}),
        ("spec.authOptions.secret", "x"),
        ("spec.authOptions.mode", "basic"),
        ("spec.autoscalerOptions.version", 2),
        ("spec.enableInTreeAutoscaling", "true"),
        ("spec.backoffLimit", 3),
        ("kind", "RayService"),
    ],
)
def test_the_schema_refuses(path: str, value: object) -> None:
    document = copy.deepcopy(DOCUMENTS["kuberay-raycluster:RayCluster"])
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part)] if part.isdigit() else place[part]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize("pod", pods())
def test_pods_against_kubernetes_own_schema(pod: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="the package kubernetes-validate is not installed")
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pods()[pod]}
    kubernetes.validate(template, KUBERNETES, strict=True)
    broken = copy.deepcopy(template)
    broken["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in RAY_DOCUMENTS])
def test_the_other_objects_against_kubernetes_own_schema(name: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="the package kubernetes-validate is not installed")
    kubernetes.validate(DOCUMENTS[name], KUBERNETES, strict=True)
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(DOCUMENTS[name] | {"specification": {}}, KUBERNETES, strict=True)


def test_job_and_cluster_are_the_same_machines() -> None:
    assert RAY_JOB["rayClusterSpec"] == RAY_CLUSTER


@pytest.mark.parametrize("pod", pods())
def test_every_pod_has_shared_memory_and_the_shared_volume(pod: str) -> None:
    spec = pods()[pod]["spec"]
    (container,) = spec["containers"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    claim = volumes[mounted["/shared"]]["persistentVolumeClaim"]["claimName"]
    assert claim == DOCUMENTS["kuberay-storage:PersistentVolumeClaim"]["metadata"]["name"]
    assert container["image"] == RAY_UP["docker"]["image"]
    assert f"-t {container['image']} " in DOCKERFILE
    env = {item["name"]: item["value"] for item in container["env"]}
    assert env["LLM2LLM_CACHE"].startswith("/shared/")
    assert env["HF_HOME"].startswith("/shared/")


def test_only_pods_with_the_token_belong_to_the_cluster() -> None:
    assert RAY_CLUSTER["authOptions"]["mode"] == "token"
    assert RAY_CLUSTER["authOptions"]["secretName"]
    assert "--env RAY_AUTH_MODE=token" in RAY_UP["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in RAY_UP["file_mounts"]


def test_no_file_holds_a_token() -> None:
    for path in CLUSTER.iterdir():
        if path.is_file():
            assert not re.search(r"RAY_AUTH_TOKEN[\"']?\s*[:=]\s*[\"']?[0-9a-zA-Z]{8,}", path.read_text()), path


def test_the_pools_are_those_of_the_profile() -> None:
    wanted = PROFILES["pools"]["cluster"]["labels"]
    assert {group["groupName"]: group["labels"] for group in RAY_CLUSTER["workerGroupSpecs"]} == wanted
    node_types = RAY_UP["available_node_types"]
    assert {name: kind["labels"] for name, kind in node_types.items() if "labels" in kind} == wanted
    assert {pool: {local_cluster.POOL_LABEL: pool} for pool in local_cluster.POOLS} == wanted


def test_a_pool_is_never_empty_and_may_grow() -> None:
    for group in RAY_CLUSTER["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert RAY_CLUSTER["enableInTreeAutoscaling"] is True
    node_types = RAY_UP["available_node_types"]
    assert sum(kind.get("max_workers", 0) for kind in node_types.values()) <= RAY_UP["max_workers"]


def test_the_rayjob_runs_a_config_that_loads_and_a_retry_finds_its_run(tmp_path: Path) -> None:
    shipped = DOCUMENTS["kuberay-rayjob:ConfigMap"]
    (name, text), *none = shipped["data"].items()
    assert none == []
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name)
    mounts = pods()["head"]["spec"]["containers"][0]["volumeMounts"]
    folder = {mount["name"]: mount["mountPath"] for mount in mounts}["run"]
    volumes = {volume["name"]: volume for volume in pods()["head"]["spec"]["volumes"]}
    assert volumes["run"]["configMap"]["name"] == shipped["metadata"]["name"]
    assert RAY_JOB["entrypoint"] == f"python -m llm2llm_ray run {folder}/{name}"
    assert config.cluster.profile == "pools"
    assert config.run.folder.startswith("/shared/")
    assert RAY_JOB["backoffLimit"] >= 1


def test_a_stopped_rayjob_may_drain() -> None:
    env = yaml.safe_load(RAY_JOB["runtimeEnvYAML"])["env_vars"]
    drain = constant("runtime/driver/following.py", "DRAIN_S")
    assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) >= drain + 15
    assert pods()["head"]["spec"]["terminationGracePeriodSeconds"] >= drain + 15
    assert env.keys().isdisjoint(values(JOB))


# The image.


def test_the_image_is_built_from_pinned_parts_that_exist() -> None:
    (base,) = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-devel-ubuntu24\.04", base)
    for line in re.findall(r"pip install (?:--\S+ )*(.+)$", DOCKERFILE, re.MULTILINE):
        for package in line.split():
            assert "==" in package or package == "'/opt/src[gpu]'", package
    sources = [source for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()]
    let_in = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert f"!{source}" in let_in


def test_versions_are_those_of_the_project() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f"ray[llm,default,data,serve,train]=={RAY_CLUSTER['rayVersion']}" in project
    (torch,) = re.findall(r"torch==[\d.]+", DOCKERFILE)
    assert torch in (REPOSITORY / "Makefile").read_text()


# The cluster on one machine.


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    local_cluster.write_record(
        tmp_path, {"gcs": "127.0.0.1:6479", "dashboard": "http://127.0.0.1:8265", "token": None, "raylets": []}
    )
    yield tmp_path
    local_cluster.stop(tmp_path)


def test_a_started_raylet_is_recorded_and_stopped_with_its_children_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "STOP_TIMEOUT_S", 2)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        # A child that ignores SIGTERM, as an engine in a long computation does.
        script = f"sh -c 'trap \"\" TERM; sleep 60' & echo '{local_cluster.STARTED}'; wait"
        local_cluster.launch("train", ["sh", "-c", script], folder, {"PATH": "/bin:/usr/bin"})
        (raylet,) = local_cluster.recorded(folder)
        process = local_cluster.process_of(raylet)
        assert process is not None
        family = [process, *process.children(recursive=True)]
        assert len(family) >= 2
        assert local_cluster.stop(folder) == ["train"]
        assert [member.pid for member in family if member.is_running() and member.status() != "zombie"] == []
        assert bystander.poll() is None
        assert local_cluster.stop(folder) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_a_pid_that_came_to_name_another_process_is_left_alone(folder: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        old = local_cluster.Raylet(name="train", pid=bystander.pid, started=1_000_000.0)
        local_cluster.add_record(folder, old)
        assert local_cluster.process_of(old) is None
        assert local_cluster.stop(folder) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_raylet_that_does_not_start_is_told_with_its_log(folder: Path) -> None:
    with pytest.raises(local_cluster.ClusterError, match="no such gcs"):
        local_cluster.launch("teacher", ["sh", "-c", "echo no such gcs; exit 1"], folder, {"PATH": "/bin:/usr/bin"})


def test_a_failed_start_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = ["sh", "-c", f"echo '{local_cluster.STARTED}'; exec sleep 60"]
    monkeypatch.setattr(local_cluster, "head_command", lambda *_: up)
    monkeypatch.setattr(local_cluster, "worker_command", lambda *_: ["sh", "-c", "exit 1"])
    started: list[local_cluster.Raylet] = []
    record = local_cluster.add_record
    monkeypatch.setattr(local_cluster, "add_record", lambda folder, raylet: (started.append(raylet), record(folder, raylet)))
    port, dashboard = local_cluster.free_ports(2)
    folder = Path("/tmp") / f"l2c-{tmp_path.name[-20:]}"  # pytest's own folders are too long for Ray's sockets
    given = argparse.Namespace(folder=folder, port=port, dashboard_port=dashboard, pools="train", cpus=1, no_token=False)
    try:
        with pytest.raises(local_cluster.ClusterError, match="train did not start"):
            local_cluster.start(given)
        assert [raylet.name for raylet in started] == ["head", "train"]
        assert [raylet for raylet in started if local_cluster.process_of(raylet)] == []
        assert not (folder / "auth_token").exists()
    finally:
        local_cluster.stop(folder)
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = argparse.Namespace(
            folder=Path("/tmp/l2c-taken"), port=port, dashboard_port=1, pools="train", cpus=1, no_token=True
        )
        with pytest.raises(local_cluster.ClusterError, match=f"--port {port}"):
            local_cluster.start(given)


def test_raylets_carry_their_pool_and_share_no_port(tmp_path: Path) -> None:
    ports = local_cluster.free_ports(6)
    commands = [local_cluster.head_command(6479, 8265, ports[:3], tmp_path)]
    commands += [
        local_cluster.worker_command(pool, pool, 6479, 2, [port])
        for pool, port in zip(local_cluster.POOLS, ports[3:], strict=True)
    ]
    told = [dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part) for command in commands]
    assert [options.get("--labels") for options in told] == [None, *(f"{POOL_LABEL}={pool}" for pool in local_cluster.POOLS)]
    used = [value for options in told for name, value in options.items() if name.endswith("-port") and value != "0"]
    assert len(used) == len(set(used)) == 8
    assert {options["--node-ip-address"] for options in told} == {"127.0.0.1"}


def test_the_token_is_a_private_file_and_never_printed(folder: Path) -> None:
    token = local_cluster.make_token(folder)
    assert token.stat().st_mode & 0o777 == 0o600
    env = local_cluster.ray_env(token)
    assert (env["RAY_AUTH_MODE"], env["RAY_AUTH_TOKEN_PATH"]) == ("token", str(token))
    assert token.read_text() not in env.values()
    local_cluster.write_record(folder, {"gcs": "g", "dashboard": "d", "token": str(token), "raylets": []})
    told = local_cluster.client_env(folder)
    assert told["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert token.read_text() not in "".join(told.values()) + (folder / "cluster.json").read_text()


def test_without_a_token_the_mode_is_said_too(folder: Path) -> None:
    assert local_cluster.ray_env(None)["RAY_AUTH_MODE"] == "disabled"
    assert local_cluster.client_env(folder)["RAY_AUTH_MODE"] == "disabled"
