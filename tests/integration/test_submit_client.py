"""jobs/submit.py with Ray's own client, against a server that speaks the Jobs API and runs nothing. Starts no Ray; seconds."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
TOKEN = "0123456789abcdef-a-token"


@dataclass
class JobServer:
    address: str = ""
    token: str | None = None
    jobs: list[dict[str, Any]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    headers: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[JobServer]:
    state = JobServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: object = "") -> None:
            text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def allowed(self) -> bool:
            state.headers.append(self.headers.get("Authorization"))
            if state.token is None or self.headers.get("Authorization") == f"Bearer {state.token}":
                return True
            self.body()
            self.answer(403 if self.headers.get("Authorization") else 401, "no")
            return False

        def do_GET(self) -> None:
            if not self.allowed():
                return
            if self.path == "/api/version":
                self.answer(200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})
            elif self.path == "/api/jobs/":
                self.answer(200, state.jobs)
            else:
                self.answer(200 if self.path.split("/")[-1] in state.packages else 404)

        def do_PUT(self) -> None:
            if self.allowed():
                state.packages[self.path.split("/")[-1]] = self.body()
                self.answer(200)

        def do_POST(self) -> None:
            if self.allowed():
                job = json.loads(self.body())
                state.submitted.append(job)
                self.answer(200, {"job_id": job["submission_id"], "submission_id": job["submission_id"]})

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()


def submit(server: JobServer, cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, str(REPOSITORY / "jobs" / "submit.py"), str(REPOSITORY / "jobs" / "demo.yaml"), "--no-wait"]
    # RAY_ADDRESS must not win over --address.
    clean |= {"HOME": str(cwd), "RAY_ADDRESS": "http://127.0.0.1:9"} | env
    command += ["--address", server.address, *arguments]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)


def job(id: str, status: str) -> dict[str, Any]:
    return {
        "type": "SUBMISSION",
        "job_id": None,
        "submission_id": id,
        "status": status,
        "entrypoint": "x",
        "metadata": {"llm2llm_run": "demo"},
    }


def test_the_job_that_arrives(server: JobServer, tmp_path: Path) -> None:
    server.jobs = [job("llm2llm-demo", "STOPPED")]
    done = submit(server, tmp_path, "--set", "run.iterations=2")
    assert done.returncode == 0, done.stderr
    (arrived,) = server.submitted
    assert arrived["submission_id"] == "llm2llm-demo-2"
    assert arrived["metadata"]["llm2llm_run"] == "demo"
    assert arrived["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "90"
    assert f'run.folder="{tmp_path}/runs"' in arrived["entrypoint"]
    assert arrived["entrypoint"].startswith(f"exec {sys.executable} -m llm2llm_ray run jobs/demo.yaml --set run.iterations=2 ")
    (package,) = server.packages.values()
    assert len(package) < 2_000_000
    names = set(zipfile.ZipFile(io.BytesIO(package)).namelist())
    assert {
        "jobs/demo.yaml",
        "jobs/data/support/seed.jsonl",
        "jobs/data/support/replies.jsonl.gz",
        "llm2llm_ray/__main__.py",
        "llm2llm_ray/runtime/driver/launch.py",
    } <= names
    assert {name.split("/")[0] for name in names} == {"jobs", "llm2llm_ray"}
    assert set(server.headers) == {None}


def test_a_living_job_of_the_run_is_not_joined_by_another(server: JobServer, tmp_path: Path) -> None:
    server.jobs = [job("llm2llm-demo", "RUNNING")]
    done = submit(server, tmp_path)
    assert (done.returncode, server.submitted, server.packages) == (2, [], {})
    assert "job llm2llm-demo of this run is RUNNING" in done.stderr


def test_the_token_is_sent_and_not_shown(server: JobServer, tmp_path: Path) -> None:
    server.token = TOKEN
    done = submit(server, tmp_path, RAY_AUTH_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert set(server.headers) == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr + json.dumps(server.submitted)


@pytest.mark.parametrize("token", ["", "another-token-0123456789"])
def test_a_missing_or_wrong_token_is_told(server: JobServer, tmp_path: Path, token: str) -> None:
    server.token = TOKEN
    done = submit(server, tmp_path, **({"RAY_AUTH_TOKEN": token} if token else {}))
    assert (done.returncode, server.submitted) == (2, [])
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stdout + done.stderr
