"""What `compare` says of two run folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_run import TEST, Writer, config
from stream_rows import Stream, solved

from llm2llm_ray.accuracy import paired_difference
from llm2llm_ray.history.comparison import Line, compared
from llm2llm_ray.history.record import RunRecord


@pytest.fixture
def toy(tmp_path: Path) -> RunRecord:
    return Writer(tmp_path / "toy").write()


def test_the_settings_that_differ_are_named_and_no_others(toy: RunRecord, tmp_path: Path) -> None:
    other = config("other", teacher={"temperature": 0.5}, augmentation={}, student={"updates": 7})
    found = compared(toy, Writer(tmp_path / "other", other).write("started"))
    assert set(found.settings) == {
        Line(name="teacher.temperature", ours="1.0", theirs="0.5"),
        Line(name="student.updates", ours="null", theirs="7"),
    }


def test_a_password_in_an_address_is_not_told(toy: RunRecord, tmp_path: Path) -> None:
    other = config(task={"data": "https://me:hunter2@data.example.com/support"})
    found = compared(toy, Writer(tmp_path / "other", other).write("started"))
    (line,) = (line for line in found.settings if line.name == "task.data")
    assert line.theirs == "https://…@data.example.com/support"


def test_accuracies_stand_side_by_side_with_their_intervals(toy: RunRecord, tmp_path: Path) -> None:
    found = compared(toy, Writer(tmp_path / "other").write("first iteration"))
    (last,) = (line for line in found.accuracy if line.name == "kept")
    assert last == Line(name="kept", ours="0.750 (0.531 to 0.888), 15/20", theirs=None)
    assert (found.last, found.shared_rows) == (None, 0)


def test_rows_without_an_answer_are_counted_beside_the_wrong_ones(toy: RunRecord, tmp_path: Path) -> None:
    """Of 20 test rows 15 are right and 3 unanswered, of the second round's two rows one."""
    found = compared(Writer(tmp_path / "other", unanswered=3).write(), toy)
    lines = {line.name: (line.ours, line.theirs) for line in (*found.accuracy, *found.work)}
    assert lines["kept"] == ("0.750 (0.531 to 0.888), 15/20, 3 unanswered", "0.750 (0.531 to 0.888), 15/20")
    assert lines["wrong, iteration 2"] == ("0 of 2, 1 unanswered", "0 of 2")


def test_the_last_students_are_compared_row_by_row(toy: RunRecord, tmp_path: Path) -> None:
    right = {"untrained": 2, "first": 9, "kept": 5, "baseline": 12}
    found = compared(toy, Writer(tmp_path / "other", right=right).write())
    ours, theirs = ({str(i): i < n for i in range(20)} for n in (15, 5))
    assert found.shared_rows == len(TEST)
    assert found.last == paired_difference(ours, theirs)
    assert found.last.verdict == "better"


def test_rows_that_only_share_their_ids_are_not_the_same_rows(toy: RunRecord, tmp_path: Path) -> None:
    other = Writer(tmp_path / "other").write()
    elsewhere = Stream(other.files, [solved(row.id, input=f"{row.input}, says {row.id}") for row in TEST])
    elsewhere.drain("rounds/exam-elsewhere")
    assert other.exams is not None
    other.exams["accuracy"]["kept"]["rows"] = "rounds/exam-elsewhere"
    assert compared(toy, other).last is None


def test_rows_tokens_and_seconds_are_sums_over_the_iterations(toy: RunRecord) -> None:
    work = {line.name: line.ours for line in compared(toy, toy).work}
    assert work["iterations done"] == "2 of 2"
    assert (work["rows trained on, iteration 1"], work["rows trained on, iteration 2"]) == ("2", "4")
    assert (work["teacher asked"], work["rows accepted"], work["rejected: duplicate"]) == ("2", "2", "1")
    assert (work["updates"], work["tokens trained on"]) == ("24", "4000")
    assert (work["student tokens in rounds"], work["teacher prompt tokens"]) == (str(4 * 12), "200")
    assert (work["seconds, train"], work["seconds, exam"], work["seconds, engine start"]) == ("180", "6", "61")
    assert all(line.ours == line.theirs for line in compared(toy, toy).work)


def test_an_exam_that_two_share_counts_its_seconds_once(toy: RunRecord) -> None:
    """With one iteration the first student is the last one."""
    assert toy.exams is not None
    found = toy.exams["accuracy"]
    found["kept"] = found["first"] = found["first"] | {"seconds": 40.0}
    assert {line.name: line.ours for line in compared(toy, toy).work}["seconds, exam"] == "43"  # 40 + 1.5 + 1.5
