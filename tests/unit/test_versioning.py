"""RecordedVersions over a real run folder: what is recorded, what a death leaves behind, what a version's id depends on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_rows import Stream, augmented, solved

from llm2llm_ray.config import AugmentationConfig, CapsConfig
from llm2llm_ray.rounds.round_inputs import committed
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import StageRecords
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

TASK = Classification(labels=["billing", "account"])
SEEDS = [
    Example(id="s-1", input="Where do I change my card?", output="billing"),
    Example(id="s-2", input="How do I rename my profile?", output="account"),
]
TEST = [Example(id="t-1", input="My invoice of last month shows the wrong amount", output="billing")]


def versions(
    files: Files, *, held_out: Sequence[Example] = TEST, settings: AugmentationConfig | None = None, task: Task = TASK
) -> RecordedVersions:
    return RecordedVersions(
        files, task, lambda: SEEDS, lambda: held_out, [row.id for row in held_out], settings or AugmentationConfig()
    )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path / "run"))


ROWS = [
    augmented("s-1", "Can I pay this by bank transfer?", rejected=["empty", "chatter"]),
    augmented("s-2", "What does the yearly plan cost?", "where do I change my CARD?"),
    augmented("s-3", TEST[0].input.upper(), rejected=["empty"]),
    solved("s-4"),
]


def extend(files: Files, rows: Sequence[dict[str, object]] = ROWS) -> Stream:
    stream = Stream(files, rows)
    told = versions(files)
    told.extend(told.seed(), stream)
    return stream


def test_a_round_becomes_rows_and_counts(files: Files) -> None:
    told = versions(files)
    grown, outcome = told.extend(told.seed(), Stream(files, ROWS))
    rows = list(VersionStore(files).rows(grown))
    assert [row.input for row in rows[:2]] == [seed.input for seed in SEEDS]
    assert {row.input for row in rows[2:]} == {"Can I pay this by bank transfer?", "What does the yearly plan cost?"}
    assert all(row.lineage is not None and row.lineage.wrong_answer == " account" for row in rows[2:])
    assert (outcome.evaluated, outcome.wrong, outcome.asked, outcome.accepted) == (4, 3, 3, 2)
    assert outcome.rejected == {"chatter": 1, "contaminated": 1, "duplicate": 1, "empty": 2}
    assert not outcome.stopped_by_budget


def test_a_recorded_stage_is_not_drained_again(files: Files) -> None:
    extend(files)
    again = extend(files)
    assert again.folders == []
    assert len(StageRecords(files).all()) == 2


def test_another_stream_is_another_stage(files: Files) -> None:
    extend(files)
    told, other = versions(files), Stream(files, ROWS, about="M0 with other prompts")
    told.extend(told.seed(), other)
    assert len(other.folders) == 1


def test_death_between_drain_and_record_leaves_nothing_that_is_taken_for_a_result(files: Files) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    dead = Stream(files, [*ROWS, augmented("s-5", "A row that no finished drain has seen?")], after=die)
    told = versions(files)
    with pytest.raises(KeyboardInterrupt):
        told.extend(told.seed(), dead)
    assert StageRecords(files).all() == []

    alive = Stream(files, ROWS)
    grown, outcome = versions(files).extend(told.seed(), alive)
    assert alive.folders and alive.folders != dead.folders
    assert outcome.evaluated == len(ROWS)
    assert "A row that no finished drain has seen?" not in {row.input for row in VersionStore(files).rows(grown)}


def test_death_between_commit_and_record_gives_the_same_version_again(files: Files) -> None:
    told = versions(files)
    grown, outcome = told.extend(told.seed(), Stream(files, ROWS))
    before = {path: files.read_bytes(path) for path in files.list("versions")}
    (record,) = (path for path in files.list("stages") if "/commit-" in path)
    (Path(files.root) / record).unlink()  # what stands when the process dies after the version and before its record

    again = Stream(files, ROWS)
    assert versions(files).extend(told.seed(), again) == (grown, outcome)
    assert again.folders == []
    assert {path: files.read_bytes(path) for path in files.list("versions")} == before


@settings(max_examples=6)
@given(st.permutations(ROWS))
def test_the_order_in_which_rows_arrive_changes_nothing(rows: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = Files(f"{folder}/here"), Files(f"{folder}/there")
        usual, shuffled = versions(here), versions(there)
        grown, outcome = usual.extend(usual.seed(), Stream(here, ROWS))
        assert shuffled.extend(shuffled.seed(), Stream(there, rows)) == (grown, outcome)


def test_what_the_commit_gates_refuse_is_kept_with_reason_and_lineage(files: Files) -> None:
    extend(files)
    (record,) = (record for record in StageRecords(files).all() if record["name"] == "commit")
    with files.open_input(record["result"]["refused"]) as source:
        refused = pq.read_table(source).to_pylist()
    assert [(row["reason"], row["seed_id"], row["input"]) for row in refused] == [
        ("duplicate", "s-2", "where do I change my CARD?"),
        ("contaminated", "s-3", TEST[0].input.upper()),
    ]
    assert refused[0]["detail"] == "of s-1 (1.00)"


def test_a_round_that_gives_no_row_is_the_same_version_one_iteration_on(files: Files) -> None:
    told = versions(files)
    first, outcome = told.extend(told.seed(), Stream(files, [solved("s-1"), augmented("s-2", rejected=["empty"])]))
    assert (first.id, first.iteration, first.num_rows) == (told.seed().id, 1, 2)
    assert outcome.accepted == 0
    second, _ = told.extend(first, Stream(files, ROWS, iteration=1))
    assert (second.iteration, second.num_rows) == (2, 4)


def test_rows_of_earlier_versions_count_as_copies(files: Files) -> None:
    told = versions(files)
    first, _ = told.extend(told.seed(), Stream(files, ROWS))
    again, outcome = told.extend(first, Stream(files, ROWS, iteration=1))
    assert again.num_rows == first.num_rows
    assert outcome.rejected == {"chatter": 1, "contaminated": 1, "duplicate": 3, "empty": 2}


def test_a_commit_setting_repeats_the_commit_and_not_the_round(files: Files) -> None:
    long = "I was charged twice for the same order last week and nobody at your company has answered me yet"
    alike = long.replace("charged", "billed").replace("week", "month").replace("nobody", "none")
    told = versions(files)
    usual, _ = told.extend(told.seed(), Stream(files, [augmented("s-1", long, alike)]))
    assert usual.num_rows == len(SEEDS) + 2

    unread = Stream(files, [])
    stricter, outcome = versions(files, settings=AugmentationConfig(near_duplicate=0.5)).extend(told.seed(), unread)
    assert unread.folders == []
    assert outcome.rejected == {"near_duplicate": 1}
    assert stricter.num_rows == len(SEEDS) + 1


def test_a_test_row_that_comes_later_is_kept_out_too(files: Files) -> None:
    rows = [augmented("s-1", "Can I pay this by bank transfer?")]
    extend(files, rows)
    told = versions(files, held_out=[Example(id="t-2", input="Can I pay this by bank transfer?", output="billing")])
    grown, _ = told.extend(told.seed(), Stream(files, rows))
    assert grown.num_rows == len(SEEDS)


class Silent(Classification):
    """Finds no answer in anything while it is `silent`."""

    def __init__(self, silent: bool) -> None:
        super().__init__(labels=["billing", "account"])
        self.silent = silent

    def answer(self, completion: str) -> str | None:
        return None if self.silent else super().answer(completion)


def test_a_task_that_reads_answers_otherwise_makes_the_index_anew(files: Files) -> None:
    """Which rows contradict each other is in the index of the rows; the one before was made with another reading of them."""
    copy = [augmented("s-2", "where do I change my CARD?")]  # billing, as s-1
    found = []
    for silent in (True, False):
        told = versions(files, task=Silent(silent))
        found.append(told.extend(told.seed(), Stream(files, copy, about=f"silent {silent}"))[1].rejected)
    assert found == [{"duplicate": 1}, {"duplicate": 1}]


def test_a_commit_depends_on_what_it_adds_to() -> None:
    first, second = (
        committed(AugmentationConfig(), CapsConfig(), round_key="r", dataset=dataset, held_out=["h"]) for dataset in ("d0", "d1")
    )
    assert first != second


def test_a_budget_stop_in_any_row_is_the_rounds(files: Files) -> None:
    told = versions(files)
    _, outcome = told.extend(told.seed(), Stream(files, [*ROWS, augmented("s-5", budget_stop=True)]))
    assert outcome.stopped_by_budget
    assert outcome.accepted == 2


def test_close_drains_once_and_adds_nothing(files: Files) -> None:
    told, stream = versions(files), Stream(files, [solved("s-1"), solved("s-2", correct=False, truncated=True)])
    dataset = told.seed()
    outcome = told.close(dataset, stream)
    assert (outcome.evaluated, outcome.wrong, outcome.truncated, outcome.accepted, outcome.rejected) == (2, 1, 1, 0, {})
    assert told.close(dataset, stream) == outcome
    assert len(stream.folders) == 1
    assert VersionStore(files).all() == [dataset]


def test_an_exam_and_a_round_of_the_same_rows_are_two_stages(files: Files) -> None:
    told, stream = versions(files), Stream(files, [solved("s-1")])
    told.close(told.seed(), stream)
    record = told.drained(stream, "exam")
    assert record["result"]["folder"] == stream.folders[1]
    assert record["result"]["evaluated"] == 1
