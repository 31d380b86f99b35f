"""The report's times: pauses between a run's starts are cut out, what was open is drawn where it was, and numbers read well."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_run import Shape, told_time, write_run
from stream_rows import augmented, solved, write_rows
from timed_run import Sent, TimedRun

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.report.answer import facts
from llm2llm_ray.report.flow import flows
from llm2llm_ray.report.lanes import UpTime, lanes
from llm2llm_ray.report.wording import clipped, count, duration, percent, points
from llm2llm_ray.rounds.rows import tally
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.timing.timeline import timeline


def test_pauses_are_cut_out() -> None:
    up = UpTime([(100.0, 110.0), (500.0, 520.0)])
    assert up.seconds == 30
    assert [up.at(moment) for moment in (90, 100, 105, 110, 300, 500, 515, 520, 600)] == [0, 0, 5, 10, 10, 10, 25, 30, 30]
    assert up.pauses() == [(10.0, 390.0)]


def test_a_stage_that_one_start_broke_off_and_the_next_finished(tmp_path: Path) -> None:
    run = _run(tmp_path)
    with told_time() as clock:
        began = clock.now = 2e9
        events = Events(run.files)
        for ended in (False, True):
            events.add("started")
            events.add("stage_started", stage="train", iteration=0, key="k")
            clock.now += 10
            if ended:
                StageRecords(run.files).record(
                    "train", "k", inputs={}, result={"metrics": {}}, started=clock.now - 10, ended=clock.now, iteration=0
                )
                events.add("stage_finished", stage="train", iteration=0, key="k")
                events.add("finished")
            else:
                events.add("stopping", stage="train")
                clock.now += 80
    run = RunRecord(run.files)
    drawn = lanes(run, timeline(run), [])
    (train,) = drawn.lanes
    first, second = train.bars
    assert timeline(run).sessions == [(began, began + 10), (began + 90, began + 100)]
    assert (first.open, second.open) == (True, False)
    assert (round(first.left), round(first.width), round(second.left), round(second.width)) == (0, 50, 50, 50)
    assert drawn.breaks[-1] == (50.0, "paused for 1 min 20 s")


def test_an_examination_a_day_later_adds_its_own_seconds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 5, 20)
    run.train(0, (20, 40), [(39, 4, 100)])
    run.event(60, "finished")
    run.round(0, (90_000, 90_030), [Sent(90_005, 90_010)], name="exam")
    found = timeline(run.record)
    assert lanes(run.record, found, []).seconds == found.wall_seconds == pytest.approx(60 + 30)
    (wall, *_) = facts(run.record, found)
    assert (wall.value, wall.note) == ("1 min 30 s", "2 starts, pauses left out")


def test_a_killed_training_is_drawn_to_its_last_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 5, 20)
    run.train(0, (20, None), [(30, 4, 100), (80, 4, 100)])
    drawn = lanes(run.record, timeline(run.record), [])
    (bar,) = next(lane for lane in drawn.lanes if lane.name == "train").bars
    assert (bar.open, bar.label, drawn.seconds) == (True, "0", pytest.approx(80))
    assert (bar.left, bar.width) == (pytest.approx(25), pytest.approx(75))


def test_the_overlap_of_student_and_teacher_is_measured_on_rows(tmp_path: Path) -> None:
    """The student works from 0 to 4 and from 6 to 8, the teacher from 3 to 7: both for 1 + 1 seconds."""
    rows = [
        solved("s-1", solved_from=0.0, solved_until=4.0),
        augmented("s-2", "a text", solved_from=0.0, solved_until=3.0, asked_from=3.0, asked_until=7.0),
        solved("s-3", solved_from=6.0, solved_until=8.0),
    ]
    run = _run(tmp_path)
    write_rows(run.files, "rounds/round-000-a", rows)
    result = {"folder": "rounds/round-000-a"} | tally(run.files, "rounds/round-000-a")
    StageRecords(run.files).record("round", "r", inputs={}, result=result, started=0.0, ended=9.0, iteration=0)
    (flow,) = flows(RunRecord(run.files))
    assert (flow.both_s, flow.teacher_s, flow.seconds) == (2.0, 4.0, 8.0)
    assert (flow.student_at, flow.teacher_at) == ((0.0, 8.0), (3.0, 7.0))
    assert (flow.student_most, flow.teacher_most) == (2, 1)
    assert flow.bands == ((135.0, 45.0), (270.0, 45.0))  # of 360 units for 8 seconds


def _run(folder: Path) -> RunRecord:
    run = write_run(folder / "run", Shape(until="started"))
    (Path(run.files.root) / "events.jsonl").unlink()
    return RunRecord(Files(run.files.root))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min"), (None, "–")],
)
def test_durations(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_numbers_that_are_none_are_no_zero() -> None:
    assert (count(None), percent(float("nan")), points(float("nan"))) == ("–", "–", "–")
    assert (count(12345), count(1.25, 1), percent(0.1234), points(-0.031)) == ("12,345", "1.2", "12.3 %", "−3.1")


def test_long_texts_are_cut_visibly() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("abcd" * 300, 4) == "abcd … (1,196 more characters)"
