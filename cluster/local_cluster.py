"""A Ray cluster of several raylets on this one machine, for trying out pools: a head without CPUs and one raylet for each pool.

    python cluster/local_cluster.py start          # head, train, student, teacher; everything listens on 127.0.0.1
    eval "$(python cluster/local_cluster.py env)"  # the token, for jobs/submit.py and llm2llm
    python cluster/local_cluster.py stop

Each raylet carries the label llm2llm.io/pool. What was started is written to FOLDER/cluster.json before the next thing is, and
`stop` ends those processes and their descendants, never others (`ray stop` would end every Ray of this machine). All raylets
share this machine's cores and memory: it shows placement, not speed. GPUs are left out, as each raylet would offer all of them.
Run on 2026-11-22 with three pools on 2 cores: up in 58 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

POOLS = ("train", "student", "teacher")
POOL_LABEL = "llm2llm.io/pool"
HOST = "127.0.0.1"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch to call a node 127.0.0.1 (its default on macOS); without it Ray turns that into the machine's outward address."""
JOIN = "_join"
STARTED = "Ray runtime started."
"""What `ray start` prints once its raylet is registered."""
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
MAX_FOLDER = 40
"""Characters. Ray puts Unix sockets 65 characters deeper, and the kernel takes paths of 107."""


class ClusterError(Exception):
    """A message for the person at the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raylet:
    """A `ray start --block` that runs. Example: Raylet(name="train", pid=4711, started=1763800000.12)"""

    name: str
    pid: int
    started: float
    """Seconds since the epoch: a pid alone may come to name another process."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python cluster/local_cluster.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("start", "stop", "status", "env"))
    parser.add_argument("--pools", default=",".join(POOLS), help="one raylet for each, comma-separated; may name one twice")
    parser.add_argument("--cpus", type=int, default=2, help="logical CPUs of each raylet but the head")
    parser.add_argument("--port", type=int, default=6479, help="of the GCS")
    parser.add_argument("--dashboard-port", type=int, default=8265)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "llm2llm-cluster")
    parser.add_argument("--no-token", action="store_true", help="let everybody on this machine run code on the cluster")
    if (told := list(sys.argv[1:] if arguments is None else arguments))[:1] == [JOIN]:
        return join(told[1:])
    given = parser.parse_args(told)
    try:
        if given.command == "start":
            start(given)
        elif given.command == "stop":
            print(f"stopped: {', '.join(stop(given.folder)) or 'nothing was running'}")
        elif given.command == "env":
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in client_env(given.folder).items()))
        else:
            for raylet in recorded(given.folder):
                print(f"{raylet.name}\tpid {raylet.pid}\t{'running' if process_of(raylet) else 'gone'}")
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def start(given: argparse.Namespace) -> None:
    """Start the head, then the pools; on any failure stop what was started. Raises ClusterError."""
    folder = given.folder.absolute()
    if len(str(folder)) > MAX_FOLDER:
        raise ClusterError(f"--folder {folder}: over {MAX_FOLDER} characters, and Ray's sockets below it would not fit")
    if any(process_of(raylet) for raylet in recorded(folder)):
        raise ClusterError(f"a cluster recorded in {folder} is running; stop it first, or give another --folder and ports")
    for name, port in (("--port", given.port), ("--dashboard-port", given.dashboard_port)):
        if not is_free(port):
            raise ClusterError(f"{name} {port}: something listens there; give another")
    pools = [pool for pool in given.pools.split(",") if pool]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = None if given.no_token else make_token(folder)
    about = {"gcs": f"{HOST}:{given.port}", "dashboard": f"http://{HOST}:{given.dashboard_port}"}
    write_record(folder, about | {"token": str(token) if token else None, "raylets": []})
    commands = {"head": head_command(given.port, given.dashboard_port, free_ports(3), folder)}
    for number, pool in enumerate(pools):
        name = pool if pools.count(pool) == 1 else f"{pool}-{number}"
        commands[name] = worker_command(name, pool, given.port, given.cpus, free_ports(1))
    try:
        for name, command in commands.items():
            launch(name, command, folder, ray_env(token))
    except BaseException:
        stop(folder)
        raise
    print(f"running: {', '.join(commands)}; dashboard {about['dashboard']}, address {about['gcs']}")
    again = "" if str(folder) == str(Path(tempfile.gettempdir()) / "llm2llm-cluster") else f" --folder {folder}"
    print(f'for clients: eval "$(python cluster/local_cluster.py env{again})"')


def head_command(port: int, dashboard_port: int, ports: Sequence[int], folder: Path) -> list[str]:
    """`ports`: agent, Ray client, metrics."""
    agent, client, metrics = ports
    return [
        *(sys.executable, "-m", "ray.scripts.scripts"),
        *_start("head", agent, cpus=0),
        *("--head", f"--port={port}", f"--temp-dir={folder / 'ray'}"),
        *("--include-dashboard=True", f"--dashboard-host={HOST}", f"--dashboard-port={dashboard_port}"),
        *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}", "--disable-usage-stats"),
    ]


def worker_command(name: str, pool: str, port: int, cpus: int, ports: Sequence[int]) -> list[str]:
    """`ports`: agent."""
    command = [sys.executable, str(Path(__file__).resolve()), JOIN, *_start(name, ports[0], cpus=cpus)]
    return [*command, f"--address={HOST}:{port}", f"--labels={POOL_LABEL}={pool}"]


def join(arguments: Sequence[str]) -> int:
    """`ray ARGUMENTS` for a further raylet. `ray start --address` refuses LOOPBACK, so it is set once Ray has read it."""
    for name in LOOPBACK:
        os.environ.pop(name, None)
    from ray._private import services
    from ray.scripts.scripts import cli

    os.environ.update(LOOPBACK)
    services.resolve_ip_for_localhost = lambda host: host
    cli.main(args=list(arguments), prog_name="ray")
    return 0


def _start(name: str, agent: int, *, cpus: int) -> list[str]:
    return [
        *("start", "--block"),
        *(f"--node-name={name}", f"--node-ip-address={HOST}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=200000000"),
        *("--min-worker-port=0", "--max-worker-port=0"),  # any free port: the fixed range would be shared by all raylets
    ]


def launch(name: str, command: Sequence[str], folder: Path, env: dict[str, str]) -> None:
    """Start one raylet, record it, and wait until it says that it runs. Raises ClusterError with the end of its log."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C at this terminal is not for the cluster.
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    add_record(folder, Raylet(name=name, pid=process.pid, started=psutil.Process(process.pid).create_time()))
    deadline = time.monotonic() + START_TIMEOUT_S
    while STARTED not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(text.splitlines()[-15:])
            raise ClusterError(f"{name} did not start; the end of {log}:\n{tail}")
        time.sleep(0.2)


def stop(folder: Path) -> list[str]:
    """End what `folder` records and all descendants: asked first, killed after STOP_TIMEOUT_S. Names of what was running."""
    raylets = [(raylet, process) for raylet in recorded(folder) if (process := process_of(raylet))]
    family = []
    for _, process in raylets:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += [process, *process.children(recursive=True)]
    for _, process in reversed(raylets):  # the head last: the others report to it
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil compares start times, so a reused pid is not hit
            process.kill()
    psutil.wait_procs(left, timeout=5)
    (folder / "cluster.json").unlink(missing_ok=True)
    (folder / "auth_token").unlink(missing_ok=True)
    shutil.rmtree(folder / "ray", ignore_errors=True)
    return [raylet.name for raylet, _ in raylets]


def process_of(raylet: Raylet) -> psutil.Process | None:
    """The process, if it is still the one that was started."""
    try:
        process = psutil.Process(raylet.pid)
        same = abs(process.create_time() - raylet.started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def ray_env(token: Path | None) -> dict[str, str]:
    """The environment of every raylet, and so of every job. The mode is said outright: only a head would find it by itself."""
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    env |= LOOPBACK | {"RAY_process_group_cleanup_enabled": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)} if token else {"RAY_AUTH_MODE": "disabled"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"  # `python` in a job is this one
    return env


def client_env(folder: Path) -> dict[str, str]:
    """What a shell needs to submit jobs to the cluster and to join it. Raises ClusterError."""
    record = _read(folder)
    if not record:
        raise ClusterError(f"{folder}: no cluster is recorded there; start one")
    token = record["token"]
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_ADDRESS": record["gcs"], "RAY_API_SERVER_ADDRESS": record["dashboard"], **LOOPBACK, **auth}


def make_token(folder: Path) -> Path:
    path = folder / "auth_token"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    return path


def recorded(folder: Path) -> list[Raylet]:
    return [Raylet(**raylet) for raylet in _read(folder).get("raylets", [])]


def add_record(folder: Path, raylet: Raylet) -> None:
    record = _read(folder)
    write_record(folder, record | {"raylets": [*record["raylets"], asdict(raylet)]})


def write_record(folder: Path, record: dict[str, Any]) -> None:
    draft = folder / "cluster.json.draft"
    draft.write_text(json.dumps(record, indent=1))
    draft.replace(folder / "cluster.json")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "cluster.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return list(_bound(stack, count))


def _bound(stack: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        probe = stack.enter_context(socket.socket())
        probe.bind((HOST, 0))
        yield probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
