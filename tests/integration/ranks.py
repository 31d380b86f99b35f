"""A script of this folder as the ranks of one process group on this machine, outside Ray: a test starts them, each one joins.

Every rank is `python <script> <rank> <world> <port> <model> <out>`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent


def run_ranks(script: str, world: int, model: str, out: Path) -> None:
    """Returns when all have ended well; none is left behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), str(rank), str(world), str(port), model, str(out)],
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        texts = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world, texts[0][-3000:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a rank was started with."""

    rank: int
    world: int
    model: str
    out: Path


def join() -> Joined:
    """In the script: this process as a rank of the group. It leaves by `torch.distributed.destroy_process_group`."""
    rank, world, port, model, out = sys.argv[1:]
    os.environ |= {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    torch.distributed.init_process_group("gloo", rank=int(rank), world_size=int(world))
    return Joined(rank=int(rank), world=int(world), model=model, out=Path(out))
