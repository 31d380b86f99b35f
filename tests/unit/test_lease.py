"""The run's lease: one live process at a time, free again however its holder ended."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage import lease
from llm2llm_ray.storage.lease import run_lease

REPO = Path(__file__).parents[2]
HOLDER = """
import sys
from llm2llm_ray.storage.lease import run_lease
with run_lease({root!r}):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    code = HOLDER.format(root=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate(timeout=60)


def test_a_second_driver_is_told_who_drives(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    who = rf"run .*/run is being driven by pid {holder.pid} on host \S+ since 20"
    with pytest.raises(UserError, match=who) as caught, run_lease(str(tmp_path / "run")):
        pytest.fail("two processes hold the run")
    assert "stop it or wait" in str(caught.value)
    # The refusal did not damage the holder's note: the next one is told the same.
    with pytest.raises(UserError, match=f"pid {holder.pid} "), run_lease(str(tmp_path / "run")):
        pass


def test_a_killed_holders_run_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait(timeout=60)
    assert str(holder.pid) in (tmp_path / "run" / "lease").read_text()
    with run_lease(str(tmp_path / "run")):
        assert str(os.getpid()) in (tmp_path / "run" / "lease").read_text()


def test_a_lease_ends_with_its_block_also_on_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), run_lease(str(tmp_path)):
            raise KeyError
    by_me = pytest.raises(UserError, match=f"pid {os.getpid()} ")
    with run_lease(f"file://{tmp_path}"), by_me, run_lease(str(tmp_path)):
        pytest.fail("held twice")


def test_other_runs_are_not_held(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with run_lease(str(tmp_path / "another")):
        assert holder.poll() is None


def test_who_holds_a_run_is_told_while_it_lives(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    root = str(tmp_path / "run")
    found = lease.holder(root)
    assert found is not None and found.pid == holder.pid and lease.is_driver(found)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{holder.pid}").exists(), "dead, but nobody has read its exit code"
    assert lease.holder(root) is None
    holder.wait(timeout=60)
    assert lease.holder(root) is None


def test_a_later_process_with_the_holders_id_is_not_the_holder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A kernel gives ids again; that is seen here by giving the holder's text the id of another process that lives."""
    file = tmp_path / "run" / "lease"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"pid": os.getpid()}))
    assert lease.holder(str(tmp_path / "run")) is None
    file.write_text(json.dumps(told))
    assert lease.holder(str(tmp_path / "run")) is not None


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]", "null"])
def test_a_lease_that_says_nothing_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease").write_text(text)
    assert lease.holder(str(tmp_path)) is None


def test_object_stores_keep_no_lease() -> None:
    assert [lease.keeps_lease(root) for root in ("runs/a", "/runs/a", "file:///runs/a", "s3://bucket/a")] == [True] * 3 + [False]
    assert lease.holder("s3://bucket/a") is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As an NFS without its lock service answers, or a Lustre that is mounted without flock."""

    def no_locks(stream: object, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UserError) as caught, run_lease(str(tmp_path / "run")):
        pytest.fail("two drivers could write here")
    assert str(caught.value).startswith(f"run.folder {tmp_path}/run: its file system has no locks ({os.strerror(code)})")
    assert "set run.folder to a local disk, or have it mounted with locks" in str(caught.value)


def test_what_is_wrong_with_the_lock_itself_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stream: object, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"), run_lease(str(tmp_path / "run")):
        pass


def test_a_place_where_no_run_can_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "lease").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    def told(folder: str) -> str:
        with pytest.raises(UserError) as caught, run_lease(folder):
            pytest.fail("held")
        return str(caught.value).removesuffix("; set run.folder to a folder that you may write to, on a disk with space")

    assert told(f"{tmp_path}/file/run") == f"run.folder {tmp_path}/file/run: Not a directory"
    assert told(f"file://{tmp_path}/file") == f"run.folder {tmp_path}/file: File exists"
    assert told(f"{tmp_path}/taken") == f"run.folder {tmp_path}/taken: Is a directory"
    assert told(f"{tmp_path}/{'n' * 300}").endswith(": File name too long")
    assert told(f"{tmp_path}/loop/run").endswith(": Too many levels of symbolic links")
