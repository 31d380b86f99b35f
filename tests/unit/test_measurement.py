"""What a benchmark says it measured: benchmarks/measuring/measurement.py."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measuring.measurement import Claim, Measurement, Rows, claim_line, command, median_ratio, told
from benchmarks.measuring.result_file import read_result

CLAIM = Claim(what="evaluation: ours / bare vLLM", value=0.93, unit="x", at_least=0.9)
MEASURED = Measurement(
    benchmark="evaluation",
    claims=[CLAIM],
    tables=[Rows(title="pairs", columns=("pair", "ours", "bare"), rows=[(1, 2.5, 2.25), (2, None, "broken off")])],
    raw={"ours": [2.5], "bare": [2.25]},
    settings={"pairs": 2},
)


def test_the_median_is_taken_over_the_pairs() -> None:
    """The host was ten times as busy in the last pair: medians of each side would say 1."""
    assert median_ratio([2, 4, 90], [1, 4, 30]) == 2
    assert median_ratio([1, 3], [1, 1]) == 2


def test_what_has_no_partner_is_no_pair() -> None:
    with pytest.raises(ValueError):
        median_ratio([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "met"),
    [
        (0.9, 0.9, None, True), (0.899, 0.9, None, False), (35.0, None, 35.0, True), (35.1, None, 35.0, False),
        (0.5, None, None, None),
    ],
)  # fmt: skip
def test_a_claim_is_met_at_its_bound(value: float, at_least: float | None, at_most: float | None, met: bool | None) -> None:
    assert Claim(what="a", value=value, unit="x", at_least=at_least, at_most=at_most).met is met


def test_a_claim_is_one_line() -> None:
    assert claim_line(CLAIM) == "evaluation: ours / bare vLLM: 0.93 x (asked: at least 0.9) met"
    missed = Claim(what="idle", value=41.04, unit="s", at_most=35.0, note="host busy")
    assert claim_line(missed) == "idle: 41 s (asked: at most 35) NOT MET; host busy"
    assert claim_line(Claim(what="share", value=0.5, unit="")).rstrip() == "share: 0.5"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93456, "0.935"), (12345.6, "12,346"), (-250.4, "-250"), (99.96, "100"), (0.00012, "0.00012"), (0.0, "0"),
        (1234567, "1,234,567"), (True, "True"), (None, ""), ("as it is", "as it is"),
    ],
)  # fmt: skip
def test_numbers_are_told_with_three_digits(value: object, text: str) -> None:
    assert told(value) == text


def test_a_table_shows_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    MEASURED.show()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("pairs", "ours", "2.25", "broken off", claim_line(CLAIM)))


@pytest.mark.parametrize("text", ["[red]a[/red]", "[/] b", "list[int]", "[link=http://x]c[/link]", ":smile:"])
def test_markup_in_names_and_values_is_shown_and_not_obeyed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    claim = replace(CLAIM, what=text, note=text)
    replace(MEASURED, claims=[claim], tables=[Rows(title=text, columns=(text,), rows=[(text,)])]).show()
    assert capsys.readouterr().out.count(text) == 5


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/llm2llm/benchmarks/engines/evaluation.py", "--json", "two words.json"])
    assert command() == "python -m benchmarks.engines.evaluation --json 'two words.json'"


def test_what_is_written_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/engines/evaluation.py", "--pairs", "2"])
    place = tmp_path / "new" / "evaluation_2026-11-23.json"
    MEASURED.write(place)
    found = read_result(place)
    assert (found.claims, found.settings, found.command) == (
        [CLAIM],
        {"pairs": 2},
        "python -m benchmarks.engines.evaluation --pairs 2",
    )
    assert found.tables == [Rows(title="pairs", columns=["pair", "ours", "bare"], rows=[[1, 2.5, 2.25], [2, None, "broken off"]])]
    kept = json.loads(place.read_text())
    assert (kept["raw"], kept["benchmark"], kept["small"]) == (MEASURED.raw, "evaluation", False)
    assert kept["claims"][0]["met"] is True
