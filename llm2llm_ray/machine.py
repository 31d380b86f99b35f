"""What this machine has: processors, memory, disks, GPUs. Read from /proc and nvidia-smi: no Ray, no torch, nothing started."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "gpu"]
"""What models compute on."""

_NVIDIA_SMI_S = 20
_BF16 = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Example: Gpu(name="NVIDIA H200", memory_gib=140.4, free_gib=139.8, driver="570.86")"""

    name: str
    memory_gib: float
    free_gib: float
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    cpu: str
    cores: int
    """That this process may use."""
    bf16: bool
    """The processor computes bfloat16 itself; without, vLLM is 2 to 3 times slower in it than in float32 (seen here)."""
    memory_gib: float
    """Of the machine, or of the control group where that has less."""
    available_gib: float
    """That can still be had; likewise."""
    shm_gib: float
    """Free in /dev/shm; 0 where there is none."""
    gpus: tuple[Gpu, ...]


def this_machine() -> Machine:
    total, available = memory()
    flags = set(_cpuinfo("flags").split())
    return Machine(
        cpu=_cpuinfo("model name"),
        cores=len(os.sched_getaffinity(0)),
        bf16=bool(flags & _BF16),
        memory_gib=total,
        available_gib=available,
        shm_gib=free_gib("/dev/shm") if os.path.isdir("/dev/shm") else 0.0,
        gpus=gpus(),
    )


def memory() -> tuple[float, float]:
    """How much there is, and how much of it can still be had, in GiB: of the machine, or of the control group if that is less."""
    machine, group = _meminfo(), group_memory()
    total, available = machine.get("MemTotal", 0.0), machine.get("MemAvailable", 0.0)
    return (min(total, group[0]), min(available, group[1])) if group else (total, available)


def free_gib(path: str | Path) -> float:
    """Free space of the disk that `path` lies on, or would lie on."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 2**30


def gpus() -> tuple[Gpu, ...]:
    """As nvidia-smi tells; none without it, or when it fails."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parsed_gpus(done.stdout) if done.returncode == 0 else ()


def parsed_gpus(text: str) -> tuple[Gpu, ...]:
    """nvidia-smi's CSV (MiB); lines it cannot be read from (MIG: [N/A]) are passed over."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
            found.append(Gpu(name=fields[0], memory_gib=int(fields[1]) / 1024, free_gib=int(fields[2]) / 1024, driver=fields[3]))
    return tuple(found)


def _meminfo() -> dict[str, float]:
    """/proc/meminfo in GiB."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) / 2**20 for fields in lines if len(fields) == 3}


def group_memory(folder: Path = Path("/sys/fs/cgroup")) -> tuple[float, float] | None:
    """Limit of the control group (version 2), and how much of it can still be had, in GiB; None: no limit.

    Files that were read count as used until somebody needs the memory: those not used of late (inactive_file) are free.
    """
    path = folder / "memory.max"
    text = path.read_text().strip() if path.exists() else "max"
    if not text.isdigit():
        return None
    limit, used = int(text), int((folder / "memory.current").read_text())
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    free = limit - used + int(stat.get("inactive_file", 0))
    return limit / 2**30, max(0, min(free, limit)) / 2**30


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
