"""A kept result read back, and held against its form: measurement.py's, or what iteration.py wrote before there was one.

Invariant: what is returned can be shown as it is. A file that is not whole, contradicts itself or comes from a small run is a
UserError that names the file and everything that is wrong in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, FiniteFloat, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from benchmarks.measuring.measurement import FORMAT, Claim, Rows
from llm2llm_ray.errors import UserError

_DATED = re.compile(r"_\d{4}-\d\d-\d\d[^_]*$")


class _Strict(BaseModel, frozen=True, strict=True, extra="forbid"):
    pass


class Environment(BaseModel, frozen=True, strict=True, extra="allow"):
    """What environment.py told; what it tells beside this is kept and shown."""

    date: AwareDatetime
    cpu: str
    cores: int
    ram_gib: FiniteFloat
    os: str
    python: str
    versions: dict[str, str]
    commit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of one benchmark, as it is shown.

    Example: Result(file="evaluation_2026-11-23.json", command="python -m benchmarks.engines.evaluation --pairs 5", ...)
    """

    file: str
    environment: Environment
    command: str
    settings: Mapping[str, Any]
    claims: Sequence[Claim]
    tables: Sequence[Rows]

    @property
    def series(self) -> str:
        """What it is compared with: the name of the file without its date. Example: "iteration_demo"."""
        return _DATED.sub("", self.file.removesuffix(".json"))


class _Claim(_Strict):
    what: str
    value: FiniteFloat
    unit: str
    at_least: FiniteFloat | None
    at_most: FiniteFloat | None
    note: str
    met: bool | None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.claim.met is not self.met:
            raise ValueError(f"met is {self.met}, but the value and what was asked give {self.claim.met}")
        return self

    @property
    def claim(self) -> Claim:
        return Claim(**self.model_dump(exclude={"met"}))


class _Rows(_Strict):
    title: str
    columns: list[str] = Field(min_length=1)
    rows: list[list[str | int | float | bool | None]]

    @model_validator(mode="after")
    def _even(self) -> Self:
        odd = [f"row {i} has {len(row)} values" for i, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if odd:
            raise ValueError(f"{len(self.columns)} columns, but {', '.join(odd)}")
        return self


class _Measured(_Strict):
    format: Literal[1]
    benchmark: str
    small: bool
    command: str
    environment: Environment
    settings: dict[str, Any]
    claims: list[_Claim]
    tables: list[_Rows]
    raw: Any

    @model_validator(mode="after")
    def _not_small(self) -> Self:
        if self.small:
            raise ValueError("a small run, which has a direction and no value: it is not for this folder")
        return self

    def result(self, file: str) -> Result:
        return Result(
            file=file, environment=self.environment, command=self.command, settings=self.settings,
            claims=[claim.claim for claim in self.claims], tables=[Rows(**rows.model_dump()) for rows in self.tables],
        )  # fmt: skip


# What iteration.py wrote without a format number; it holds more than is read here.


class _Flight(BaseModel, strict=True):
    requests: int
    mean: FiniteFloat
    peak: int

    def told(self) -> str:
        return f"{self.requests:,} (mean {self.mean:.1f}, peak {self.peak})" if self.requests else ""


class _Phase(BaseModel, strict=True):
    group: str
    name: str


class _Activity(BaseModel, strict=True):
    phase: _Phase
    who: str | None
    seconds: FiniteFloat
    rows: int | None
    updates: int
    tokens: int
    student: _Flight
    teacher: _Flight
    overlap_seconds: FiniteFloat
    idle_share: FiniteFloat


class _Group(BaseModel, strict=True):
    name: str
    seconds: FiniteFloat
    tokens: int
    overlap_seconds: FiniteFloat
    idle_share: FiniteFloat


class _Command(BaseModel, strict=True):
    line: str


class _Stages(BaseModel, strict=True):
    run: str
    environment: Environment
    environment_of: str
    command: _Command | None
    argv: str
    wall_seconds: FiniteFloat
    sessions: list[Any]
    groups: list[_Group]
    phases: list[_Activity]

    def result(self, file: str) -> Result:
        title = f"run {self.run}: {self.wall_seconds:.0f} s in {len(self.sessions)} session(s)"
        return Result(
            file=file, environment=self.environment, command=f"python {self.argv}",
            settings={"run": self.run, "environment of": self.environment_of}
            | ({"command of the run": self.command.line} if self.command else {}),
            claims=[], tables=[Rows(title=title, columns=_STAGE_COLUMNS, rows=list(self._rows()))],
        )  # fmt: skip

    def _rows(self) -> list[list[Any]]:
        found: list[list[Any]] = []
        for group in self.groups:
            mine = [activity for activity in self.phases if activity.phase.group == group.name]
            found += [_stage_row(activity) for activity in mine if activity.phase.name != "between stages"]
            sums = [group.seconds, None, None, group.tokens or None, _rate(group.tokens, group.seconds), "", ""]
            found.append([f"{group.name}: sum", *sums, group.overlap_seconds or None, f"{group.idle_share:.0%}"])
        return found


_STAGE_COLUMNS = (
    "stage", "seconds", "rows", "updates", "tokens", "tokens/s", "student requests", "teacher requests", "both s", "idle",
)  # fmt: skip


def _stage_row(activity: _Activity) -> list[Any]:
    name = f"{activity.phase.group}: {activity.phase.name}" + (f" ({activity.who})" if activity.who else "")
    return [
        name, activity.seconds, activity.rows, activity.updates or None, activity.tokens or None,
        _rate(activity.tokens, activity.seconds), activity.student.told(), activity.teacher.told(),
        activity.overlap_seconds or None, f"{activity.idle_share:.0%}",
    ]  # fmt: skip


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if tokens and seconds else None


def read_result(path: Path) -> Result:
    """UserError, naming the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
        keys = _keys(from_json(text))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # also of a file that is not UTF-8
        raise UserError(f"{path}: not JSON: {error}") from None
    form: type[_Measured | _Stages] = _Stages if "format" not in keys and {"phases", "groups"} <= keys else _Measured
    if form is _Measured and "format" not in keys:
        raise UserError(f"{path}: no result of a benchmark: it has no `format` ({FORMAT}), and is none that iteration.py wrote")
    try:
        return form.model_validate_json(text).result(path.name)
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_told, error.errors()))}") from None


def _told(wrong: ErrorDetails) -> str:
    where = ".".join(map(str, wrong["loc"]))
    return (f"{where}: " if where else "") + wrong["msg"].removeprefix("Value error, ")


def _keys(data: Any) -> set[str]:
    return set(data) if isinstance(data, dict) else set()
