"""What `gc` lets go: of a finished, an unfinished and a running run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_run import Writer
from stream_rows import Stream, solved

from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.retention import inventory, remove, size_on_disk
from llm2llm_ray.storage.lease import run_lease

NEVER = ("versions", "replies", "configs", "inputs", "events.jsonl", "report.json")


def going(record: RunRecord) -> list[str]:
    return sorted(item.path.partition("-")[0] for item in inventory(record) if item.can_go)


def contents(root: Path, *tops: str) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for top in tops
        for path in ([root / top] if (root / top).is_file() else sorted((root / top).rglob("*")))
        if path.is_file()
    }


def with_replies(record: RunRecord) -> RunRecord:
    record.files.write_once("replies/student-0/segment-1.jsonl", b"{}\n")
    return record


def checkpoint(record: RunRecord, training: str) -> None:
    record.files.write_once(f"train/workers/{training}-update-000010/engine/model.pt", b"x" * 50_000)


def test_of_a_finished_run_the_last_and_the_best_student_stay(tmp_path: Path) -> None:
    record = with_replies(Writer(tmp_path).write())
    assert going(record) == ["index", "students/000", "students/baseline"]
    before, size = contents(tmp_path, *NEVER), size_on_disk(tmp_path)
    freed = remove(record, inventory(record))
    assert size - size_on_disk(tmp_path) == freed > 2 * 60_000
    assert contents(tmp_path, *NEVER) == before
    assert [path.name[:3] for path in (tmp_path / "students").iterdir()] == ["001"]
    assert going(RunRecord.open(str(tmp_path))) == []


def test_a_first_student_that_was_better_stays_too(tmp_path: Path) -> None:
    record = Writer(tmp_path, right={"untrained": 2, "first": 16, "kept": 15, "baseline": 12}).write()
    assert going(record) == ["index", "students/baseline"]


def test_snapshots_go_once_the_run_is_finished_and_not_before(tmp_path: Path) -> None:
    def with_snapshot(record: RunRecord) -> str:
        path = f"{record.stages[0]['result']['path']}-early"
        record.files.write_once(f"{path}/model.safetensors", b"x" * 60_000)
        return path

    record = Writer(tmp_path / "open").write("second training")
    path = with_snapshot(record)
    assert path not in [item.path for item in inventory(record) if item.can_go], "its round may have to be asked again"
    record = Writer(tmp_path / "done", right={"untrained": 2, "first": 16, "kept": 15, "baseline": 12}).write()
    path = with_snapshot(record)
    items = {item.path: item for item in inventory(record)}
    assert items[path].can_go and not items[path.removesuffix("-early")].can_go
    remove(record, inventory(record))
    assert not (tmp_path / "done" / path).exists() and (tmp_path / "done" / path.removesuffix("-early")).exists()


def test_students_of_folds_go_once_the_run_is_finished_and_not_before(tmp_path: Path) -> None:
    path = "students/000-fold-1-0123456789ab"

    def with_fold(record: RunRecord) -> RunRecord:
        record.files.write_once(f"{path}/model.safetensors", b"x" * 60_000)
        return record

    assert path not in [
        item.path for item in inventory(with_fold(Writer(tmp_path / "open").write("second training"))) if item.can_go
    ]
    items = {item.path: item for item in inventory(with_fold(Writer(tmp_path / "done").write()))}
    assert items[path].can_go and "fold" in items[path].why


def test_looking_changes_nothing(tmp_path: Path) -> None:
    record = Writer(tmp_path).write()
    before = contents(tmp_path, *[path.name for path in tmp_path.iterdir()])
    inventory(record)
    assert contents(tmp_path, *[path.name for path in tmp_path.iterdir()]) == before


def test_of_an_unfinished_run_checkpoints_and_students_stay(tmp_path: Path) -> None:
    record = Writer(tmp_path).write("second training")
    open_ = "002-0123456789ab"
    checkpoint(record, open_)
    record.files.write_once(f"students/{open_}/_student.json", b"{}")  # exported, but the driver died before the record
    assert going(record) == ["index"]


def test_checkpoints_that_a_finished_run_left_go_and_the_logs_stay(tmp_path: Path) -> None:
    record = Writer(tmp_path).write()
    finished = Path(record.stages[0]["result"]["path"]).name
    before = going(record)
    checkpoint(record, finished)
    assert going(record) == sorted([*before, "train/workers"])
    remove(record, inventory(record))
    assert not (tmp_path / "train" / "workers").exists()
    assert (tmp_path / "train" / f"{finished}.jsonl").exists()


def test_a_round_that_no_record_names_goes_and_its_record_keeps_another(tmp_path: Path) -> None:
    record = Writer(tmp_path).write("first iteration")
    Stream(record.files, [solved("s-1")]).drain("rounds/round-001-dead-123456")
    assert [item.path for item in inventory(record) if item.can_go] == ["index", "rounds/round-001-dead-123456"]


def test_an_exam_outside_the_report_goes_with_its_record(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write()
    extra = writer.exam("somebody else", 3)
    record = RunRecord.open(str(tmp_path))
    assert extra["result"]["folder"] in [item.path for item in inventory(record) if item.can_go]
    remove(record, inventory(record))
    left = RunRecord.open(str(tmp_path))
    assert [stage["key"] for stage in left.stages if stage["key"] == extra["key"]] == []
    assert len([stage for stage in left.stages if stage["name"] == "exam"]) == 4
    assert left.exams is not None
    for found in left.exams["accuracy"].values():
        assert len(list(left.round_rows(found["rows"]))) == 20
    assert writer.exam("somebody else", 3)["result"]["folder"] != extra["result"]["folder"]  # it can be had again


def test_nothing_of_a_running_run_goes(tmp_path: Path) -> None:
    record = Writer(tmp_path).write()
    items = inventory(record)
    with run_lease(str(tmp_path)):
        assert going(record) == []
        with pytest.raises(UserError, match="being driven"):
            remove(record, items)
    assert len(list((tmp_path / "students").iterdir())) == 3


def test_nothing_goes_when_the_run_went_on_since_it_was_looked_at(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    record = writer.write()
    items = inventory(record)
    assert record.events
    writer.events.add("started", pid=2)
    with pytest.raises(UserError, match="went on"):
        remove(record, items)
    assert len(list((tmp_path / "students").iterdir())) == 3


def test_what_was_left_half_written_goes(tmp_path: Path) -> None:
    record = Writer(tmp_path).write()
    (tmp_path / ".tmp").mkdir(exist_ok=True)
    (tmp_path / ".tmp" / "llm2llm-dead").write_bytes(b"x" * 5000)
    (tmp_path / "students" / ".writing-abc").mkdir()
    assert {".tmp", "students/.writing"} <= set(going(record))
    remove(record, inventory(record))
    assert not (tmp_path / "students" / ".writing-abc").exists()
    assert not list((tmp_path / ".tmp").glob("*"))


def test_a_folder_that_is_not_ours_stays(tmp_path: Path) -> None:
    record = Writer(tmp_path).write()
    for path in ("students/my-own", "notes"):
        record.files.write_once(f"{path}/a.txt", b"mine")
    remove(record, inventory(record))
    assert (tmp_path / "students" / "my-own" / "a.txt").exists()
    assert (tmp_path / "notes" / "a.txt").exists()


def test_a_hard_linked_part_counts_once(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.write_bytes(b"x" * 100_000)
    once = size_on_disk(tmp_path)
    (tmp_path / "b").hardlink_to(first)
    assert size_on_disk(tmp_path) == once >= 100_000


def test_a_folder_that_vanishes_while_we_look_counts_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").write_bytes(b"x" * 100_000)
    alone = size_on_disk(tmp_path)
    (tmp_path / "train" / "checkpoint").mkdir(parents=True)
    scan = os.scandir

    def scandir(place: Any) -> Iterator[os.DirEntry[str]]:
        if place == os.fspath(tmp_path / "train" / "checkpoint"):
            os.rmdir(place)  # as the run does with a checkpoint that a newer one replaced
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert size_on_disk(tmp_path) == alone
    assert not (tmp_path / "train" / "checkpoint").exists()
