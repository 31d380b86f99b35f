"""A user's file as it comes out of a spreadsheet or a database, read as text: its delimiter and encoding are found, not asked.

UTF-8 with or without a byte order mark is read, and UTF-16 with one (Excel's "Unicode text"). Eight-bit encodings cannot be told
apart, so they are refused with the line that shows it unless `encoding` names one. Every value is text: a label 3 is "3".
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unicodedata import normalize

from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.rows import existing, json_rows, parquet_rows, separated_rows, shown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SNIFFED = 500
"""Rows that are looked at for the delimiter."""
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class Table:
    """Example: Table("tickets.csv", ("id", "text"), ((2, {"id": "1", "text": "Hello"}),), "commas between columns, UTF-8")"""

    path: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    """(line where the row begins, column -> text; "" where it has no value)."""
    read_as: str
    nested: frozenset[str] = frozenset()
    """Columns that hold lists or objects."""


def read_table(source: str | Path, encoding: str | None = None) -> Table:
    """Raises UserError naming file, line, value and remedy."""
    path = existing(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}): give a file that you may read") from None
    if path.suffix not in SUFFIXES:
        raise UserError(f"{source}: unknown kind of file: init reads {', '.join(SUFFIXES)} (a JSON array: one object per line)")
    if path.suffix == ".parquet":
        return _table(path, parquet_rows(path), "Parquet")
    text, read_as = decoded(content, str(path), encoding)
    if path.suffix == ".jsonl":
        return _table(path, json_rows(text.split("\n"), str(path)), f"JSON lines, {read_as}")
    delimiter = "\t" if path.suffix == ".tsv" else delimiter_of(text)
    rows = separated_rows(io.StringIO(text, newline=""), str(path), delimiter)
    return _table(path, rows, f"{DELIMITERS[delimiter]} between columns, {read_as}")


def decoded(content: bytes, place: str, encoding: str | None = None) -> tuple[str, str]:
    """The text, and how its encoding is called; raises UserError."""
    mark = next((name for start, name in _MARKS.items() if content.startswith(start)), None)
    if encoding is None and mark is None:
        if b"\0" in content[:4096]:
            raise UserError(
                f"{place}: no text, or UTF-16 without a byte order mark: say so with --encoding utf-16-le, or save it as UTF-8"
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(_not_utf8(content, place, error.start)) from None
        return text, "UTF-8 with a byte order mark" if content.startswith(codecs.BOM_UTF8) else "UTF-8"
    name = encoding or mark or ""
    try:
        return content.decode(name).removeprefix("\ufeff"), name.upper()
    except LookupError:
        raise UserError(
            f"{place}: --encoding {name}: no such encoding; write utf-8, utf-16, cp1252 or another that Python knows"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not {name.upper()}: {error.reason} at byte {error.start + 1}: name another one with --encoding"
        ) from None


def _not_utf8(content: bytes, place: str, start: int) -> str:
    line = content.count(b"\n", 0, start) + 1
    first, last = content.rfind(b"\n", 0, start) + 1, content.find(b"\n", start)
    around = content[max(first, start - 20) : min(start + 20, last if last >= 0 else len(content))]
    return (
        f"{place}, line {line}: not UTF-8 at byte {start - first + 1}. As Windows writes it (cp1252) this reads "
        f"{shown(around.decode('cp1252', 'replace'))}: if that is right, add --encoding cp1252; else name the right one, or save "
        "the file as UTF-8"
    )


def delimiter_of(text: str) -> str:
    """What separates the columns: of the delimiters that the first line has, the one by which most rows are as long as it;
    among equals the one that makes more columns. A file of one column is separated by commas."""
    return max(DELIMITERS, key=lambda delimiter: _fit(text, delimiter))


def _fit(text: str, delimiter: str) -> tuple[bool, float, int]:
    records = _records(text, delimiter)
    width = len(next(records, ()))
    lengths = [len(record) for record in islice(records, _SNIFFED)]
    whole = sum(length == width for length in lengths) / len(lengths) if lengths else 1.0
    return width > 1, whole, width


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Up to the first that cannot be read by this delimiter, which stands as an empty one."""
    try:
        for record in csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter):
            if record:
                yield record
    except csv.Error:
        yield []


def _table(path: Path, rows: Iterator[tuple[int, dict[str, object]]], read_as: str) -> Table:
    columns: dict[str, None] = {}
    nested: set[str] = set()
    read: list[tuple[int, Mapping[str, str]]] = []
    for line, row in rows:
        values: dict[str, str] = {}
        for given, value in row.items():
            name = normalize("NFC", str(given)).strip()
            if name in values:
                raise UserError(f"{path}, line {line}: column {shown(name)} stands twice, spelled alike: rename one")
            values[name] = as_text(value)
            if isinstance(value, list | dict):
                nested.add(name)
        columns.update(dict.fromkeys(values))
        read.append((line, values))
    if not read:
        raise UserError(f"{path}: the file has no rows: at least one line below the names of the columns is needed")
    used = [name for name in columns if name or any(values.get(name) for _, values in read)]
    return Table(str(path), tuple(used), tuple(read), read_as, frozenset(nested))


def as_text(value: object) -> str:
    """A value as a label or a text. Example: [as_text(v) for v in (3, 3.0, None, True)] == ["3", "3", "", "true"]"""
    if value is None or value != value:  # a NaN is the one value that differs from itself
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # what a spreadsheet's numbers become beside an empty cell
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    text = str(value).strip()
    return text if any(char.isprintable() and not char.isspace() for char in text) else ""
