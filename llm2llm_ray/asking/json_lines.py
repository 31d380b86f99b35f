"""Files of JSON lines that stand in for a model: one object a line, gzipped or not, each with its place for error messages."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llm2llm_ray.errors import UserError

_GZIP = b"\x1f\x8b"
_SHOWN = 80


def read_bytes(path: str | Path, remedy: str) -> bytes:
    """Of a file on this machine. Raises UserError, which ends in `remedy`: what to give instead."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def records(file: str, data: bytes, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of every line of `data` that is not blank. Raises UserError (file, line, remedy)."""
    for number, line in enumerate(_lines(file, data), start=1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON: {getattr(error, 'msg', error)}; {remedy}") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object, found {cut(record)}; {remedy}")
        yield where, record


def cut(value: object) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _lines(file: str, data: bytes) -> Iterable[bytes]:
    if not data.startswith(_GZIP):
        return io.BytesIO(data)
    try:
        return io.BytesIO(gzip.decompress(data))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: not whole gzip data ({error}); copy it again") from None
