"""Submit a run to a Ray cluster: python jobs/submit.py jobs/demo.yaml [--set section.field=value ...] [--address URL] [--no-wait]

The job runs `llm2llm run`, so submitting the same run again goes on where it stopped. What travels is said in `upload`. A secret
is no part of a job, whose runtime env is shown to whoever may look at the cluster: the cluster's token is read from the
environment, as Ray does, and a teacher's API key must be in the environment of the cluster. Exit codes: those of `llm2llm run`.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

# The job gets the code beside this script, so the config is checked with that too, not with an installed version.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from upload import fill, place  # noqa: E402

from llm2llm_ray.config.file import load_config  # noqa: E402
from llm2llm_ray.errors import UserError  # noqa: E402
from llm2llm_ray.terminal_text import shown_lines  # noqa: E402

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
JOB_ENV = {"RAY_JOB_STOP_WAIT_TIME_S": "90"}
"""Read by Ray's job supervisor, which runs inside the job's runtime env: seconds from SIGTERM to SIGKILL, 3 by default. A run
drains for up to 45 s and then deletes its applications. Must share no key with what `runtime.launch` gives to ray.init: Ray
refuses to merge the two."""
METADATA_RUN = "llm2llm_run"
FINISHED = ("SUCCEEDED", "STOPPED", "FAILED")
RECONNECTS = 60
RECONNECT_S = 2.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job the cluster knows. Example: Job(id="llm2llm-demo-2", run="demo", status="RUNNING")"""

    id: str
    run: str | None
    """The run it was submitted for; None for jobs that others submitted."""
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the job will run. Example: Target(address="http://127.0.0.1:8265", same_machine=True)"""

    address: str
    same_machine: bool
    """The cluster sees this machine's paths and Python."""


class _Client(Protocol):
    """What `follow` needs of ray.job_submission.JobSubmissionClient."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...

    def get_job_info(self, job_id: str) -> Any: ...


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        return _submit(given)
    except UserError as error:
        print(f"error: {shown_lines(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python jobs/submit.py", description="Submit a run to a Ray cluster.")
    parser.add_argument("config", type=Path, help="YAML file of the run (see jobs/)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides")
    parser.add_argument("--address", help=f"the cluster's dashboard; else RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS}")
    parser.add_argument(
        "--tunnel", action="store_true", help="a loopback address leads to another machine (kubectl port-forward, ssh -L)"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not follow the log")
    return parser


def _submit(given: argparse.Namespace) -> int:
    config = load_config(given.config, given.overrides)
    target = target_of(given.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS, tunnel=given.tunnel)
    placed = place(config, given.config, Path.cwd(), same_machine=target.same_machine)
    overrides = [*given.overrides, *placed.overrides]
    with tempfile.TemporaryDirectory(prefix="llm2llm-submit-") as folder:
        size = fill(Path(folder), given.config, placed)
        with _connected(target) as client:
            job_id = next_id(config.run.name, _jobs(client))
            client.submit_job(
                entrypoint=entrypoint_of(given.config, overrides, same_machine=target.same_machine),
                submission_id=job_id,
                runtime_env={"working_dir": folder, "env_vars": JOB_ENV},
                metadata={METADATA_RUN: config.run.name},
            )
    run_path = load_config(given.config, overrides).run_path
    print(f"{job_id}: submitted to {target.address} ({size / 1e6:.1f} MB uploaded); run folder {run_path}")
    print(f"stop it with: ray job stop {job_id} --address {target.address}", flush=True)
    if given.no_wait:
        return 0
    try:
        status, code = asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on; follow it with: ray job logs {job_id} --follow --address {target.address}")
        return 130
    print(f"{job_id}: {status}")
    return exit_code(status, code)


def target_of(address: str, *, tunnel: bool) -> Target:
    """Raises UserError when `address` is no URL of a dashboard."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(f"--address {address}: give the dashboard's URL, as in {DEFAULT_ADDRESS} (not ray:// or host:6379)")
    if url.password or url.username:
        raise UserError("--address holds a password; give the cluster's token in RAY_AUTH_TOKEN")
    return Target(address=address.rstrip("/"), same_machine=_is_loopback(url.hostname) and not tunnel)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def next_id(run: str, jobs: Sequence[Job]) -> str:
    """llm2llm-RUN, or with the first number no job has: Ray takes an id once. Raises UserError while a job of the run lives."""
    wanted = f"llm2llm-{run}"
    for job in jobs:
        if job.status not in FINISHED and (job.run == run or (job.run is None and job.id == wanted)):
            raise UserError(
                f"run {run}: job {job.id} of this run is {job.status} on this cluster; wait for it, stop it (ray job stop "
                f"{job.id}), or give this run another name: --set run.name={run}-b"
            )
    taken = {job.id for job in jobs}
    number = 1
    while (name := wanted if number == 1 else f"{wanted}-{number}") in taken:
        number += 1
    return name


def entrypoint_of(config: Path, overrides: Sequence[str], *, same_machine: bool) -> str:
    """`exec`: no shell in between that SIGTERM could end before the run has drained."""
    # On this machine the PATH of whoever started Ray may hold another Python.
    command = [sys.executable if same_machine else "python", "-m", "llm2llm_ray", "run", f"jobs/{config.name}"]
    for override in overrides:
        command += ["--set", override]
    return f"exec {shlex.join(command)}"


def authenticate(target: Target) -> None:
    """Switch Ray's token mode on where `ray start` would: a token is at hand and RAY_AUTH_MODE is not set.

    Must run before ray is imported. The file's token is for clusters of this machine: another cluster gets a token only by
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or RAY_AUTH_MODE.
    """
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    kept = target.same_machine and (Path.home() / ".ray" / "auth_token").is_file()
    if "RAY_AUTH_MODE" not in os.environ and (named or kept):
        os.environ["RAY_AUTH_MODE"] = "token"


@contextmanager
def _connected(target: Target) -> Iterator[Any]:
    """A client of the cluster's job server, and its errors told as the user's."""
    authenticate(target)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)  # Ray lets them win over the address it is given
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(target.address)
    except AuthenticationError:
        raise UserError(
            f"--address {target.address}: the cluster wants a token and got none or a wrong one; put the right one into "
            "RAY_AUTH_TOKEN, or its file's path into RAY_AUTH_TOKEN_PATH"
        ) from None
    except OSError as error:  # ConnectionError, and what requests raises
        raise UserError(
            f"--address {target.address}: no Ray dashboard answers ({error}); start a cluster (ray start --head, or python "
            "cluster/local_cluster.py start), or give its address"
        ) from None
    except RuntimeError as error:  # what Ray's client raises for an answer that is no success
        raise UserError(f"--address {target.address}: the cluster refused the job: {error}") from None


def _jobs(client: Any) -> list[Job]:
    found = [job for job in client.list_jobs() if job.submission_id]  # without: drivers that nobody submitted
    return [Job(id=job.submission_id, run=(job.metadata or {}).get(METADATA_RUN), status=_status(job)) for job in found]


def _status(info: Any) -> str:
    return str(getattr(info.status, "value", info.status))


async def follow(client: _Client, job_id: str) -> tuple[str, int | None]:
    """Print the job's log until it ends; its status and its process's exit code. Connects again where the stream breaks."""
    import aiohttp  # comes with ray[default]

    printed = 0
    broken = 0
    while True:
        position = 0
        try:
            async for text in client.tail_job_logs(job_id):  # always from the log's beginning
                fresh = text[max(0, printed - position) :]
                position += len(text)
                printed = max(printed, position)
                # A log may hold text of models: none of it may steer the terminal.
                print(_CONTROL.sub("", fresh), end="", flush=True)
                broken = 0
            info = client.get_job_info(job_id)
            if _status(info) in FINISHED:
                return _status(info), info.driver_exit_code
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            broken += 1
            if broken > RECONNECTS:
                raise UserError(f"{job_id}: its cluster has not answered for long ({error}); the job may still go on") from None
        await asyncio.sleep(RECONNECT_S)


def exit_code(status: str, driver_exit_code: int | None) -> int:
    """0 done, 2 the user's mistake, 75 try again later, 143 stopped on request, 1 everything else."""
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return 143
    return driver_exit_code if driver_exit_code in (2, 75, 143) else 1


if __name__ == "__main__":
    sys.exit(main())
