"""What a training leaves behind while it runs: a line per update, and the micro-batch size that memory allowed.

Both survive the workers, so a restarted group goes on with them. Rank 0 writes the lines; the driver reads them for its live
progress. After a restart the log repeats the updates that were lost: a reader takes the last line of a number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from llm2llm_ray.storage.files import Files

SECONDS_BETWEEN_UPLOADS = 15.0
"""On object stores, which cannot append, the log is put whole at most this often."""


def log_stem(label: str, key: str) -> str:
    """Where the log of a training lies. Example: log_stem("001", "7d2680a4…") == "train/001-7d2680a4a75f"."""
    return f"train/{label}-{key[:12]}"


def fold_label(iteration: int, fold: int) -> str:
    """Of the training without that fold. Example: fold_label(0, 1) == "000-fold-1"."""
    return f"{iteration:03d}-fold-{fold}"


class TrainingLog:
    """`<stem>.jsonl`, and empty files `<stem>.micro-<n>`."""

    def __init__(self, files: Files, stem: str) -> None:
        self._files = files
        self._stem = stem
        self._uploaded = 0.0
        self._lines: bytes | None = None

    @property
    def path(self) -> str:
        return f"{self._stem}.jsonl"

    def write(self, *, last: bool = False, **fields: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), **fields}).encode() + b"\n"
        if self._files.local_root is not None:
            with self._files.open_append(self.path) as stream, self._files.refusals():
                stream.write(line)
            return
        if self._lines is None:
            self._lines = self._files.read_bytes(self.path) if self._files.exists(self.path) else b""
        self._lines += line
        if last or time.monotonic() - self._uploaded > SECONDS_BETWEEN_UPLOADS:
            self._files.replace(self.path, self._lines)
            self._uploaded = time.monotonic()

    def read(self) -> Iterator[dict[str, Any]]:
        """Every line so far; one that is being written is left out."""
        if self._files.exists(self.path):
            for line in self._files.read_bytes(self.path).splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def micro_batch_size(self, configured: int) -> int:
        """The smallest size that this training was lowered to, or the configured one."""
        size = configured
        while size > 1 and self._files.exists(self._mark(size // 2)):
            size //= 2
        return size

    def lower_micro_batch_size(self, size: int) -> None:
        self._files.write_once(self._mark(size), b"")

    def _mark(self, size: int) -> str:
        return f"{self._stem}.micro-{size}"
