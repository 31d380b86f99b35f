"""The files of one run, under one root: a local (or shared) path, or a URI that pyarrow opens.

Invariant: a file is seen whole or not at all, and one written with `write_once` never changes. Locally that holds
against SIGKILL and power loss. On object stores a PUT is atomic, but "check, then write" can write twice; names there
are hashes of the content, or their writers hold the run, so the second write changes nothing. Not run on a real object
store, only against moto's imitation of S3.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.disk import FULL, refusals

SCRATCH = ".tmp"
"""Of files being written; what stands there is nobody's result."""
_COPY_BYTES = 8 << 20
_MORE_SPACE = "free some space there or get the right to write, and run the same command again; or set run.folder to another disk"


class Files:
    """Picklable. Paths given and returned are relative to the root, with forward slashes.

    `filesystem` replaces the one found from a URI (an S3 look-alike with settings of its own); `root` is a path in it.
    Example: Files("runs/demo").write_once("stages/seed-1f.json", b"{}")
    """

    def __init__(self, root: str, *, filesystem: pafs.FileSystem | None = None) -> None:
        is_uri = "://" in root
        if is_uri and urlsplit(root).password is not None:
            raise UserError("run.folder holds a password; give credentials in the environment (AWS_..., GOOGLE_...)")
        try:
            if filesystem is not None:
                found, base = filesystem, root
            elif is_uri:
                found, base = pafs.FileSystem.from_uri(root)
            else:
                found, base = pafs.LocalFileSystem(), os.path.abspath(root)
        except (ValueError, OSError) as error:  # pyarrow.ArrowInvalid is a ValueError
            raise UserError(f"run.folder {root}: pyarrow cannot open it: {error}") from None
        self._filesystem = found
        self._base = base.rstrip("/")
        local = filesystem is None and isinstance(found, pafs.LocalFileSystem)
        self.local_root: Path | None = Path(base) if local else None
        """None where files are reached through pyarrow only."""
        self.root: str = base if local or not is_uri else root

    def absolute(self, path: str) -> str:
        """The path or URI by which others (transformers, Ray Data) find the file."""
        if self.local_root is not None:
            return str(self._local(path))
        url, query, options = self.root.partition("?")
        return f"{url.rstrip('/')}/{path}{query}{options}"

    def open_input(self, path: str) -> Any:
        """A seekable pyarrow file; FileNotFoundError when there is none. The caller closes it."""
        return self._filesystem.open_input_file(self._inside(path))

    def read_bytes(self, path: str) -> bytes:
        with self.open_input(path) as stream:
            return bytes(stream.read())

    def read_json(self, path: str) -> Any:
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise UserError(f"{self.absolute(path)}: not JSON ({error}); remove it or restore a copy") from None

    def exists(self, path: str) -> bool:
        return bool(self._filesystem.get_file_info(self._inside(path)).type != pafs.FileType.NotFound)

    def list(self, prefix: str) -> Sequence[str]:
        """All files below the folder `prefix`, at any depth, sorted; none when the folder is missing."""
        selector = pafs.FileSelector(self._inside(prefix), allow_not_found=True, recursive=True)
        found = (info.path for info in self._filesystem.get_file_info(selector) if info.type == pafs.FileType.File)
        paths = (path.removeprefix(self._base + "/") for path in found)
        return sorted(path for path in paths if not path.startswith(SCRATCH + "/"))

    def write_once(self, path: str, data: bytes) -> bool:
        """Put `data` there unless a file stands there already (then False, and that file stays). Durable on return."""
        with self.scratch() as draft:
            draft.write_bytes(data)
            return self.place(draft, path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local path to write a file at before it is put in place; gone afterwards."""
        if self.local_root is None:
            folder = Path(tempfile.gettempdir())
        else:
            folder = self.local_root / SCRATCH  # inside the root: hard links do not cross file systems
            with self.refusals():
                folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"llm2llm-{uuid.uuid4().hex}"
        try:
            with refusals(str(folder), _MORE_SPACE, FULL):
                yield draft
        finally:
            draft.unlink(missing_ok=True)

    def refusals(self) -> AbstractContextManager[None]:
        """For writing below the root: what the disk refuses there is the user's to mend."""
        return refusals(f"run.folder {self.root}", _MORE_SPACE)

    def clear_scratch(self) -> None:
        """Remove what killed writers left. Only for the holder of the run's lease, before it starts anything."""
        if self.local_root is not None:
            shutil.rmtree(self.local_root / SCRATCH, ignore_errors=True)

    def place(self, draft: Path, path: str) -> bool:
        """`write_once` for a finished file of any size made in `scratch`."""
        if self.local_root is not None:
            with self.refusals():
                _sync(draft)
            return self._hard_link(draft, self._local(path))
        if self.exists(path):
            return False
        with draft.open("rb") as source, self._output(path) as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        return True

    def link(self, source: str, target: str) -> bool:
        """Make `target` the same bytes as `source`: a hard link locally, else a copy; False when it stands already."""
        if self.local_root is not None:
            return self._hard_link(self._local(source), self._local(target))
        if self.exists(target):
            return False
        self._filesystem.create_dir(self._inside(target).rpartition("/")[0], recursive=True)
        self._filesystem.copy_file(self._inside(source), self._inside(target))
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write or overwrite; a reader sees the old bytes or the new ones. For status files only."""
        if self.local_root is None:
            with self._output(path) as target:
                target.write(data)
            return
        place = self._local(path)
        with self.refusals():
            _make_folder(place.parent)
            with self.scratch() as draft:
                draft.write_bytes(data)
                _sync(draft)
                os.replace(draft, place)
            _sync(place.parent)

    def open_append(self, path: str) -> io.FileIO:
        """A local file for unbuffered appending, its name durable on return. Object stores cannot append."""
        place = self._local(path)
        with self.refusals():
            _make_folder(place.parent)
            stream = io.FileIO(place, "a")
            _sync(place.parent)
        return stream

    def _hard_link(self, source: Path, target: Path) -> bool:
        with self.refusals():
            _make_folder(target.parent)
        try:
            os.link(source, target)
            made = True
        except FileExistsError:
            made = False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise UserError(f"{target}: no hard link ({error.strerror}); put run.folder on another disk") from error
            with self.refusals():
                raise
        # Also when it stood already: whoever made it may not have reached this line yet.
        _sync(target.parent)
        return made

    def _output(self, path: str) -> Any:
        inside = self._inside(path)
        self._filesystem.create_dir(inside.rpartition("/")[0], recursive=True)
        return self._filesystem.open_output_stream(inside)

    def _inside(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} is not a path below the run folder")
        return f"{self._base}/{path}".rstrip("/")

    def _local(self, path: str) -> Path:
        assert self.local_root is not None, f"{self.root} is not a local folder"
        return Path(self._inside(path))


def read_anywhere(path: str) -> bytes:
    """The file at what `Files.absolute` gave, in a process that knows no run. Raises FileNotFoundError."""
    if "://" not in path:
        return Path(path).read_bytes()
    filesystem, inner = pafs.FileSystem.from_uri(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """fsync of a file's bytes, or of a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
