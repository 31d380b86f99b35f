"""Rows out of a user's file (JSON lines, CSV, Parquet) or a Hugging Face dataset, with the place each came from.

Every complaint is a UserError that names file, line, field, value and remedy. What a row means is the task's business.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import normalize

from llm2llm_ray.errors import UserError

SUFFIXES = (".jsonl", ".csv", ".parquet")

Row = dict[str, object]


def shown(value: object) -> str:
    """A value as a person sees it in a message: one line, at most 60 characters."""
    text = repr(value) if not isinstance(value, str) else f"'{' '.join(value.split())}'"
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_of(row: Mapping[str, object], field: str, *, numbers: bool = False) -> str:
    """The text in a row's field, stripped; with `numbers` a whole number counts as text (labels 0, 1, ...).

    Raises ValueError naming field, value and remedy.
    """
    value = row.get(field)
    if numbers and isinstance(value, int):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"field {field}: expected text, found {type(value).__name__} {shown(value)}: flatten or correct the row")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {field}: {ascii(value)[:60]} is not valid Unicode: correct the row") from None
    return value.strip()


def read_rows(source: str | Path, *, split: str, columns: Mapping[str, str], needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Line number and row of `source`: a file, or `owner/name` (`owner/name:config`) on the Hugging Face hub.

    Each row has the file's columns, the `needed` fields under the task's names (`columns` maps a field to its column
    in the file), and an `id`: the file's, or one made of the content (stable when rows are added or moved). `split` is
    the hub split, and its first letter begins the ids. Parquet and hub rows are counted from 1.
    Raises UserError.
    """
    _check_mapping(columns, needed)
    known: dict[str, int] = {}
    repeats: Counter[str] = Counter()
    place = place_of(source, split)
    columns = {field: normalize("NFC", name) for field, name in columns.items()}
    for line, read in _raw_rows(source, split):
        where = f"{place}, line {line}"
        raw = {normalize("NFC", name) if isinstance(name, str) else name: value for name, value in read.items()}
        row = {**raw, **_fields(raw, columns, needed, where)}
        row["id"] = _id(raw, columns.get("id", "id"), where) or _content_id(row, needed, split, repeats)
        if str(row["id"]) in known:
            raise UserError(f"{where}: id {shown(row['id'])} is also on line {known[str(row['id'])]}: ids must differ")
        known[str(row["id"])] = line
        yield line, row
    if not known:
        raise UserError(f"{place}: the file has no rows: at least one is needed")


def place_of(source: str | Path, split: str) -> str:
    """How messages call the rows of `source`."""
    return f"{source}, split {split}" if _is_hub(source) else str(source)


def _is_hub(source: str | Path) -> bool:
    return Path(source).suffix not in SUFFIXES and not Path(source).exists()


def _check_mapping(columns: Mapping[str, str], needed: Sequence[str]) -> None:
    for field in columns:
        if field not in (*needed, "id"):
            close = difflib.get_close_matches(field, needed, n=1)
            hint = f"did you mean {close[0]}?" if close else f"this task's fields: {', '.join(needed)}"
            raise UserError(f"task.columns: {field}: no such field; {hint} (write field: column of the file)")


def _fields(raw: Row, columns: Mapping[str, str], needed: Sequence[str], where: str) -> Row:
    names = {field: columns.get(field, field) for field in needed}
    missing = {field: name for field, name in names.items() if name not in raw}
    if missing:
        raise UserError(f"{where}: {_missing(missing, [name for name in raw if name])}")
    for field, name in names.items():
        value = raw[name]
        if value is None or value != value:  # a NaN is the one value that differs from itself
            raise UserError(f"{where}: field {field}: {shown(value)} is no value: fill it in or remove the row")
        if isinstance(value, str) and not any(char.isprintable() and not char.isspace() for char in value):
            raise UserError(f"{where}: field {field}: the text is blank ({shown(value)}): fill it in or remove the row")
    return {field: raw[name] for field, name in names.items()}


def _missing(missing: Mapping[str, str], present: Sequence[str]) -> str:
    field, name = next(iter(missing.items()))
    close = difflib.get_close_matches(name, present, n=1)
    if not close and len(present) == 1 and (";" in present[0] or "\t" in present[0]):
        hint = "columns must be separated by commas (`llm2llm init` reads others, and writes files that a run reads)"
    else:
        hint = f"map them with task.columns: {{{field}: {close[0] if close else 'column of the file'}}}"
    return f"no column {' and no column '.join(missing.values())} here (columns: {', '.join(present)}); {hint}"


def _id(raw: Row, name: str, where: str) -> str | None:
    if name not in raw:
        return None
    value = raw[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(f"{where}: id {shown(value)}: expected a text or whole number: correct it or drop the column")
    return str(value).strip()


def _content_id(row: Row, needed: Sequence[str], split: str, repeats: Counter[str]) -> str:
    content = json.dumps([row[field] for field in needed], default=str)
    made = f"{split[:1]}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    repeats[made] += 1
    return made if repeats[made] == 1 else f"{made}-{repeats[made]}"


def _raw_rows(source: str | Path, split: str) -> Iterator[tuple[int, Row]]:
    if _is_hub(source):
        return _hub(str(source), split)
    path = existing(source)
    if path.suffix == ".jsonl":
        return json_rows(_lines(path), str(path))
    if path.suffix == ".csv":
        return separated_rows(_lines(path), str(path))
    if path.suffix == ".parquet":
        return parquet_rows(path)
    raise UserError(f"{source}: unknown kind of file: use {', '.join(SUFFIXES)}")


def existing(source: str | Path) -> Path:
    """Raises UserError when this is no file."""
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{source}: no such file{neighbours(path)}")
    return path


def neighbours(path: Path) -> str:
    """What lies beside a path that does not exist, as the end of a message."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = sorted(item.name for item in path.parent.iterdir())[:12]
    return f" (in {path.parent}: {', '.join(names) or 'nothing'})"


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: invalid UTF-8 at byte {error.start + 1} "
                    f"({shown(line[error.start : error.start + 8])}): save the file as UTF-8"
                ) from None


def json_rows(lines: Iterable[str], place: str) -> Iterator[tuple[int, Row]]:
    """Line number and object of each line that is not blank; raises UserError, which calls the file `place`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_not_json)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{place}, line {number}: malformed JSON ({str(error)[:80]}): {shown(line)}; each line must be one JSON object"
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{place}, line {number}: expected a JSON object, found {type(row).__name__}: {shown(line)}")
        yield number, row


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def separated_rows(lines: Iterable[str], place: str, delimiter: str = ",") -> Iterator[tuple[int, Row]]:
    """The line where each row begins, and the row by the names in the header (RFC 4180, with any delimiter); raises UserError."""
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            if values and not header:
                header = values
                repeated = [name for name, times in Counter(header).items() if times > 1]
                if repeated:
                    raise UserError(f"{place}, line {line}: column {shown(repeated[0])} stands twice in the header")
            elif values:
                yield line, _by_name(values, header, f"{place}, line {line}", delimiter)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{place}, line {line}: malformed CSV ({error}): check the quotes of this row") from None


def _by_name(values: list[str], header: list[str], where: str, delimiter: str) -> Row:
    if len(values) != len(header):
        separator = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[delimiter]
        raise UserError(
            f"{where}: {len(values)} fields, but the header has {len(header)} ({', '.join(header)}), "
            f"near {shown(values[-1])}: put double quotes around a text with {separator} in it"
        )
    return dict(zip(header, values, strict=True))


def parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows counted from 1; raises UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error)[:120]}") from None
    return _counted(rows)


@lru_cache(maxsize=2)
def hub_splits(name: str) -> Mapping[str, Any]:
    """All splits of a hub dataset (`owner/name` or `owner/name:config`) by name; raises UserError."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"{name}: reading from the Hugging Face hub needs `pip install datasets`") from None
    path, _, config = name.partition(":")
    try:
        return dict(load_dataset(path, config or None))
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{name}: no such file or folder here, and not loaded from the Hugging Face hub: {first} "
            "(a dataset with several configurations is written owner/name:config)"
        ) from None


def _hub(name: str, split: str) -> Iterator[tuple[int, Row]]:
    splits = hub_splits(name)
    if split not in splits:
        raise UserError(f"{name}: no split {split}: it has {', '.join(splits)}; name one in task.seed, dev or test")
    dataset = splits[split]
    names = {column: feature.names for column, feature in dataset.features.items() if type(feature).__name__ == "ClassLabel"}
    return _counted(_named(row, names) for row in dataset)


def _named(row: Row, names: Mapping[str, Sequence[str]]) -> Row:
    """Class numbers as class names; -1 is the hub's way to say that a label is withheld."""
    return {
        column: names[column][value] if column in names and isinstance(value, int) and value >= 0 else value
        for column, value in row.items()
    }


def _counted(rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
    return iter(enumerate(rows, 1))
