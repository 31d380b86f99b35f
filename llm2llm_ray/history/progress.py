"""A run's live state for whoever watches: one line that redraws itself in a terminal, plain lines every few seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console

from llm2llm_ray.config import Config

_PLAIN_EVERY_S = 10.0


class Progress:
    def __init__(self, config: Config, console: Console | None = None) -> None:
        self._config = config
        self._console = console or Console(stderr=True, highlight=False)
        self._live = self._console.status("") if self._console.is_terminal else None
        self._last = ("", 0.0)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: Mapping[str, Any]) -> None:
        """Takes the driver's status: stage, iteration, since (Unix seconds), rows by role, training line, or in words what it is
        doing. A study's also says which cell it is, and of how many iterations."""
        line = describe(status, status.get("iterations", self._config.run.iterations), time.time())
        if self._live is not None:
            self._live.update(line)
            return
        head = f"{status['stage']}/{status.get('iteration')}"
        if head != self._last[0] or time.monotonic() - self._last[1] >= _PLAIN_EVERY_S:
            self._last = (head, time.monotonic())
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def describe(status: Mapping[str, Any], iterations: int, now: float) -> str:
    """Example: "iteration 2/3 · train · update 12/35 · 2.1 s each · 0:48 left"."""
    parts = [str(status["cell"])] if "cell" in status else []
    if "iteration" in status and status["stage"] not in ("engines", "done"):
        parts.append(f"iteration {status['iteration'] + 1}/{iterations}")
    parts.append(str(status["stage"]))
    elapsed = now - status.get("since", now)
    if "doing" in status:
        parts.append(str(status["doing"]))
    training = status.get("training") if str(status["stage"]).partition(" ")[0] in ("train", "fold", "baseline") else None
    if training:
        parts += trained(training)
    streaming = str(status["stage"]).startswith(("round", "exam"))
    rows, total = (status.get("rows") or {}, status.get("total")) if streaming else ({}, None)
    for role, done in rows.items():
        parts.append(answered(role, done, total, done / max(elapsed, 1e-9)))
        if role == "student" and total and done:
            parts.append(f"{clock(elapsed / done * (total - done))} left")
    parts.append(clock(elapsed))
    return " · ".join(parts)


def trained(line: Mapping[str, Any]) -> list[str]:
    """A line of a training's log. Example: ["update 12/35", "loss 0.500", "2.1 s each", "0:48 left"]."""
    left = (line["total"] - line["update"]) * line["seconds"]
    return [
        f"update {line['update']}/{line['total']}",
        f"loss {line['loss']:.3f}",
        f"{line['seconds']:.1f} s each",
        f"{clock(left)} left",
    ]


def answered(role: str, done: int, total: int | None, speed: float) -> str:
    """`speed` in rows per second. Example: "student 20/60 rows, 2.0/s"."""
    of = f"/{total}" if total else ""
    return f"{role} {done}{of} rows, {speed:.1f}/s"


def clock(seconds: float) -> str:
    """Example: clock(68) == "1:08"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
