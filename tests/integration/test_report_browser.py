"""The report in a real browser: with 5,000 lineage rows its search answers each key, the console is clean, it fits a phone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
NO_CHROMIUM = 3


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tests" / "unit"))
        from report_run import Shape, write_run

        run = write_run(tmp_path_factory.mktemp("report") / "run", Shape(seeds=1400, wrong=740, iterations=5, test=400))
    from llm2llm_ray.report import write_report

    line = [sys.executable, "-m", "benchmarks.runs.report_browser", str(write_report(run))]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    if done.returncode == NO_CHROMIUM:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_search_answers_every_key(seen: dict[str, Any]) -> None:
    assert seen["rows"] >= 5000
    assert {text: len(answers) for text, answers in seen["search_ms"].items()} == {
        "refund": 6, "the invoice": 11, "near_duplicate": 14, "zzz-no-such-text": 16, "e": 1,
    }  # fmt: skip


def test_the_console_is_clean_and_nothing_is_fetched(seen: dict[str, Any]) -> None:
    assert (seen["console"], seen["requests"]) == ([], [])


def test_the_page_never_scrolls_sideways(seen: dict[str, Any]) -> None:
    assert set(seen["scrolls_sideways"].values()) == {False}, seen["scrolls_sideways"]


def test_no_text_of_a_model_ran(seen: dict[str, Any]) -> None:
    """Several texts of the run would set the title if they were markup or script."""
    assert seen["title"] == "synthetic · LLM2LLM run"
