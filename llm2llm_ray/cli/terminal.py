"""Where commands write: tables and sentences to stdout, mistakes to stderr, and how numbers are shown."""

from __future__ import annotations

import sys
import time

from rich.console import Console

errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

_LOG_WIDTH = 150  # a log has no width of its own, and 80 columns break the tables


def console(*, markup: bool = True) -> Console:
    """`markup=False` for a command that shows what a run holds: nothing of it is read as rich's markup or emoji codes."""
    width = None if sys.stdout.isatty() else _LOG_WIDTH
    return Console(highlight=False, markup=markup, emoji=markup, width=width)


def ago(then: float | None) -> str:
    """Example: "3 min ago"; "-" for None. `then` in Unix seconds."""
    return "-" if then is None else f"{duration(max(0.0, time.time() - then))} ago"


def duration(seconds: float) -> str:
    """Example: duration(200) == "3 min"."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def size(count: int | None) -> str:
    """Bytes in the units that `du -h` uses. Example: size(2 << 20) == "2.0 MiB"; "-" for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
