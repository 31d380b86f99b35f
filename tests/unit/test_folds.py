"""Cross-fit: who is in which fold, what a fold's student and its teacher's prompts never saw, and who answers each row."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.asking.answerer import recording
from llm2llm_ray.asking.scripted import script_sha
from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.augmenting import Peers
from llm2llm_ray.rounds.folds import FOLD, dealt, folds, folds_for, rows_by_fold
from llm2llm_ray.rounds.solving import SOLVED, Solve
from llm2llm_ray.runtime.streaming.by_fold import ByFold
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec, Voice
from llm2llm_ray.runtime.streaming.streams import ROW_COLUMNS
from llm2llm_ray.runtime.streaming.transports import RecordedRoute
from llm2llm_ray.runtime.training.worker import read_rows
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example, Graded, Lineage

TASK = Classification(labels=["billing", "shipping", "login"])
LINE = Lineage(
    seed_id="s-03", parent_id="s-03", iteration=0, ordinal=0, attempt=0, wrong_answer="", prompt_sha="", teacher="t",
    sampling_seed=0,
)  # fmt: skip


def seeds(count: int) -> list[Example]:
    return [Example(id=f"s-{n:02d}", input=f"What about item {n * 7}?", output=TASK.labels[min(2, n % 5)]) for n in range(count)]


@given(st.integers(8, 40), st.integers(2, 5), st.randoms(use_true_random=False))
def test_every_class_and_all_seeds_are_spread_evenly_whatever_their_order(
    count: int, parts: int, shuffler: random.Random
) -> None:
    rows = seeds(count)
    found = dealt(rows, TASK.group, parts)
    shuffler.shuffle(rows)
    assert dealt(rows, TASK.group, parts) == found
    assert found.keys() == {row.id for row in rows}
    for label in [None, *TASK.labels]:
        sizes = Counter(found[row.id] for row in rows if label in (None, row.output))
        assert max(sizes.values()) - min(sizes[fold] for fold in range(parts)) <= 1


def test_near_copies_are_in_one_fold() -> None:
    text = "I was charged two times for one and the same order and nobody answers my many letters, please help me {}"
    rows = [Example(id=f"c-{n}", input=text.format(word), output="billing") for n, word in enumerate(("now", "today", "soon"))]
    found = dealt([*seeds(12), *rows], TASK.group, 4)
    assert len({found[row.id] for row in rows}) == 1
    assert set(found.values()) == {0, 1, 2, 3}


@pytest.mark.parametrize(("count", "remedy"), [(3, "set evaluation.folds=3"), (1, "give more seeds")])
def test_a_fold_without_seeds_is_refused(count: int, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"evaluation\.folds=4: the {count} seeds make {count} folds .*{remedy}"):
        folds_for(config("cross_fit"), TASK, seeds(count))
    assert folds_for(config("seed"), TASK, seeds(count)) == {}


def config(source: str) -> Config:
    return Config.model_validate(
        {
            "task": {"name": "classification", "data": "rows"}, "student": {"model": "m"}, "teacher": {"model": "t"},
            "evaluation": {"error_source": source}, "run": {"name": "r"},
        }
    )  # fmt: skip


def test_a_folds_student_sees_neither_its_seeds_nor_what_was_grown_from_them(tmp_path: Path) -> None:
    rows, store = seeds(12), VersionStore(Files(str(tmp_path)))
    first = store.commit(rows, parent=None, iteration=0, about={})
    grown = Example(id="a-1", input="Where is my item?", output="shipping", origin="augmented", lineage=LINE)
    version = store.commit([grown], parent=first, iteration=1, about={})
    of = dealt(rows, TASK.group, 3)
    seen = {fold.number: {row["id"] for row in read_rows(Files(str(tmp_path)), version.parts, fold.seeds)} for fold in folds(of)}
    for number, ids in seen.items():
        assert ids & of.keys() == {id for id in of if of[id] != number}
        assert ("a-1" in ids) == (of["s-03"] != number)


def test_rows_stand_fold_after_fold_with_what_was_grown_in_its_seeds(tmp_path: Path) -> None:
    rows, files = seeds(12), Files(str(tmp_path))
    first = VersionStore(files).commit(rows, parent=None, iteration=0, about={})
    grown = Example(id="a-1", input="Where is my item?", output="shipping", origin="augmented", lineage=LINE)
    version = VersionStore(files).commit([grown], parent=first, iteration=1, about={})
    of = dealt(rows, TASK.group, 3)
    found = rows_by_fold(files, version, of)
    assert (found.id, found.num_rows) == (version.id, 13)
    table = pq.read_table(tmp_path / found.parts[0]).to_pylist()
    assert [row[FOLD] for row in table] == sorted(row[FOLD] for row in table)
    assert {row["id"]: row[FOLD] for row in table} == of | {"a-1": of["s-03"]}
    assert set(table[0]) == {*ROW_COLUMNS, FOLD}
    assert rows_by_fold(files, version, of) == found and len(list((tmp_path / "folds").iterdir())) == 1


def test_a_teachers_prompt_shows_rows_of_the_targets_own_fold_only() -> None:
    rows = seeds(30)
    of = dealt(rows, TASK.group, 3)
    peers = Peers(TASK, rows, of)
    for row in rows:
        mistake = Graded(example=row, completion="login", answer="login", correct=False, fold=of[row.id])
        shown = [*peers.beside(mistake, 9, "draw"), *peers.confused(mistake, 9, "draw")]
        assert shown and {of[peer.id] for peer in shown} == {of[row.id]}
        assert peers.beside(replace(mistake, fold=None), 9, "draw") == []


def test_each_row_is_answered_by_its_folds_student_and_all_count_as_one_role(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    lines = [{"input": row.input, "answers": [" billing", " shipping", " login"]} for row in seeds(6)]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sha = script_sha(str(answers))
    voices = tuple(
        Voice(
            route=RecordedRoute(path=str(answers), sha=sha, generation=fold), answerer=recording(sha, fold),
            replies=f"replies/student-{fold}",
        )
        for fold in range(3)
    )  # fmt: skip
    role = ByFold(
        RoleSpec(
            name="student", role=Solve(TASK, max_tokens=8), adds=SOLVED, route=voices[0].route, answerer=voices[0].answerer,
            run_root=str(tmp_path / "run"), replies="", in_flight=2, asker=None, by_fold=voices,
        )
    )  # fmt: skip
    block = pa.Table.from_pylist(
        [{"id": row.id, "input": row.input, "output": row.output, FOLD: n // 2} for n, row in enumerate(seeds(6))]
    )
    found = asyncio.run(role.answer(block)).to_pylist()
    role.close()
    assert {row["id"]: row["answer"] for row in found} == {f"s-{n:02d}": TASK.labels[n // 2] for n in range(6)}
    assert [row["weights_sha"] for row in found] == [str(row[FOLD]) for row in found]
    assert (
        len({id(one.telling) for one in role._roles.values()}) == len({id(one.line.slots) for one in role._roles.values()}) == 1
    )
    assert sorted(path.name for path in (tmp_path / "run" / "replies").iterdir()) == [f"student-{n}" for n in range(3)]
