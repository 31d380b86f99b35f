"""One result file for every benchmark: what was claimed, the tables as printed, the raw numbers, the machine and the command.

`RESULTS.md` is made from these files alone (results_page.py), so a figure in it can be traced to the run that printed it.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measuring.environment import environment

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One figure and what was asked of it.

    Example: Claim(what="evaluation: ours / bare vLLM", value=0.93, unit="x", at_least=0.90)
    """

    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where nothing was asked."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table: a title, column names, and one list of values per row (numbers stay numbers)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one command measured. `settings` are the benchmark's own options; `raw` every single timing behind the tables."""

    benchmark: str
    claims: Sequence[Claim]
    tables: Sequence[Rows]
    raw: Any
    settings: Mapping[str, Any]
    small: bool = False
    """A small run, which shows that all of it works: its figures say nothing and are no part of RESULTS.md."""

    def finish(self, file: Path | None) -> int:
        """Show it, write it where a file is given, and return the command's exit code: 1 when what was asked is not met. A small
        run asks nothing of times and of what is made of them."""
        self.show()
        if file is not None:
            self.write(file)
        return int(any(claim.met is False for claim in self.claims))

    def show(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for rows in self.tables:
            table = Table(title=Text(rows.title), title_justify="left")  # Text: rich reads no markup in it
            for column in rows.columns:
                table.add_column(Text(column))
            for row in rows.rows:
                table.add_row(*(Text(told(value)) for value in row))
            console.print(table)
        for claim in self.claims:
            console.print(Text(claim_line(claim)))

    def write(self, path: Path) -> None:
        data = {
            "format": FORMAT,
            "benchmark": self.benchmark,
            "small": self.small,
            "command": command(),
            "environment": environment(),
            "settings": dict(self.settings),
            "claims": [asdict(claim) | {"met": claim.met} for claim in self.claims],
            "tables": [asdict(rows) for rows in self.tables],
            "raw": self.raw,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")


def command() -> str:
    """As it can be typed again in the repository's root; machine's own paths stay out of it."""
    room, file = Path(sys.argv[0]).parts[-2:]
    return shlex.join(["python", "-m", f"benchmarks.{room}.{file.removesuffix('.py')}", *sys.argv[1:]])


def claim_line(claim: Claim) -> str:
    asked = "" if claim.at_least is None else f" (asked: at least {told(claim.at_least)})"
    asked += "" if claim.at_most is None else f" (asked: at most {told(claim.at_most)})"
    met = {True: " met", False: " NOT MET", None: ""}[claim.met]
    return f"{claim.what}: {told(claim.value)} {claim.unit}{asked}{met}{'; ' + claim.note if claim.note else ''}"


def told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else str(value)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the pairs of ours / theirs: what happened to both in a pair (a busy host) cancels out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
