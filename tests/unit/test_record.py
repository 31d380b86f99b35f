"""A run folder that was started more than once: what counts is what the settings of the last start came to."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest
from finished_run import Writer, config
from stream_rows import Stream, augmented

from llm2llm_ray.export.facts import facts
from llm2llm_ray.history.comparison import compared
from llm2llm_ray.history.record import Mistake, RunRecord
from llm2llm_ray.history.standing import standing
from llm2llm_ray.report.flow import flows
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import Iteration

OTHER = config(teacher={"temperature": 0.5})


def outcomes(record: RunRecord) -> list[tuple[str, str, str]]:
    found: list[Mistake] = list(record.mistakes())
    return [(outcome.status, outcome.reason, outcome.text) for mistake in found for outcome in mistake.outcomes]


def test_a_finished_run_started_again_with_other_settings_has_not_come_to_anything_yet(tmp_path: Path) -> None:
    before = Writer(tmp_path).write()
    assert before.exams is not None and len(before.iterations) == 2
    Writer(tmp_path, OTHER).start()
    now = RunRecord.open(str(tmp_path))
    assert (now.state, now.report, now.exams, now.iterations, now.rounds()) == ("broken off", None, None, [], [])
    assert (standing(now).accuracy, standing(now).iterations_done) == (None, 0)
    assert [line.name for line in compared(now, now).accuracy] == []


def test_the_same_settings_again_go_on_with_the_iterations_they_had(tmp_path: Path) -> None:
    Writer(tmp_path, OTHER).write("first iteration")
    for _ in range(2):
        Writer(tmp_path, OTHER).start()
    assert [item["index"] for item in RunRecord.open(str(tmp_path)).iterations] == [0]
    for settings in (config(), OTHER):
        Writer(tmp_path, settings).start()
    assert RunRecord.open(str(tmp_path)).iterations == [], "other settings came between; the driver tells them anew"


def test_a_round_of_changed_settings_is_not_committed_by_the_commit_of_the_round_before(tmp_path: Path) -> None:
    Writer(tmp_path).write("first iteration")
    writer = Writer(tmp_path, OTHER)
    writer.start()
    rows = [augmented("s-1", "An unjudged text about invoices?")]
    writer.versions.drained(Stream(writer.files, rows, about="M0, other teacher"))
    record = RunRecord.open(str(tmp_path))
    (found,) = record.rounds()
    assert (found.round["inputs"]["about"], found.commit) == ("M0, other teacher", None)
    assert [(mistake.row_id, mistake.outcomes) for mistake in record.mistakes()] == [("s-1", ())]
    assert len(flows(record)) == 1


def test_a_finished_iteration_names_its_round_and_commit_among_those_of_other_settings(tmp_path: Path) -> None:
    """Settings go A, B, A: B's round and commit are the newest, A's are in force."""
    first = Writer(tmp_path)
    first.write("first iteration")
    said = outcomes(RunRecord.open(str(tmp_path)))
    other = Writer(tmp_path, OTHER)
    other.start()
    seeds = other.versions.seed()
    rows = [augmented("s-1", "Which card do you charge for the renewal?")]
    grown, outcome = other.versions.extend(seeds, Stream(other.files, rows, about="M0, other teacher"))
    student = other.train(seeds, "000")
    other._told(Iteration(index=0, dataset=seeds, student=student, round=outcome, grown=grown))
    record = RunRecord.open(str(tmp_path))
    assert outcomes(record) == [("accepted", "", "Which card do you charge for the renewal?")]
    assert record.rounds()[0].commit is not None and record.rounds()[0].commit["result"]["version"] == grown.id

    record = Writer(tmp_path).write("first iteration")
    assert [s["result"]["version"] for s in record.stages if s["name"] == "commit"][-1] == grown.id, "nothing ran again"
    assert outcomes(record) == said and len(said) > 1
    assert facts(record, 1).accepted == 2


def test_what_a_commit_turned_away_is_read_from_the_file_it_names(tmp_path: Path) -> None:
    """One round, committed by two gates: the second one turns away a text that the first let pass."""
    text = "Can I pay the invoice of the yearly plan by bank transfer instead of with my card?"
    texts = (text, text.replace("card", "visa card"))
    found = []
    for near in (0.99, 0.9):
        writer = Writer(tmp_path, config(augmentation={"near_duplicate": near}))
        writer.start()
        seeds = writer.versions.seed()
        grown, outcome = writer.versions.extend(seeds, Stream(writer.files, [augmented("s-1", *texts)]))
        writer._told(Iteration(index=0, dataset=seeds, student=writer.train(seeds, "000"), round=outcome, grown=grown))
        found.append([(status, reason) for status, reason, _ in outcomes(RunRecord.open(str(tmp_path)))])
    assert found == [[("accepted", "")] * 2, [("accepted", ""), ("rejected", "near_duplicate")]]


def test_commits_that_name_no_file_have_it_beside_the_round(tmp_path: Path) -> None:
    record = Writer(tmp_path).write("first iteration")
    (found,) = record.rounds()
    assert found.commit is not None
    said = outcomes(record)
    old = f"refused/{found.folder.removeprefix('rounds/')}.parquet"
    if "refused" in found.commit["result"]:
        (tmp_path / found.commit["result"].pop("refused")).rename(tmp_path / old)
    assert outcomes(record) == said and ("rejected", "duplicate") in [(status, reason) for status, reason, _ in said]


@pytest.mark.parametrize(("until", "state"), [("started", "unknown"), ("finished", "finished")])
def test_where_no_lock_tells_whether_a_run_is_driven_its_state_is_unknown(tmp_path: Path, until: str, state: str) -> None:
    """An object store, as far as Files knows."""
    files = Files(str(tmp_path / "run"), filesystem=pafs.LocalFileSystem())
    assert Writer(tmp_path, files=files).write(until).state == state
