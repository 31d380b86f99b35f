"""Whether a run could work here: what is there, what would run where, what is missing, and the command that mends it.

Starts nothing and writes nothing. What needs Ray or torch is asked of `runtime.doctor_probe` in a process of its own, so that a
broken library is a finding like any other. The rows of a config are checked by `run --dry-run`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm2llm_ray.config import Config
from llm2llm_ray.doctor.findings import Finding, mend, note, ok
from llm2llm_ray.doctor.fitting import fitting
from llm2llm_ray.doctor.installed import LOCK, Package, Profile, off_lock, required
from llm2llm_ray.machine import Machine, free_gib, this_machine
from llm2llm_ray.model_cache import cache_folder

PROBE = "llm2llm_ray.runtime.doctor_probe"
_PROBE_S = 180
_PYTHON = (3, 11)
_LEAST_MEMORY_GIB = 8
"""For the demo, the smallest run there is."""
_LEAST_SHM_GIB, _GOOD_SHM_GIB = 0.25, 2
"""Docker gives 0.06 (64 MB) unless told otherwise; Ray's object store lies there and moves to the disk when it does not fit."""
_RAY_DISK_SHARE = 0.05
"""Ray writes nothing more to a disk that has less than this share free."""


def diagnose(config: Config | None = None) -> list[Finding]:
    """Everything that can be told before a run; with a config also whether it fits. Takes some ten seconds for the imports."""
    machine = this_machine()
    gpu = bool(machine.gpus) if config is None or config.cluster.device == "auto" else config.cluster.device == "gpu"
    found = [*_python(), *_packages("gpu" if gpu else "cpu"), *_machine(machine), *_disks()]
    address = (config and config.cluster.address) or os.environ.get("RAY_ADDRESS")
    found += _libraries(probe(address), machine, address)
    if config is not None:
        found += fitting(config, machine)
    return found


def exit_code(findings: Sequence[Finding]) -> int:
    """2 when the user must mend something, else 0."""
    return 2 if any(finding.level == "mend" for finding in findings) else 0


def render_findings(findings: Sequence[Finding], console: Console) -> None:
    table = Table(title="llm2llm doctor")
    for name in ("", "topic", "found", "to mend it"):
        table.add_column(name)
    marks = {"ok": Text("ok", style="green"), "note": Text("note", style="yellow"), "mend": Text("MEND", style="bold red")}
    for finding in findings:
        table.add_row(marks[finding.level], Text(finding.topic), Text(finding.text), Text(finding.command))
    console.print(table)
    wrong = sum(finding.level == "mend" for finding in findings)
    console.print(Text(f"{wrong} to mend." if wrong else "Nothing to mend."))


def _python() -> Iterator[Finding]:
    version, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    again = "make clean && make install PYTHON=python3.11"
    if sys.version_info[:2] == _PYTHON:
        yield ok("python", f"{version} on {system}")
    elif sys.version_info[:2] > _PYTHON:
        yield note("python", f"{version}; the lock and the tests are for 3.11", again)
    else:
        yield mend("python", f"{version}; 3.11 is the oldest that works", again)
    if system != "Linux x86_64":
        yield note("python", f"{system}: only Linux x86_64 was tried")


def _packages(profile: Profile) -> Iterator[Finding]:
    install = "make install" if profile == "cpu" and LOCK.is_file() else f"{sys.executable} -m pip install '.[{profile}]'"
    try:
        packages = required(profile)
    except importlib.metadata.PackageNotFoundError:
        yield mend("packages", "llm2llm-ray itself is not installed in this Python", install)
        return
    misfits = [package for package in packages if not package.fits]
    for package in misfits:
        yield mend("packages", _told(package), install)
    if any(package.name == "deepspeed" for package in misfits) and shutil.which("cc") is None:
        yield mend("packages", "no C compiler, which building deepspeed needs", "apt-get install gcc, or your system's like")
    if not misfits:
        pinned = ", ".join(f"{p.name} {p.installed}" for p in packages if p.wanted.startswith("=="))
        yield ok("packages", f"{profile} profile, {len(packages)} packages as pyproject.toml wants them: {pinned}")
    others = [p for p in off_lock() if p.name not in {m.name for m in misfits}] if profile == "cpu" else []
    if others:
        shown = "; ".join(_told(package) for package in others[:5])
        yield note("packages", f"{len(others)} packages differ from locks/cpu.txt: {shown}", install)


def _told(package: Package) -> str:
    wanted = f"wanted {package.wanted}" if package.wanted else "wanted"
    return f"{package.name} {package.installed or 'is missing'}, {wanted}"


def _machine(machine: Machine) -> Iterator[Finding]:
    bf16 = "computes bfloat16" if machine.bf16 else "does not compute bfloat16, so engines run in float32"
    yield ok("devices", f"{machine.cores} cores ({machine.cpu or 'unknown processor'}; {bf16})")
    for gpu in machine.gpus:
        yield ok("devices", f"{gpu.name}: {gpu.free_gib:.0f} of {gpu.memory_gib:.0f} GiB free, driver {gpu.driver}")
    if not machine.gpus:
        yield ok("devices", "no GPU that nvidia-smi shows: everything would run on CPU")
    memory = f"{machine.available_gib:.1f} of {machine.memory_gib:.1f} GiB free"
    if machine.memory_gib < _LEAST_MEMORY_GIB:
        yield mend("memory", f"{memory}; the demo needs {_LEAST_MEMORY_GIB}", "a machine or a container limit with more memory")
    elif machine.available_gib < _LEAST_MEMORY_GIB:
        yield note("memory", f"{memory}; the demo needs {_LEAST_MEMORY_GIB}", "ps aux --sort=-rss | head")
    else:
        yield ok("memory", memory)
    shm = f"{machine.shm_gib:.2f} GiB free in /dev/shm"
    larger = "mount -o remount,size=4g /dev/shm, or docker run --shm-size=4g"
    if machine.shm_gib < _LEAST_SHM_GIB:
        yield mend("memory", shm, larger)
    else:
        yield note("memory", shm, larger) if machine.shm_gib < _GOOD_SHM_GIB else ok("memory", shm)


def _disks() -> Iterator[Finding]:
    yield _ray_disk(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    cache = cache_folder()
    yield ok("disk", f"{free_gib(cache):.0f} GiB free in {cache}, where models are kept")


def _ray_disk(place: str) -> Finding:
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        why = f"{place}, where Ray keeps logs and spilled objects: {error.strerror}"
        return mend("disk", why, f"mkdir -p {shlex.quote(place)}, or unset RAY_TMPDIR")
    told = f"{usage.free / 2**30:.0f} of {usage.total / 2**30:.0f} GiB free in {place}, where Ray keeps logs and spilled objects"
    if usage.free < _RAY_DISK_SHARE * usage.total:
        return mend("disk", f"{told}; it stops at {_RAY_DISK_SHARE:.0%}", "export RAY_TMPDIR=… (a folder on another disk)")
    return ok("disk", told)


def probe(address: str | None = None) -> dict[str, Any]:
    """What the heavy libraries say of themselves, or {"error": why there is nothing}."""
    command = [sys.executable, "-m", PROBE, *(["--address", address] if address else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"importing the libraries took more than {_PROBE_S} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the probe ended with {done.returncode}: {last[:200]}"}
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _libraries(told: Mapping[str, Any], machine: Machine, address: str | None) -> Iterator[Finding]:
    again = f"{sys.executable} -m {PROBE}"
    if "error" in told:
        yield mend("libraries", told["error"], f"{again} (shows the whole error)")
        return
    broken = {name: item["error"] for name, item in told["libraries"].items() if item["error"]}
    for name, error in broken.items():
        yield mend("libraries", f"{name} cannot be imported: {error}", "make install, or pip install '.[gpu]' on a GPU machine")
    if not broken:
        yield ok("libraries", f"{', '.join(told['libraries'])} can be imported")
    if machine.gpus and not told["gpus"] and not told["libraries"]["torch"]["error"]:
        version = told["libraries"]["torch"]["version"]
        yield mend("devices", f"there is a GPU, but torch {version} does not see it", f"{sys.executable} -m pip install '.[gpu]'")
    for gpu in told["gpus"]:
        yield ok("devices", f"torch sees {gpu['name']}: {gpu['free_gib']:.0f} of {gpu['memory_gib']:.0f} GiB free")
    if address:
        yield from _cluster(told.get("cluster", {"error": "Ray cannot be imported"}), address)


def _cluster(told: Mapping[str, Any], address: str) -> Iterator[Finding]:
    """Not run against a cluster."""
    if told["error"]:
        yield mend("cluster", f"{address}: {told['error']}", "ray status --address …; unset RAY_ADDRESS to start a Ray here")
        return
    labels = sorted({f"{k}={v}" for node in told["nodes"] for k, v in node["labels"].items() if not k.startswith("ray.io/")})
    has = ", ".join(f"{told['resources'].get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
    yield ok("cluster", f"{address}: {len(told['nodes'])} nodes, {has}; labels: {', '.join(labels) or 'none'}")
