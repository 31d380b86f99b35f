"""The report page: it says what the run says, renders whatever a run has come to, and no text of a model can break out of it."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import HOSTILE, Shape, write_run
from stream_rows import augmented, solved, write_rows

from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import sentence
from llm2llm_ray.report import render, write_report
from llm2llm_ray.rounds.rows import tally
from llm2llm_ray.storage.stages import StageRecords


class Page(HTMLParser):
    """What a browser would see: elements, their texts by section, the scripts, and every address."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.sections: dict[str, str] = {}
        self.handlers: list[str] = []
        self._section, self._script = "", False
        self.sections[""] = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        named = dict(attrs)
        self.handlers += [name for name in named if name.startswith("on")]
        self.addresses += [value for name in ("src", "href", "action", "data") if (value := named.get(name))]
        if tag == "section":
            self._section = named["id"] or ""
            self.sections[self._section] = ""
        self.sections[self._section] += " "
        if tag == "script":
            self._script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = self._script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.sections[self._section] += data

    def said(self, section: str) -> str:
        return re.sub(r"\s+", " ", self.sections[section]).strip()

    @property
    def data(self) -> dict[str, list[list[object]]]:
        return dict(json.loads(self.scripts[0]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return write_run(tmp_path_factory.mktemp("finished") / "run", Shape(seeds=60, wrong=40, test=120))


@pytest.fixture(scope="module")
def html(finished: RunRecord) -> str:
    return render(finished)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Page]:
    @functools.cache
    def page_of(shape: Shape) -> Page:
        return Page(render(write_run(tmp_path_factory.mktemp("made") / "run", shape)))

    return lambda **shape: page_of(Shape(**shape))


def test_the_answer_comes_first(finished: RunRecord, page: Page) -> None:
    assert finished.exams is not None
    assert list(page.sections)[:3] == ["", "answer", "test"]
    found = finished.exams["differences"]["kept - baseline"]
    told = page.said("answer").replace("−", "-")
    assert told.startswith(sentence(finished.exams).partition(": ")[0])
    assert f"{100 * found['value']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]" in told


def test_what_it_cost_is_the_sum_of_its_rounds(finished: RunRecord, page: Page) -> None:
    rounds = [stage["result"] for stage in finished.stages if stage["name"] == "round"]
    accepted = sum(turn["round"]["accepted"] for turn in finished.iterations)
    tokens = sum(r["teacher_prompt_tokens"] + r["teacher_completion_tokens"] for r in rounds)
    told = page.said("answer")
    assert f"Teacher calls {sum(r['asked'] for r in rounds):,}" in told
    assert f"Teacher tokens {tokens:,}" in told
    assert f"Teacher tokens per accepted row {tokens / accepted:,.0f}" in told
    assert f"60 → {60 + accepted:,} {accepted} accepted" in told


def test_every_outcome_is_in_the_explorer(finished: RunRecord, page: Page) -> None:
    mistakes = list(finished.mistakes())
    shown = [(page.data["mistakes"][row[0]], row[1:]) for row in page.data["rows"]]  # type: ignore[index]
    outcomes = [(m.row_id, o.status, o.reason, o.text) for m in mistakes for o in m.outcomes]
    assert [(seed[1], row[0], row[1], row[3]) for seed, row in shown if row[0] != "none"] == outcomes
    silent = [m.row_id for m in mistakes if not m.outcomes]
    assert [(seed[1], row[1]) for seed, row in shown if row[0] == "none"] == [(id, "teacher not asked") for id in silent]
    assert silent and outcomes


def test_the_reasons_add_up_to_what_the_iterations_rejected(finished: RunRecord, page: Page) -> None:
    counts: dict[str, int] = {}
    for turn in finished.iterations:
        for reason, n in turn["round"]["rejected"].items():
            counts[reason] = counts.get(reason, 0) + n
    told = page.said("rejections")
    assert f"{sum(counts.values())} rejected" in told
    assert {"duplicate", "conflicting_label"} & counts.keys(), "the commit gates had nothing to reject in this run"
    for reason, n in counts.items():
        assert re.search(rf"(?<!\w){reason} [^%]* {n} \d+ %", told), reason
    assert "cut off by teacher.max_tokens = 512" in told


def test_the_page_asks_nobody_for_anything_and_lets_only_its_own_script_run(html: str, page: Page) -> None:
    assert [a for a in page.addresses if not a.startswith("data:")] == []
    assert page.handlers == []
    assert len(page.scripts) == 2
    assert "default-src 'none'" in html and "script-src 'sha256-" in html
    assert not re.search(r"url\(|@import|https?://", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_do_nothing(html: str, page: Page, text: str) -> None:
    texts = [field for row in (*page.data["mistakes"], *page.data["rows"]) for field in row if isinstance(field, str)]
    assert any(text in field for field in texts), "this run does not hold the text"
    assert text not in html or not re.search("[<>&]", text)
    assert "img" not in page.elements


@pytest.mark.parametrize(
    ("shape", "section", "says"),
    [
        ({"until": "started"}, "answer", "No answer yet"),
        ({"until": "started"}, "", "broke off"),
        ({"until": "started"}, "iterations", "No iteration has finished"),
        ({"until": "started"}, "explorer", "No mistake is recorded"),
        ({"until": "train", "iterations": 1}, "timeline", "No round has finished"),
        ({"until": "rounds"}, "answer", "No answer yet"),
        ({"until": "rounds"}, "", "told to stop"),
        ({"until": "rounds"}, "confusion", "nothing to compare"),
        ({"until": "no exams"}, "answer", "The test set was not read"),
        ({"until": "no exams"}, "test", "No exam has been taken"),
        ({"baseline": False}, "answer", "No answer"),
        ({"baseline": False}, "answer", "No matched baseline was trained"),
        ({"teacher": False}, "answer", "the teacher was never asked"),
        ({"teacher": False}, "iterations", "No row was accepted: the teacher was never asked"),
        ({"teacher": False}, "rejections", "The teacher has written nothing"),
        ({"free_text": True}, "confusion", "free text"),
        ({"iterations": 1}, "timeline", "the teacher was not asked"),
        ({"baseline": False}, "answer", "not fair: the kept student also took more updates"),
        ({"baseline": False, "iterations": 1}, "answer", "the seeds alone, the same number of updates: the fair comparison"),
        ({"iterations": 1}, "iterations", "Right on the seed rows with"),
        ({"iterations": 1, "error_source": "dev"}, "iterations", "Right on the dev rows"),
        ({"iterations": 1, "error_source": "early"}, "iterations", "as the student answered them before it knew them by heart"),
        ({"iterations": 1, "error_source": "cross_fit"}, "iterations", "that was trained without it"),
    ],
)
def test_a_run_that_lacks_something_says_so(made: Callable[..., Page], shape: dict[str, object], section: str, says: str) -> None:
    assert says in made(**shape).said(section)


def test_students_that_do_not_know_their_rows_are_named_above_the_iterations(made: Callable[..., Page]) -> None:
    told = made(iterations=1, token_accuracy=0.81).said("iterations")
    assert "(token accuracy 0.81): raise student.updates" in told
    assert "does not know its training rows" not in made(iterations=1).said("iterations")


def test_an_unfinished_stage_is_drawn_open(tmp_path: Path) -> None:
    html = render(write_run(tmp_path / "run", Shape(until="rounds")))
    assert html.count('class="bar open"') == 1
    assert "train 2 · 40 s · not finished" in html


def test_the_confusion_counts_every_test_row_once(finished: RunRecord) -> None:
    from llm2llm_ray.report.confusion import confusion

    found, accuracy = confusion(finished), finished.exams["accuracy"] if finished.exams else {}
    for matrix, who in zip(found.matrices, ("first", "kept"), strict=True):
        cells = [cell for _, line in matrix.lines for cell in line]
        assert sum(cell.count for cell in cells) == matrix.total == accuracy[who]["total"]
        assert sum(cell.count for cell in cells if cell.right) == matrix.hits == accuracy[who]["hits"]


def test_rows_without_an_answer_are_told_apart_from_wrong_ones(tmp_path: Path) -> None:
    from llm2llm_ray.report.confusion import UNANSWERED, confusion
    from llm2llm_ray.report.turns import turns

    run = write_run(tmp_path / "run", Shape(unanswered=3))
    page = Page(render(run))
    assert page.said("test").count(" · 3 unanswered") == 4, "each of the four students has three test rows without an answer"
    assert "Wrong Unanswered Right" in page.said("iterations")
    for turn, record in zip(turns(run), run.rounds(), strict=True):
        right = sum(row["correct"] for row in run.round_rows(record.folder))
        assert (turn.unanswered, turn.wrong, turn.value) == (3, 24 - 3 - right, right / 24)
    found = confusion(run)
    assert found.columns[-1] == UNANSWERED
    assert [sum(line[-1].count for _, line in matrix.lines) for matrix in found.matrices] == [3, 3]


def test_it_is_written_into_the_run_or_where_it_is_wanted(finished: RunRecord, tmp_path: Path) -> None:
    inside = Path(write_report(finished))
    assert inside == Path(finished.files.root) / "report.html"
    outside = Path(write_report(finished, str(tmp_path / "page.html")))
    assert outside.read_text(encoding="utf-8") == inside.read_text(encoding="utf-8")
    write_report(finished)  # a second time replaces it
    with pytest.raises(UserError, match=r"nowhere.*cannot be written"):
        write_report(finished, str(tmp_path / "nowhere" / "page.html"))


BREAKERS = (
    "</script>",
    "<!--",
    "-->",
    "]]>",
    "<script>",
    "\u2028",
    "\u2029",
    '"',
    "'",
    "&lt;",
    "{{",
    "{%",
    "\x00",
    "\ud800",
    "\\u003c",
)
texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(BREAKERS)), min_size=1, max_size=8).map("".join).filter(bool)
stored = texts.filter(lambda text: not re.search("[\ud800-\udfff]", text))  # Parquet holds no lone surrogate


@settings(max_examples=12)
@given(st.lists(st.tuples(texts, stored, texts), min_size=1, max_size=10))
def test_no_text_breaks_out_of_the_page(rows: list[tuple[str, str, str]]) -> None:
    """Whatever the models wrote, the page has the elements it has for harmless texts, and the explorer reads the texts back."""
    names = {text: f"text{number}" for number, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    with tempfile.TemporaryDirectory() as folder:
        harmless = Page(render(_mistakes(Path(folder) / "harmless", [tuple(names[text] for text in row) for row in rows])))
        page = Page(render(_mistakes(Path(folder) / "run", rows)))
    assert Counter(page.elements) == Counter(harmless.elements)
    assert page.scripts[1:] == harmless.scripts[1:]
    assert page.handlers == []
    found = [(line[4], page.data["mistakes"][line[0]][5], line[2]) for line in page.data["rows"]]  # type: ignore[index]
    assert found == rows


def _mistakes(folder: Path, rows: Sequence[tuple[str, ...]]) -> RunRecord:
    """A run with one round of wrong rows: what was written, what the student had said, and the reason of the rejection."""
    files = write_run(folder, Shape(until="started")).files
    stored = [
        augmented(f"s-{number}")
        | {
            "completion": said,
            "rejected": json.dumps([{"reason": reason, "detail": written, "text": written, "ordinal": 0, "attempt": 0}]),
        }
        for number, (written, said, reason) in enumerate(rows)
    ]
    write_rows(files, "rounds/round-000-a", [*stored, solved("t-1")], rows_per_file=100)
    result = {"folder": "rounds/round-000-a"} | tally(files, "rounds/round-000-a")
    began = RunRecord(files).events[-1]["time"]
    StageRecords(files).record("round", "a" * 20, inputs={}, result=result, started=began, ended=began + 3, iteration=0)
    return RunRecord(files)
