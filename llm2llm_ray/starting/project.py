"""From a file to a config and the files it names: looked at, cleaned, split, written, and every decision told in a line.

Nothing is written before all of it is known, and no file is overwritten without `force`, the user's own never.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.cleaning import KINDS, Clean, LeftOut, Read, cleaned
from llm2llm_ray.starting.columns import Choose, Roles, find_roles
from llm2llm_ray.starting.config_text import Written, config_text
from llm2llm_ray.starting.splitting import split, usual_sizes
from llm2llm_ray.starting.table import Table, read_table
from llm2llm_ray.tasks.rows import shown

_NAMED = 5
"""Rows that are named of each kind that is left out."""
_OURS = frozenset({"id", "line", ""})
"""Names in the files we write: where a user's column is called so, both columns get the fields' names there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user said."""

    file: Path
    text: str | None = None
    label: str | None = None
    dev: Path | None = None
    test: Path | None = None
    dev_rows: int | None = None
    test_rows: int | None = None
    split_seed: int = 0
    name: str | None = None
    encoding: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    config: Path
    told: tuple[str, ...]
    """Lines for the user: what was read as what, what was left out, what was written."""


def start(wanted: Wanted, choose: Choose, folder: Path) -> Started:
    """Writes `<name>.yaml` and the folder `<name>-data` into `folder`; raises UserError."""
    name = _name(wanted)
    config, data = folder / f"{name}.yaml", folder / f"{name}-data"
    targets = [config, *(data / f"{role}.jsonl" for role in ("seed", "dev", "test", "left_out"))]
    _may_write(targets, wanted)
    tables = {"rows": read_table(wanted.file, wanted.encoding)}
    roles = find_roles(tables["rows"], text=wanted.text, label=wanted.label, choose=choose)
    for role, file in (("dev", wanted.dev), ("test", wanted.test)):
        if file is not None:
            tables[role] = _beside(read_table(file, wanted.encoding), roles, role)
    clean = cleaned(tables, roles)
    parts = _parts(clean, wanted)
    fields = _fields(clean, roles)
    files = {role: f"{data.name}/{role}.jsonl" for role in parts}
    text = config_text(
        Written(
            name=name, source=str(wanted.file), task=clean.task, task_name=roles.task,
            columns={field: column for field, column in fields.items() if field != column}, files=files, rows=parts,
        )
    )  # fmt: skip
    contents = {data / f"{role}.jsonl": _jsonl(_row(row, fields) for row in rows) for role, rows in parts.items()}
    if clean.left_out:
        contents[data / "left_out.jsonl"] = _jsonl(_left(item, fields) for item in clean.left_out)
    _write(data, targets, {**contents, config: text})
    return Started(config, tuple(_told(tables, roles, clean, parts, config, data)))


def _name(wanted: Wanted) -> str:
    if wanted.name is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", wanted.name):
            raise UserError(f"--name {wanted.name}: small letters, digits and hyphens, at most 41, such as tickets-2")
        return wanted.name
    plain = normalize("NFKD", wanted.file.stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "run"


def _may_write(targets: Sequence[Path], wanted: Wanted) -> None:
    own = [file.resolve() for file in (wanted.file, wanted.dev, wanted.test) if file is not None]
    for target in targets:
        if target.resolve() in own:
            raise UserError(f"{target}: is the file that is read, and would be overwritten: give another --name")
    there = [str(target) for target in targets if target.exists()]
    if there and not wanted.force:
        raise UserError(f"{there[0]}: is there already{_more(there)}: give another --name, or --force to write it anew")


def _beside(table: Table, roles: Roles, role: str) -> Table:
    for column in (roles.text, roles.label):
        if column not in table.columns:
            raise UserError(
                f"--{role} {table.path}: no column {column} (columns: {', '.join(table.columns)}): name it as in the first file"
            )
    return table


def _parts(clean: Clean, wanted: Wanted) -> dict[str, list[Read]]:
    """Rows by role; a role without rows is not there."""
    pool = [row for row in clean.rows if row.role == "rows"]
    if not pool:
        raise UserError(f"{wanted.file}: no row is left to train on: {_why_none(clean)}")
    usual = usual_sizes(len(pool))
    sizes = {}
    for role, given, count, most in (
        ("dev", wanted.dev, wanted.dev_rows, usual.dev), ("test", wanted.test, wanted.test_rows, usual.test),
    ):  # fmt: skip
        if given is not None and count is not None:
            raise UserError(f"--{role} names the rows, --{role}-rows splits some off: give one of them")
        if count is not None and not 0 <= count <= len(pool) // 2:
            raise UserError(f"--{role}-rows {count}: {wanted.file} has {len(pool)} usable rows: 0 to half of them")
        sizes[role] = 0 if given is not None else most if count is None else count
    parts = split(pool, clean.task, sizes, wanted.split_seed)
    for role, count in (("dev", wanted.dev_rows or 0), ("test", sizes["test"])):
        if count and not parts[role]:
            raise UserError(
                f"{wanted.file}: no {role} rows can be split off: the {len(pool)} usable rows are too few of each label, or too "
                f"much alike. Name a file with --{role}, or write --{role}-rows 0 to go without"
            )
    for role, given in (("dev", wanted.dev), ("test", wanted.test)):
        if given is not None:
            parts[role] = [row for row in clean.rows if row.role == role]
            if not parts[role]:
                raise UserError(f"--{role} {given}: no row of it is left: {_why_none(clean)}")
    return {role: rows for role, rows in parts.items() if rows}


def _why_none(clean: Clean) -> str:
    counts = Counter(item.kind for item in clean.left_out)
    return "; ".join(f"{count} {KINDS[kind]}" for kind, count in counts.items()) or "it has none"


def _fields(clean: Clean, roles: Roles) -> dict[str, str]:
    """Field of the task -> column in the files that are written."""
    names = dict(zip(clean.task.columns, (roles.text, roles.label), strict=True))
    return {field: field for field in names} if _OURS & set(names.values()) else names


def _row(row: Read, fields: Mapping[str, str]) -> dict[str, object]:
    text, label = fields.values()
    named: dict[str, object] = {} if row.id is None else {"id": row.id}
    return {**named, text: row.text, label: row.label, "line": row.line}


def _left(item: LeftOut, fields: Mapping[str, str]) -> dict[str, object]:
    return {"why": f"{item.kind}: {item.why}", "file": item.row.file, **_row(item.row, fields)}


def _jsonl(rows: Iterator[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(data: Path, targets: Sequence[Path], contents: Mapping[Path, str]) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        for target in targets:
            target.unlink(missing_ok=True)  # with --force: no file of an earlier call stays beside those of this one
        for path, text in contents.items():
            path.write_text(
                text, encoding="utf-8", errors="backslashreplace"
            )  # a lone surrogate, in left_out.jsonl, as JSON has it
    except OSError as error:
        raise UserError(f"{error.filename or data}: cannot be written ({error.strerror}): call init where files can be") from None


def _told(
    tables: Mapping[str, Table], roles: Roles, clean: Clean, parts: Mapping[str, Sequence[Read]], config: Path, data: Path
) -> Iterator[str]:
    for table in tables.values():
        yield f"{table.path}: {len(table.rows)} rows, {len(table.columns)} columns; {table.read_as}"
    yield f"Task {roles.task}. Columns:"
    yield from (f"  {line}" for line in roles.told)
    for other, label in clean.spellings.items():
        yield f"Label {shown(other)} reads the same as {shown(label)} and is written so."
    for kind, meaning in KINDS.items():
        left = [item for item in clean.left_out if item.kind == kind]
        if left:
            yield f"Left out: {len(left)} rows {meaning}:"
            yield from _named(kind, left, data)
    counts = ", ".join(f"{role} {len(parts[role])}" for role in ("seed", "dev", "test") if role in parts)
    yield f"Written: {config} and {data}/ ({counts} rows)."


def _named(kind: str, left: Sequence[LeftOut], data: Path) -> Iterator[str]:
    """A text with two labels is one line, since its rows' reason names all of them."""
    if kind == "two labels":
        lines = list(dict.fromkeys(f"{shown(item.row.text)} is {item.why}" for item in left))
    else:
        lines = [f"line {item.row.line} of {item.row.file}: {shown(item.row.text)}: {item.why}" for item in left]
    yield from (f"  {line}" for line in lines[:_NAMED])
    if len(lines) > _NAMED:
        yield f"  and {len(lines) - _NAMED} more, all in {data / 'left_out.jsonl'}"


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
