"""A plan beside what its run came to: benchmarks/runs/plan_vs_actual.py."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from timed_run import Sent, TimedRun

from benchmarks.runs.plan_vs_actual import Compared, compare_plan, render_comparison
from llm2llm_ray.config.file import load_config
from llm2llm_ray.planning.plan import Range, plan
from llm2llm_ray.planning.rates import known
from llm2llm_ray.preflight import check

REPOSITORY = Path(__file__).parents[2]


def test_comparing_with_a_run_sums_sessions_and_names_exams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 5, 20)
    run.train(0, (20, None), [(30, 4, 100)])
    run.up(1000, 1005, 1020)
    run.train(0, (1020, 1040), [(1030, 4, 100), (1035, 4, 100)])
    run.round(0, (1040, 1050), [Sent(1045, 1049), Sent(1045, 1049)], [Sent(1049, 1049.5)])
    run.train(1, (1050, 1060), [(1059, 4, 100)])
    run.round(1, (1060, 1070), [Sent(1065, 1069)])
    for number, model in enumerate(("base", "sha-0", "sha-1")):
        run.round(0, (1070 + 10 * number, 1080 + 10 * number), [Sent(1075, 1079)], name="exam", model=model)
    run.event(1110, "finished")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load_config(REPOSITORY / "benchmarks" / "two_engines.yaml", ["run.iterations=2"])
    planned = plan(config, check(config, REPOSITORY / "jobs"), rates=known)
    found = {item.name: item for item in compare_plan(planned, run.record)}
    assert found["updates"].actual == 4 and found["teacher calls"].actual == 1
    assert found["seconds"].actual == pytest.approx(35 - 5 + 110, abs=6)
    assert found["iteration 0, train: seconds"].actual == pytest.approx(10 + 20)
    for who in ("untrained", "first", "kept"):
        assert found[f"test, exam ({who}): seconds"].actual == pytest.approx(10)
    assert found["test, baseline: seconds"].actual == 0 and found["test, baseline: seconds"].within is None
    stream = io.StringIO()
    render_comparison(list(found.values()), Console(file=stream, width=150))
    assert "planned / actual" in stream.getvalue()


@pytest.mark.parametrize(("expected", "actual", "within"), [(10, 20, True), (10, 21, False), (20, 10, True), (21, 10, False)])
def test_a_factor_of_two_is_a_factor_of_two(expected: float, actual: float, within: bool) -> None:
    assert Compared(name="x", planned=Range(low=0, expected=expected, high=99), actual=actual).within is within
