"""Files: whole or absent, written once, on a local folder and through pyarrow alone (as on an object store)."""

import pickle
import threading
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.storage.training_log import TrainingLog


@pytest.fixture(params=["local", "pyarrow"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "local":
        return Files(str(tmp_path / "run"))
    return Files(str(tmp_path / "run"), filesystem=pafs.LocalFileSystem())


def test_a_file_is_written_once(files: Files) -> None:
    assert files.write_once("a/b/c.json", b'{"x": 1}')
    assert not files.write_once("a/b/c.json", b"other")
    assert files.read_json("a/b/c.json") == {"x": 1}
    assert files.list("") == ["a/b/c.json"]


def test_replace_overwrites_and_leaves_nothing_else(files: Files) -> None:
    files.replace("status.json", b"1")
    files.replace("status.json", b"22")
    assert files.read_bytes("status.json") == b"22"
    assert files.list("") == ["status.json"]


def test_a_link_survives_its_source(files: Files) -> None:
    files.write_once("a/one", b"rows")
    assert files.link("a/one", "b/one")
    assert not files.link("a/one", "b/one")
    Path(files.absolute("a/one")).unlink()
    assert files.read_bytes("b/one") == b"rows"


def test_what_is_missing(files: Files) -> None:
    assert files.list("nowhere") == []
    assert not files.exists("nowhere")
    with pytest.raises(FileNotFoundError):
        files.read_bytes("nowhere")


def test_a_pickled_copy_sees_the_same_files(files: Files) -> None:
    copy = pickle.loads(pickle.dumps(files))
    copy.write_once("x", b"1")
    assert files.read_bytes("x") == b"1"
    assert (copy.local_root is None) == (files.local_root is None)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/run", "a/../../b"])
def test_paths_stay_below_the_root(files: Files, path: str) -> None:
    with pytest.raises(ValueError, match="below the run folder"):
        files.write_once(path, b"")


def test_of_many_writers_one_wins_and_all_see_its_bytes(tmp_path: Path) -> None:
    files, wins, gate = Files(str(tmp_path)), [], threading.Barrier(8)

    def write(number: int) -> None:
        gate.wait()
        if files.write_once("x/y", bytes([number]) * 100_000):
            wins.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert files.read_bytes("x/y") == bytes(wins) * 100_000
    assert not any((tmp_path / ".tmp").iterdir())


def test_damaged_json_names_the_file(files: Files) -> None:
    files.write_once("m.json", b'{"id": ')
    with pytest.raises(UserError, match=r"m\.json: not JSON"):
        files.read_json("m.json")


def test_a_file_uri_is_a_local_folder(tmp_path: Path) -> None:
    assert Files(f"file://{tmp_path}").local_root == tmp_path


def test_absolute_of_a_uri_keeps_its_options() -> None:
    files = Files("s3://bucket/runs/demo?region=eu-west-1&scheme=https")
    assert files.absolute("stages/a.json") == "s3://bucket/runs/demo/stages/a.json?region=eu-west-1&scheme=https"
    assert files.local_root is None


def test_a_password_in_the_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="environment") as caught:
        Files("s3://key:hunter2@bucket/run")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_scheme_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="nonsense://x"):
        Files("nonsense://x")


def test_leftovers_of_killed_writers_are_not_listed_and_can_be_cleared(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    files.write_once("kept", b"")
    (tmp_path / ".tmp" / "llm2llm-dead").write_bytes(b"half")
    assert files.list("") == ["kept"]
    files.clear_scratch()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


FULL = "No space left on device; free some space there or get the right to write, and run the same command again"


def test_a_full_disk_is_named_wherever_it_is_met(tmp_path: Path) -> None:
    """/dev/full is what the kernel has for this: each write to it finds the disk full."""
    files = Files(str(tmp_path / "run"))
    with pytest.raises(UserError) as caught, files.scratch() as draft:
        draft.symlink_to("/dev/full")
        draft.write_bytes(b"rows")
    assert str(caught.value).startswith(f"{tmp_path}/run/.tmp: {FULL}")
    for name in ("events.jsonl", "training.jsonl"):
        (tmp_path / "run" / name).symlink_to("/dev/full")
    for write in (lambda: Events(files).add("started"), lambda: TrainingLog(files, "training").write(loss=1.0)):
        with pytest.raises(UserError) as caught:
            write()
        assert str(caught.value).startswith(f"run.folder {tmp_path}/run: {FULL}")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    files = Files(str(tmp_path / "file"))
    writes = (
        lambda: files.write_once("a", b""), lambda: files.replace("a", b""), lambda: files.open_append("a"),
        lambda: files.link("a", "b/c"),
    )  # fmt: skip
    for write in writes:
        with pytest.raises(UserError, match=f"^run.folder {tmp_path}/file: (Not a directory|File exists); free some space"):
            write()


def test_what_is_no_matter_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Files(str(tmp_path)).scratch() as draft:
        draft.read_bytes()
