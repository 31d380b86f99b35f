"""Where a run's time went: phases without gaps, what each computed, what was idle, over kills and restarts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed_run import EPOCH, Sent, TimedRun

from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.rounds.round_inputs import solved_by_teacher
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.timing.intervals import clipped, length, mean_open, overlap, peak
from llm2llm_ray.timing.phases import phases
from llm2llm_ray.timing.timeline import Activity, Timeline, timeline

TIMES = st.integers(0, 50)
INTERVALS = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: (float(min(pair)), float(max(pair)))), max_size=12)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TimedRun:
    return TimedRun(tmp_path, monkeypatch)


def whole(run: TimedRun) -> Timeline:
    """Two iterations, one exam. Round 0: two students' requests 40 to 44 and 42 to 46, a teacher's 43 to 49."""
    run.up(0, 5, 20)
    run.train(0, (20, 35), [(30, 4, 100), (33, 3, 90)])
    run.round(0, (36, 50), [Sent(40, 44), Sent(42, 46)], [Sent(43, 49, 100, 10)])
    run.stage("commit", 0, (50, 51), {"round": 0}, {"version": "v", "accepted": 1, "rejected": {}})
    run.train(1, (51, 61), [(60, 5, 120)])
    run.round(1, (61, 70), [Sent(65, 69)])
    run.round(1, (71, 80), [Sent(75, 79), Sent(75, 79)], name="exam")
    run.event(83, "finished")
    return timeline(run.record)


def named(found: Timeline, name: str, group: str) -> Activity:
    return next(a for a in found.activities if a.phase.name == name and a.phase.group == group)


def test_phases_leave_no_gap_and_add_up_to_the_wall_time(run: TimedRun) -> None:
    found = whole(run)
    spans = [(a.phase.started, a.phase.ended) for a in found.activities]
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert found.wall_seconds == pytest.approx(83)
    assert sum(group.seconds for group in found.groups()) == pytest.approx(83)
    assert [group.name for group in found.groups()] == ["around", "iteration 0", "iteration 1", "test"]


def test_a_training_tells_updates_tokens_and_what_was_idle(run: TimedRun) -> None:
    train = named(whole(run), "train", "iteration 0")
    assert (train.rows, train.updates, train.trained_tokens, train.busy_seconds) == (32, 2, 190, pytest.approx(7))
    assert train.first_work_s == pytest.approx(6) and train.last_work_s == pytest.approx(2)
    assert train.idle_share == pytest.approx(8 / 15)
    assert train.tokens_per_s == pytest.approx(190 / 15)


def test_a_round_tells_both_roles_and_their_overlap(run: TimedRun) -> None:
    round_ = named(whole(run), "round", "iteration 0")
    assert (round_.student.requests, round_.student.prompt_tokens, round_.student.generated_tokens) == (2, 40, 4)
    assert (round_.teacher.requests, round_.teacher.tokens, round_.teacher.peak) == (1, 110, 1)
    assert round_.student.peak == 2 and round_.student.mean == pytest.approx(8 / 6)
    assert round_.busy_seconds == pytest.approx(9) and round_.overlap_seconds == pytest.approx(3)
    assert round_.early_teacher_share == 1.0 and round_.first_call_s == pytest.approx(-3)
    assert not round_.student.approximate and round_.timed


def test_an_exam_says_whose_it_is(run: TimedRun) -> None:
    found = whole(run)
    assert named(found, "exam", "test").who == "student 1"
    run.round(0, (90, 95), [Sent(91, 94)], name="exam", model="base")
    assert timeline(run.record).activities[-1].who == "untrained"


def test_the_teachers_own_exam_is_told_by_the_inputs_that_it_is_recorded_with(run: TimedRun) -> None:
    answerer = Answerer(how="recording", model="sha", settings={})
    inputs = solved_by_teacher(run.config, Classification(labels=["a", "b"]), answerer, rows="dev", examples=[])
    whole(run)
    run.round(0, (90, 95), [Sent(91, 94)], name="exam", inputs=inputs)
    assert timeline(run.record).activities[-1].who == "teacher"


def test_a_run_without_sent_falls_back_to_the_rows_and_says_so(run: TimedRun) -> None:
    run.up(0, 1, 2)
    run.round(0, (36, 50), [Sent(40, 44), Sent(42, 46)], timed=False)
    run.event(51, "finished")
    student = named(timeline(run.record), "round", "iteration 0").student
    assert student.approximate and student.peak == 2 and student.seconds == pytest.approx(6)


def test_requests_of_a_killed_round_without_sent_are_counted_but_not_timed(run: TimedRun) -> None:
    run.up(0, 1, 2)
    run.event(3, "stage_started", stage="round", iteration=0, key="k" * 64)
    run.answer("student-0", [Sent(4, 9)], timed=False)
    last = timeline(run.record).activities[-1]
    assert (last.student.requests, last.timed, last.phase.finished, last.phase.ended) == (1, False, False, EPOCH + 9)


def test_a_killed_run_that_went_on_counts_both_sessions_and_not_the_night_between(run: TimedRun) -> None:
    run.up(0, 5, 20)
    key = run.train(0, (20, None), [(30, 4, 100), (34, 4, 100)])  # killed here
    run.up(50_000, 50_005, 50_020)
    assert run.train(0, (50_020, 50_040), [(50_035, 4, 100)]) == key
    run.event(50_041, "finished")
    found = timeline(run.record)
    assert found.sessions == [(EPOCH, EPOCH + 34), (EPOCH + 50_000, EPOCH + 50_041)]
    assert found.wall_seconds == pytest.approx(34 + 41)
    killed, again = (a for a in found.activities if a.phase.name == "train")
    assert (killed.updates, killed.rows, killed.phase.finished, killed.phase.seconds) == (2, None, False, pytest.approx(14))
    assert (again.updates, again.rows, again.phase.finished) == (1, 32, True)


def test_a_lost_driver_is_a_broken_off_stage_and_engines_again(run: TimedRun) -> None:
    run.up(0, 5, 20)
    run.event(20, "stage_started", stage="train", iteration=0, key="a" * 64)
    run.event(30, "driver_started", restarted=True)
    run.event(33, "engines_up", apps=[], seconds=3)
    run.train(0, (33, 40), [(39, 2, 10)])
    run.event(41, "finished")
    told = [(a.phase.name, a.phase.finished, round(a.phase.seconds)) for a in timeline(run.record).activities]
    assert told == [
        ("starting", True, 5), ("engines", True, 15), ("between stages", True, 0), ("train", False, 10), ("engines", True, 3),
        ("between stages", True, 0), ("train", True, 7), ("report", True, 1),
    ]  # fmt: skip


def test_engines_that_come_up_beside_the_first_training_take_only_the_time_that_is_waited_for_them(run: TimedRun) -> None:
    run.event(0, "started")
    run.event(5, "driver_started", restarted=False)
    run.event(5, "stage_started", stage="train", iteration=0, key="a" * 64)
    run.event(30, "engines_up", apps=[], seconds=25)
    run.event(40, "stage_finished", stage="train", iteration=0, key="a" * 64)
    run.event(41, "finished")
    told = [(a.phase.name, a.phase.group, round(a.phase.seconds)) for a in timeline(run.record).activities]
    assert told == [
        ("starting", "around", 5), ("between stages", "iteration 0", 0), ("train", "iteration 0", 35), ("report", "around", 1),
    ]  # fmt: skip


def test_an_examination_after_the_end_is_a_session_of_its_own(run: TimedRun) -> None:
    whole(run)
    run.round(0, (10_000, 10_020), [Sent(10_005, 10_010)], name="exam", model="other")
    found = timeline(run.record)
    assert len(found.sessions) == 2 and found.wall_seconds == pytest.approx(83 + 20)


def test_the_time_at_which_the_command_began_counts_where_it_is_told(run: TimedRun) -> None:
    run.event(10, "started", pid=1, asked=EPOCH + 2)
    run.event(12, "driver_started", restarted=False)
    (first, *_) = timeline(run.record).activities
    assert (first.phase.name, first.phase.seconds) == ("starting", pytest.approx(10))


def test_a_folder_with_a_config_alone_is_an_empty_timeline(run: TimedRun) -> None:
    found = timeline(run.record)
    assert (found.activities, found.wall_seconds, found.groups()) == ((), 0, [])


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(["started", "driver_started", "engines_up", "stage_started", "stage_finished", "iteration", "finished"]),
    ),
    max_size=25,
)


@given(EVENTS, st.lists(st.integers(0, 200), max_size=4))
def test_whatever_the_events_each_session_is_covered_without_overlap(steps: list[tuple[int, str]], signs: list[int]) -> None:
    now, events = 0.0, []
    for step, name in steps:
        now += step
        events.append({"time": now, "event": name, "stage": "train", "iteration": 0, "key": "k", "index": 0})
    found = phases(events, [float(sign) for sign in signs])
    for before, after in pairwise(found):
        if before.session == after.session:
            assert before.ended == after.started
        else:
            assert before.ended <= after.started
    assert all(phase.seconds >= 0 for phase in found)


def _open_at(intervals: list[tuple[float, float]], second: int) -> int:
    return sum(start <= second < end for start, end in intervals)


@given(INTERVALS, INTERVALS)
def test_sums_over_intervals_are_those_of_counting_second_by_second(
    ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> None:
    counts = [_open_at(ours, second) for second in range(60)]
    assert length(ours) == sum(count > 0 for count in counts)
    assert peak(ours) == max(counts)
    assert mean_open(ours) * length(ours) == pytest.approx(sum(counts))
    assert overlap(ours, theirs) == sum(_open_at(ours, s) > 0 and _open_at(theirs, s) > 0 for s in range(60))
    assert length(clipped(ours, 10, 20)) == sum(_open_at(ours, s) > 0 for s in range(10, 20))
