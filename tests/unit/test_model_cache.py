"""The cache of converted models and of their shas: on disks without locks, without space, and where another was first."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.models.folders import locked, model_sha, place


def test_a_disk_without_locks_converts_all_the_same_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(stream: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with caplog.at_level(logging.WARNING), locked(tmp_path / "model.lock"):
        (tmp_path / "converted").write_text("model")
    assert (tmp_path / "converted").exists()
    assert f"{tmp_path}: a file system without locks" in caplog.text


def test_one_converts_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "model.lock"), open(tmp_path / "model.lock", "a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "model.lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_whoever_placed_a_model_first_stays(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
        place(tmp_path / name, tmp_path / "target")
    assert (tmp_path / "target" / "model.safetensors").read_text() == "first"
    with pytest.raises(FileNotFoundError):
        place(tmp_path / "nowhere", tmp_path / "another")


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"/file/cache, where .* are kept: Not a directory; set LLM2LLM_CACHE to a folder"):
        model_sha(str(tmp_path / "model"))
