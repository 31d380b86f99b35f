"""What finished cells come to: read from run folders, as a table, and as sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from finished_run import ANSWERED_RIGHT, TEST, Writer
from rich.console import Console

from llm2llm_ray.report import render_study
from llm2llm_ray.storage.files import Files
from llm2llm_ray.study.cells import Cell
from llm2llm_ray.study.kept import ROWS, TABLE, keep
from llm2llm_ray.study.results import CellResult, graded_rows, result_of
from llm2llm_ray.study.shown import render, sentences
from llm2llm_ray.study.spec import StudySpec
from llm2llm_ray.study.table import StudyTable, table

SPEC = StudySpec.model_validate(
    {"name": "s", "base": "b.yaml", "methods": ["seeds", "loop_early", "random"], "draws": 2, "resamples": 400}
)
IDS = [f"t-{n}" for n in range(40)]


def cell(label: str, draw: int = 0, right: int = 20, baseline: int = 20, **changes: Any) -> CellResult:
    marks = {who: {row: n < count for n, row in enumerate(IDS)} for who, count in (("kept", right), ("baseline", baseline))}
    marks["untrained"] = {row: n < 4 for n, row in enumerate(IDS)}
    found = CellResult(
        cell=Cell(label=label, draw=draw, run_seed=0, size=None), accuracy={}, marks=marks, updates=60, rows=50, accepted=(12, 6),
        rejected=6, tokens=900, seconds=30.0, taken=0,
    )  # fmt: skip
    return replace(found, **changes)


def of(*results: CellResult) -> StudyTable:
    return table(SPEC, results)


def test_differences_are_paired_with_the_cells_own_baseline_and_with_random_targets() -> None:
    found = of(*(cell(name, d, right) for d in (0, 1) for name, right in (("seeds", 20), ("loop_early", 32), ("random", 28))))
    seeds, early, random = found.lines
    assert (seeds.over_baseline, random.over_random) == (None, None), "nothing is compared with itself"
    assert early.over_baseline is not None and early.over_baseline.value == pytest.approx(12 / 40) and early.over_baseline.low > 0
    assert early.over_random is not None and early.over_random.value == pytest.approx(4 / 40)
    assert random.over_baseline is not None and random.over_baseline.value == pytest.approx(8 / 40)
    assert (early.updates, early.rows, early.accepted, early.tokens, early.acceptance) == (60, 50, 18, 900, 0.75)
    assert [(one.who, one.accuracy.value) for one in found.beside] == [("untrained", 0.1)]
    assert (found.finished, found.planned) == (6, 6)


def test_a_study_that_is_not_finished_says_so_and_compares_what_it_has() -> None:
    found = of(cell("loop_early", 0, 32), cell("random", 1, 28))
    early, random = found.lines
    assert (early.cells, early.planned) == (1, 2) and early.over_random is None, "of no draw in common"
    assert random.over_baseline is not None
    assert "2 of 6 cells are finished; the same command runs the others." in sentences(found)


def test_sentences_give_the_verdict_and_what_would_settle_it() -> None:
    found = of(cell("loop_early", 0, 32), cell("loop_early", 1, 30), cell("random", 0, 31), cell("random", 1, 31))
    early_base, early_random, *_ = sentences(found)
    assert early_base.startswith("loop_early is better than the seeds alone at as many updates: +27.5 (")
    assert early_random.startswith("loop_early is not shown to differ from equally many rows for random seeds")
    swinging = of(*(cell("loop_early", draw, right) for draw, right in ((0, 25), (1, 17))))
    (first, *_) = sentences(swinging)
    assert "is not shown to differ from" in first and "more draws would settle a difference as large as this one" in first


def test_the_table_shows_labels_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    render(of(cell("loop_early", 0, 32)), Console(markup=False, width=160))
    said = capsys.readouterr().out
    assert "loop_early" in said and "0.800" in said and "untrained student" in said


def test_a_cell_is_read_from_its_run_folder_and_kept_with_every_row(tmp_path: Path) -> None:
    run = Writer(tmp_path / "toy").write()
    where = Cell(label="loop_early", draw=0, run_seed=0, size=None)
    found = result_of(run, where)
    assert found is not None
    assert {who: sum(marks.values()) for who, marks in found.marks.items()} == {
        who: ANSWERED_RIGHT[who] for who in ("untrained", "baseline", "kept")
    }
    assert len(found.accepted) == 1 and found.rows > found.accepted[0] and found.seconds >= 0
    files = Files(str(tmp_path / "study"))
    keep(files, of(found), graded_rows(run, where))
    rows = pq.read_table(tmp_path / "study" / ROWS).to_pylist()
    assert len(rows) == 3 * len(TEST) and {row["who"] for row in rows} == {"untrained", "baseline", "kept"}
    assert sum(row["right"] for row in rows if row["who"] == "kept") == ANSWERED_RIGHT["kept"]
    assert json.loads((tmp_path / "study" / TABLE).read_text())["lines"][0]["label"] == "loop_early"


def test_an_unfinished_cell_says_nothing(tmp_path: Path) -> None:
    assert result_of(Writer(tmp_path / "toy").write("first training"), Cell(label="seeds", draw=0, run_seed=0, size=None)) is None


def test_the_page_says_the_same_runs_no_script_and_escapes_labels() -> None:
    found = of(*(cell(name, d, right) for d in (0, 1) for name, right in (("seeds", 20), ("loop_early", 32), ("random", 28))))
    hostile = replace(found, name="<script>alert(1)</script>", lines=tuple(replace(x, about="<b>&") for x in found.lines))
    page = render_study(hostile)
    assert "<script" not in page and "script-src" not in page and "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;b&gt;&amp;" in page
    for told in ("loop_early − matched baseline", "+30.0", "80.0 %", "6 of 6 cells finished", "untrained student"):
        assert told in page, told
    assert "0 of 6 cells are finished" in render_study(of())
