"""benchmarks/similarity/dedup.py: the slope, the questions it makes, and that both indexes decide alike on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.similarity.dedup import exponent, make, measure, measure_before, measured
from benchmarks.similarity.question_texts import Questions
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore

_PROBLEM = "{} bakes 24 muffins early every Saturday morning and sells 15 of them at the market, how many muffins are left?"


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    for split, names in (("train", ("Maria", "Peter", "Laura")), ("test", ("Olive",))):
        for folder, key, text in (("trec", "text", "What is the capital city of {} ?"), ("gsm8k", "question", _PROBLEM)):
            (tmp_path / folder).mkdir(exist_ok=True)
            lines = [json.dumps({key: text.format(name)}) for name in names]
            (tmp_path / folder / f"{split}.jsonl").write_text("\n".join(lines))
    return Questions(tmp_path)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    sizes = [10_000, 31_600, 100_000]
    assert exponent(sizes, [3e-5 * n**power for n in sizes]) == pytest.approx(power)


def test_a_question_is_the_same_whatever_was_read_before(questions: Questions) -> None:
    rows = list(questions.rows(0, 60))
    assert rows[40:] == list(questions.rows(40, 20))
    assert len({row.id for row in rows}) == 60 > len({row.input for row in rows}) > 20


def test_both_indexes_decide_alike_and_a_difference_would_show(questions: Questions, tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path / "run")))
    make(questions, 600, store)
    before = measure_before(questions, 600, store)
    ours = measure(questions, 600, store, tmp_path / "index")
    assert any(match is not None for match in ours["found"])
    assert ours["candidates"] == 12 == sum(ours["verdicts"].values())

    def equal(found: list[object]) -> float:
        result = measured([600, 900], [ours, ours], [before | {"found": found}], small=True)
        return next(claim.value for claim in result.claims if "equal" in claim.what)

    assert equal(before["found"]) == 1.0
    assert equal([None if match else ("s-0", 1.0) for match in before["found"]]) == 0.0
