"""RESULTS.md: made from the kept files alone, and refusing those that cannot stand in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchmarks.measuring.result_file import read_result
from benchmarks.measuring.results_page import code, main, page, results
from llm2llm_ray.errors import UserError

MARKDOWN = MarkdownIt("gfm-like", {"html": True, "linkify": False})
KEPT = {
    "format": 1,
    "benchmark": "evaluation",
    "small": False,
    "command": "python -m benchmarks.engines.evaluation --pairs 5",
    "environment": {
        "date": "2026-11-23T10:00:00+00:00", "cpu": "A processor", "cores": 2, "ram_gib": 23.5, "os": "Linux", "python": "3.11.7",
        "versions": {"ray": "2.60.0"}, "commit": "0123456789ab",
    },
    "settings": {"pairs": 5},
    "claims": [
        {"what": "ours / bare", "value": 0.93, "unit": "x", "at_least": 0.9, "at_most": None, "note": "", "met": True},
        {"what": "idle", "value": 40.5, "unit": "s", "at_least": None, "at_most": 35, "note": "busy", "met": False},
    ],
    "tables": [{"title": "pairs", "columns": ["pair", "seconds"], "rows": [[1, 12.5], [2, None]]}],
    "raw": [12.5],
}  # fmt: skip
STAGES = {
    "run": "demo", "environment": KEPT["environment"], "environment_of": "the machine that read the run", "command": None,
    "argv": "-m benchmarks.runs.iteration runs/demo", "wall_seconds": 150.0, "added_up": None, "sessions": [[0.0, 150.0]],
    "groups": [{"name": "iteration 0", "seconds": 150.0, "busy_seconds": 90.0, "tokens": 4000, "overlap_seconds": 0.0,
                "idle_share": 0.4}],
    "phases": [
        {"phase": {"group": "iteration 0", "name": name}, "who": None, "seconds": 100.0, "rows": 32, "updates": 12,
         "tokens": 4000, "student": {"requests": 208, "mean": 52.64, "peak": 64}, "idle_share": 0.32,
         "teacher": {"requests": 0, "mean": 0.0, "peak": 0}, "overlap_seconds": 0.0}
        for name in ("train", "between stages")
    ],
}  # fmt: skip
Keep = Callable[..., Path]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Writes a result file, changed at some dotted places."""
    (tmp_path / "results").mkdir()

    def kept(name: str = "evaluation_2026-11-23.json", base: dict[str, Any] = KEPT, **changes: Any) -> Path:
        data = copy.deepcopy(base)
        for place, value in changes.items():
            *path, last = (int(part) if part.isdigit() else part for part in place.split("__"))
            target: Any = data
            for part in path:
                target = target[part]
            target[last] = value
        file = tmp_path / "results" / name
        file.write_text(json.dumps(data))
        return file

    return kept


def cells(markdown: str) -> list[str]:
    """The texts of all table cells as rendered, heads too."""
    return [text(token) for before, token in pairwise(MARKDOWN.parse(markdown)) if before.type in ("td_open", "th_open")]


def text(token: Token) -> str:
    return "".join(child.content for child in token.children or ())


def test_the_page_is_what_the_kept_files_give() -> None:
    assert main(["--check"]) == 0, "run `python -m benchmarks.measuring.results_page`"


def test_a_result_stands_with_what_it_was_made_with(keep: Keep) -> None:
    keep(environment__gpus=["NVIDIA H200"])
    made = page(results(keep().parent))
    rendered = MARKDOWN.render(made)
    for said in ("2026-11-23 10:00 UTC", "commit 0123456789ab", "A processor, 2 cores, 23.5 GiB", "ray 2.60.0", "pairs = 5",
                 "python -m benchmarks.engines.evaluation --pairs 5", 'href="results/evaluation_2026-11-23.json"'):  # fmt: skip
        assert said in rendered, said
    assert "NVIDIA" not in rendered
    keep(environment__gpus=["NVIDIA H200"])
    assert "23.5 GiB, gpus" in page(results(keep(environment__gpus=["NVIDIA H200"]).parent))


def test_what_was_asked_and_whether_it_is_met(keep: Keep) -> None:
    found = cells(page(results(keep().parent)))
    first, second = found.index("ours / bare"), found.index("idle")
    assert found[first : first + 5] == ["ours / bare", "0.93 x", "≥ 0.9", "yes", ""]
    assert found[second : second + 5] == ["idle", "40.5 s", "≤ 35", "no", "busy"]
    assert found[-6:] == ["pair", "seconds", "1", "12.5", "2", ""]


def test_the_newest_is_shown_whole_and_the_others_in_a_line(keep: Keep) -> None:
    keep("evaluation_2026-11-22.json", environment__date="2026-11-22T10:00:00+00:00", claims__0__value=0.91)
    keep("evaluation_2026-11-23.json")
    # An hour later than the first, though its text sorts before it.
    keep("evaluation_2026-11-22b.json", environment__date="2026-11-22T08:00:00-03:00", claims__0__value=0.92)
    folder = keep("evaluation_h200_2026-11-20.json", environment__date="2026-11-20T10:00:00+00:00").parent
    rendered = MARKDOWN.render(page(results(folder)))
    assert [line for line in rendered.splitlines() if line.startswith("<h2>")] == [
        "<h2>evaluation</h2>", "<h2>evaluation_h200</h2>"
    ]  # fmt: skip
    lines = [line for line in rendered.splitlines() if line.startswith("<li>")]
    assert [line[4:20] for line in lines] == ["2026-11-22 11:00", "2026-11-22 10:00"]
    assert "ours / bare: 0.92 x (asked: at least 0.9) met; idle: 40.5 s (asked: at most 35) NOT MET; busy" in lines[0]
    assert rendered.count("--pairs 5") == 2


def test_the_same_files_give_the_same_page(keep: Keep) -> None:
    for name in ("b", "a", "c"):
        folder = keep(f"{name}.json", environment__date="2026-11-22T10:00:00+00:00").parent
    found = results(folder)
    assert page(found) == page(found[::-1]) == page(results(folder))


def test_stages_of_an_iteration_are_a_table(keep: Keep) -> None:
    found = cells(page(results(keep("iteration_demo_2026-11-22.json", STAGES).parent)))
    assert found[10:20] == ["iteration 0: train", "100", "32", "12", "4,000", "40", "208 (mean 52.6, peak 64)", "", "", "32%"]
    assert found[20:] == ["iteration 0: sum", "150", "", "", "4,000", "26.7", "", "", "", "40%"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"small": True}, "a small run"),
        ({"format": 2}, "format: Input should be 1"),
        ({"claims__0__value": "0.93"}, "claims.0.value: Input should be a valid number"),
        ({"claims__0__value": float("nan")}, "claims.0.value: Input should be a finite number"),
        ({"claims__1__met": True}, "claims.1: met is True, but the value and what was asked give False"),
        ({"claims__1__asked": 3}, "claims.1.asked: Extra inputs"),
        ({"tables__0__rows": [[1, 2], [1], [1, 2, 3]]}, "tables.0: 2 columns, but row 1 has 1 values, row 2 has 3 values"),
        ({"tables__0__rows": [[1, {}]]}, "tables.0.rows.0.1"),
        ({"environment__date": "2026-11-23T10:00:00"}, "environment.date: Input should have timezone info"),
        ({"environment__cores": None}, "environment.cores: Input should be a valid integer"),
        ({"command": None}, "command: Input should be a valid string"),
    ],
)
def test_a_file_that_cannot_stand_there_is_named_with_what_is_wrong(keep: Keep, changes: dict[str, Any], said: str) -> None:
    path = keep(**changes)
    with pytest.raises(UserError) as raised:
        read_result(path)
    assert str(raised.value).startswith(f"{path}: ") and said in str(raised.value)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[1]", b"3", b"{}", b'{"phases": []}', b"[" * 100_000])
def test_what_is_no_result_is_named(keep: Keep, content: bytes) -> None:
    path = keep()
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path}: "):
        read_result(path)


def test_every_bad_file_is_told_and_nothing_is_written(keep: Keep, capsys: pytest.CaptureFixture[str]) -> None:
    folder = keep("a.json", small=True).parents[1]
    keep("b.json")
    keep("c.json", format=3)
    for arguments in ([], ["--check"]):
        assert main(arguments, folder) == 2
        said = capsys.readouterr().err
        assert "a.json" in said and "c.json" in said and "b.json" not in said
    assert not (folder / "RESULTS.md").exists()


def test_the_check_sees_a_page_that_drifted(keep: Keep) -> None:
    folder = keep().parents[1]
    assert main(["--check"], folder) == 1
    assert main([], folder) == main(["--check"], folder) == 0
    keep(claims__0__value=0.94)
    before = (folder / "RESULTS.md").read_text()
    assert main(["--check"], folder) == 1
    assert (folder / "RESULTS.md").read_text() == before


HOSTILE = "</td><script>x</script> | [x](http://evil.example) `code` **b** <!-- \n# head\n| a |"


def test_what_a_file_says_is_text_in_the_page(keep: Keep) -> None:
    every = {
        "claims__0__what": HOSTILE, "claims__0__unit": HOSTILE, "claims__0__note": HOSTILE, "environment__cpu": HOSTILE,
        "environment__commit": HOSTILE, "environment__versions": {HOSTILE: HOSTILE}, "settings": {HOSTILE: HOSTILE},
        "tables__0": {"title": HOSTILE, "columns": [HOSTILE, "b"], "rows": [[HOSTILE, 1]]},
        "command": f"{HOSTILE}\n```\n{HOSTILE}",
    }  # fmt: skip
    keep("evaluation_[](x) <b>_2026-11-22.json", environment__date="2026-11-22T10:00:00+00:00", **every)
    hostile, harmless = page(results(keep(**every).parent)), page(results(keep().parent))
    assert "<script" not in MARKDOWN.render(hostile) and 'href="http://evil' not in MARKDOWN.render(hostile)
    shown = cells(hostile)
    assert " ".join(HOSTILE.split()) in shown and len([token for token in MARKDOWN.parse(harmless) if token.type == "fence"]) == 2


@given(st.text(st.sampled_from("`~\n\t\r\x1b\u202e# a<")))
def test_a_command_cannot_end_its_block(command: str) -> None:
    tokens = MARKDOWN.parse("\n".join([*code(command), "after"]))
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert not set(tokens[0].content) & set("\x1b\u202e\r")
