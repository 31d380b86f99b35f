"""CaseHOLD: rows in both published forms, the visible and counted cut, the grader, and what a teacher may write."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_data import real_folder

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.casehold import CUT, LETTERS, CaseHold
from llm2llm_ray.tasks.holding_prompt import HOLDING
from llm2llm_ray.tasks.splits import load_splits
from llm2llm_ray.tasks.task import Asked
from llm2llm_ray.types import Draft, Graded, Rejected

CHOICES = [
    "holding that a lease is a contract",
    "holding that notice by post is enough",
    "recognizing that a tenant may waive notice",
    "holding that a landlord must mend the roof",
    "holding that rent is due on the first",
]
BEFORE = "The tenant says that he was never told. But the letter lay in his box for a week. See Smith v. Jones, 12 F.2d 3 (1990)"
ROW = {"context": f"{BEFORE} ({HOLDING}). We agree.", "choices": CHOICES, "label": 1, "answer": "B"}
OTHER = "The court below let the widow keep the farm because her husband had signed nothing. See Doe v. Roe, 9 P.3d 77 (2001)"


def mistake(completion: str = " D", **options: int) -> Graded:
    task = CaseHold(**options)  # type: ignore[arg-type]
    answer = task.answer(completion)
    return Graded(example=task.example(ROW, "s-1"), completion=completion, answer=answer, correct=False)


def written(reply: str, *, style: str = "completion", count: int = 1, cut: bool = False) -> list[Draft | Rejected]:
    return CaseHold().parse(reply, mistake(), style=style, count=count, cut=cut)


def refusal(reply: str, *, style: str = "completion", cut: bool = False) -> tuple[str, str]:
    (item,) = written(reply, style=style, cut=cut)
    assert isinstance(item, Rejected)
    return item.reason, item.detail


# Rows.


def test_the_student_sees_passage_choices_and_nothing_else() -> None:
    task = CaseHold()
    example = task.example(ROW, "s-1")
    assert task.student_prompt(example.input) + task.completion(example.output) == (
        "Which holding belongs at <HOLDING>?\n\n"
        f"Passage: {BEFORE} (<HOLDING>). We agree.\n"
        "A: holding that a lease is a contract\n"
        "B: holding that notice by post is enough\n"
        "C: recognizing that a tenant may waive notice\n"
        "D: holding that a landlord must mend the roof\n"
        "E: holding that rent is due on the first\n"
        "Answer: B"
    )


@pytest.mark.parametrize("label", [3, "3", "D", "d", " D "])
def test_a_label_is_a_number_or_a_letter(label: object) -> None:
    assert CaseHold().example(ROW | {"label": label}, "s-1").output == "D"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label": 5}, "field label: '5' is neither 0 to 4 nor A to E"),
        ({"label": -1}, "neither 0 to 4 nor A to E"),
        ({"label": True}, "neither 0 to 4 nor A to E"),
        ({"label": "AB"}, "neither 0 to 4 nor A to E"),
        ({"label": ""}, "neither 0 to 4 nor A to E"),
        ({"label": None}, "field label: expected text"),
        ({"context": BEFORE}, "stands in it 0 times, not once"),
        ({"context": f"{HOLDING} {HOLDING}"}, "stands in it 2 times, not once"),
        ({"choices": CHOICES[:4]}, "expected a list of five texts"),
        ({"choices": "a, b, c, d, e"}, "task.options.choice_columns"),
        ({"choices": [*CHOICES[:4], 5]}, "field choices[4]: expected text, found int 5"),
        ({"choices": [*CHOICES[:4], " "]}, "one of the texts is blank"),
        ({"choices": [*CHOICES[:4], "\ud800"]}, "not valid Unicode"),
    ],
)
def test_a_bad_row_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as raised:
        CaseHold().example(ROW | wrong, "s-1")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_words": 5}, "window_words must be a whole number of words, at least 15, not 5"),
        ({"window_words": "many"}, "window_words must be"),
        ({"shown_words": True}, "shown_words must be"),
        ({"choice_columns": ["a", "b"]}, "choice_columns must name five columns"),
        ({"choice_columns": "abcde"}, "choice_columns must name five columns"),
        ({"window": 200}, "did you mean window_words?"),
    ],
)
def test_bad_options_are_the_users_mistake(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_task("casehold", options)
    assert said in str(raised.value)


# The cut.


@given(before=st.integers(0, 300), after=st.integers(0, 300), window=st.integers(15, 400))
def test_a_cut_keeps_the_citation_and_shows_itself(before: int, after: int, window: int) -> None:
    words = [*(f"b{number}" for number in range(before)), f"({HOLDING}).", *(f"a{number}" for number in range(after))]
    text = CaseHold(window_words=window).example(ROW | {"context": " ".join(words)}, "s-1").input
    passage, *choices = text.split("\n")
    assert choices == [f"{letter}: {choice}" for letter, choice in zip(LETTERS, CHOICES, strict=True)]
    kept = passage.split()
    lost_before, lost_after = kept[0] == CUT, kept[-1] == CUT
    kept = kept[lost_before : len(kept) - lost_after]
    room = max(window - sum(len(choice.split()) for choice in CHOICES), 40)
    start = words.index(kept[0])
    assert kept == words[start : start + len(kept)] and f"({HOLDING})." in kept
    assert (lost_before, lost_after) == (start > 0, start + len(kept) < len(words))
    assert len(kept) == min(room, len(words))


def test_the_words_beside_the_citation_stay() -> None:
    context = " ".join(["far"] * 200 + ["near"] * 10 + [f"({HOLDING})"] + ["next"] * 5 + ["far"] * 200)
    passage = CaseHold(window_words=60).example(ROW | {"context": context}, "s-1").input.split("\n")[0]
    assert Counter(passage.split())["near"] == 10 and Counter(passage.split())["next"] == 5


def test_cuts_are_counted_where_a_run_keeps_its_counts(tmp_path: Path) -> None:
    config = TaskConfig(name="casehold", data=real_folder("casehold"), seed_rows=50)
    _, whole = load_splits(config, load_task("casehold", {}), base_dir=".")
    assert (whole.counts["seed_cut"], whole.counts["test_cut"]) == (0, 0)
    _, cut = load_splits(config, load_task("casehold", {"window_words": 260}), base_dir=".")
    marked = {name: sum(CUT in row.input for row in rows) for name, rows in (("seed", cut.seed), ("test", cut.test))}
    assert 0 < marked["seed"] < len(cut.seed) and 0 < marked["test"] < len(cut.test)
    assert (cut.counts["seed_cut"], cut.counts["test_cut"]) == (marked["seed"], marked["test"])
    store = VersionStore(Files(str(tmp_path / "run")))
    version = store.commit(cut.seed, parent=None, iteration=0, about={"rows": dict(cut.counts)})  # as runtime.launch does
    assert store.about(version)["about"]["rows"]["seed_cut"] == marked["seed"]


# The grader.


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" B", "B"),
        ("\n\n b\nC", "B"),
        ("(B)", "B"),
        ("**B**.", "B"),
        ("“B”", "B"),
        ("B: holding that notice by post is enough", "B"),
        ("(B) holding that notice by post is enough", "B"),
        ("A or B", None),
        ("(A) or (B)", None),
        ("A holding that a lease is a contract", None),
        ("Answer: B", None),
        ("holding that notice by post is enough", None),
        ("F", None),
        ("BB", None),
        ("", None),
        (" \n ", None),
    ],
)
def test_the_grader_reads_a_letter_or_a_line_of_the_list(completion: str, answer: str | None) -> None:
    assert CaseHold().answer(completion) == answer
    assert CaseHold().is_correct("B", completion) == (answer == "B")


# The teacher that continues a list.


def test_completion_prompt_shows_passages_with_their_holdings() -> None:
    task = CaseHold(window_words=60, shown_words=15)
    example = task.example(ROW | {"context": f"{'word ' * 60}{BEFORE} ({HOLDING}). We agree."}, "s-1")
    wrong = Graded(example=example, completion=" D", answer="D", correct=False)
    peer = task.example({"context": f"{OTHER} ({HOLDING}).", "choices": CHOICES, "label": "C"}, "s-2")
    prompt = task.teacher_prompt(wrong, Asked(style="completion", peers=[peer, example], show_wrong_answer=True))
    assert prompt.text == (
        "Passages from court decisions, each with what the case cited at its end held.\n\n"
        f"Passage: {' '.join(OTHER.split()[-15:])}\nHolding: recognizing that a tenant may waive notice\n\n"
        f"Passage: {' '.join(BEFORE.split()[-15:])}\nHolding: holding that notice by post is enough\n\n"
        "Passage:"
    )
    assert prompt.stop == ("\n\n", "\nPassage:")


def test_a_continued_list_becomes_a_row_with_the_mistakes_wrong_choices() -> None:
    (draft,) = written(f" {OTHER}\nHolding: Holding that a wife’s share is not lost, if unsigned.\nI hope this helps.")
    assert isinstance(draft, Draft)
    passage, *lines = draft.input.split("\n")
    assert passage == f"{OTHER} ({HOLDING})."
    choices = dict(line.split(": ", 1) for line in lines)
    assert list(choices) == list(LETTERS)
    assert choices.pop(draft.output) == "holding that a wifes share is not lost if unsigned"
    assert list(choices.values()) == [choice for choice in CHOICES if choice != CHOICES[1]]


def test_choices_with_capitals_and_commas_keep_theirs() -> None:
    row = ROW | {"choices": [f"Holding that, {choice}." for choice in CHOICES]}
    other = Graded(example=CaseHold().example(row, "s-1"), completion="", answer=None, correct=False)
    reply = f" {OTHER}\nHolding: Holding that Ann, a widow, owns it."
    (draft,) = CaseHold().parse(reply, other, style="completion", count=1, cut=False)
    assert isinstance(draft, Draft) and f"{draft.output}: Holding that Ann, a widow, owns it." in draft.input


GOOD = f" {OTHER}\nHolding: holding that a widow keeps the farm"


@pytest.mark.parametrize(
    ("reply", "cut", "refused"),
    [
        ("", False, ("empty", "empty reply")),
        (" \n", True, ("truncated", "empty reply")),
        (" 12 F.2d 3; 13 F.2d 4; 14 F.2d 5", False, ("malformed", "needs a line `Holding: holding …` after the passage")),
        (f" {OTHER}\nHolding: the widow won", False, ("malformed", "needs a line `Holding: holding …` after the passage")),
        (f" {OTHER}\nHolding: holding that", False, ("malformed", "a holding of fewer than 3 words")),
        (" Doe v. Roe\nHolding: holding that it rains", False, ("malformed", "fewer than 15 words before the holding")),
        (f" {OTHER}\nHolding: {CHOICES[1].upper()}!", False, ("copied_parent", "the holding is a choice of the mistake")),
        (f" {OTHER}\nHolding: {CHOICES[0]}", False, ("copied_parent", "the holding is a choice of the mistake")),
        (f" {BEFORE}\nHolding: holding that he won", False, ("copied_parent", "the passage is the mistake's")),
        (f" {OTHER} ({HOLDING})\nHolding: holding that he won", False, ("malformed", "needs <HOLDING> once, in the passage")),
        (f" {OTHER}<|im_end|>\nHolding: holding that he won", False, ("malformed", "chat markup <|im_end|>")),
        (f" {OTHER}", True, ("truncated", "cut by max_tokens")),
        (GOOD, True, ("truncated", "cut by max_tokens")),
    ],
)
def test_what_is_no_row_is_counted_under_its_reason(reply: str, cut: bool, refused: tuple[str, str]) -> None:
    assert refusal(reply, cut=cut) == refused


def test_a_finished_holding_counts_though_the_reply_was_cut_after_it() -> None:
    for reply in (f"{GOOD}\n\nPassage: In th", f"{GOOD}\nHolding: fin"):
        assert written(reply, cut=True) == written(GOOD)


def test_two_items_are_read_when_two_were_asked_for() -> None:
    second = (
        "Passage: The sheriff " + "went and looked and " * 5 + "so. See A v. B, 1 U.S. 2\nHolding: holding that he may look\n"
    )
    found = written(f"{GOOD}\n\n{second}", count=2)
    assert len(found) == 2 and all(isinstance(item, Draft) for item in found)
    assert written(f"{GOOD}\n\n{second}", count=1) == found[:1]


def test_the_right_choice_stands_anywhere() -> None:
    places = Counter()  # type: ignore[var-annotated]
    for number in range(200):
        (draft,) = written(f" {OTHER}\nHolding: holding that he owes {number} dollars")
        assert isinstance(draft, Draft)
        places[draft.output] += 1
    assert set(places) == set(LETTERS) and max(places.values()) < 80


# The teacher that is asked.


def chat(**changes: object) -> str:
    item = {
        "passage": f"{OTHER} ({HOLDING}). So here.",
        "holding": "holding that a widow keeps the farm",
        "wrong": ["holding that one", "holding that two", "holding that three", "holding that four"],
    }
    return json.dumps({"examples": [item | changes]})


def test_chat_prompt_shows_the_mistake_and_hides_cuts() -> None:
    task = CaseHold(window_words=60)
    example = task.example(ROW | {"context": f"{'word ' * 60}{BEFORE} ({HOLDING}). We agree."}, "s-1")
    assert example.input.startswith(CUT)
    for completion, answer, said in ((" D", "D", CHOICES[3]), ("I think\nso", None, '"I think\\nso"'), (" B", "B", '"B"')):
        wrong = Graded(example=example, completion=completion, answer=answer, correct=False)
        user = task.teacher_prompt(wrong, Asked(style="chat", count=2, show_wrong_answer=True)).messages[-1].content
        assert f"The student's answer: {said}\n" in user and CUT not in user
        assert f"The right one: {CHOICES[1]}\n" in user and "Write 2 new passages" in user
        hidden = task.teacher_prompt(wrong, Asked(style="chat")).messages[-1].content
        assert "The student's answer" not in hidden and "Write 1 new passage, with five holdings for it," in hidden


def test_a_chat_reply_becomes_a_row() -> None:
    (draft,) = written(chat(), style="chat")
    assert isinstance(draft, Draft)
    assert f"{draft.output}: holding that a widow keeps the farm" in draft.input.split("\n")
    assert all(f": holding that {word}" in draft.input for word in ("one", "two", "three", "four"))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"passage": 3}, ("malformed", "passage and holding must be strings")),
        ({"holding": None}, ("malformed", "passage and holding must be strings")),
        ({"wrong": "four"}, ("malformed", "wrong must be a list of strings")),
        ({"wrong": ["one", 2, "three", "four"]}, ("malformed", "wrong must be a list of strings")),
        ({"wrong": ["one", "two", "three"]}, ("malformed", "needs the right holding and four others, all different")),
        ({"wrong": ["one", "two", "three", "One."]}, ("malformed", "needs the right holding and four others, all different")),
        ({"holding": "holding that one!"}, ("malformed", "needs the right holding and four others, all different")),
        ({"wrong": ["one", "two", "three", "?"]}, ("empty", "no letter or digit")),
        ({"passage": OTHER}, ("malformed", "needs <HOLDING> once, in the passage")),
        ({"passage": f"{HOLDING} {OTHER}"}, ("malformed", "fewer than 15 words before the holding")),
        ({"passage": f"{BEFORE} ({HOLDING}). We agree."}, ("copied_parent", "the passage is the mistake's")),
        ({"holding": CHOICES[1]}, ("copied_parent", "the holding is a choice of the mistake")),
    ],
)
def test_a_chat_reply_that_is_no_row(changes: dict[str, object], refused: tuple[str, str]) -> None:
    assert refusal(chat(**changes), style="chat") == refused


MARKS = "Passage: Holding: holding that (<HOLDING>) [cut] <HOLDING> A: ( ) <think> </think> ```json , [ ] } <|im_end|>"
JSON = ['{"examples": [{"passage":', '"holding":', '"wrong":', '"']
PIECES = st.lists(st.sampled_from([*MARKS.split(), *JSON, OTHER, BEFORE, " ", "\n", "\r", "\v", "\0", "\ud800"])).map("".join)


@given(reply=st.text() | PIECES, style=st.sampled_from(["chat", "completion"]), count=st.integers(1, 3), cut=st.booleans())
def test_parse_never_raises_and_gives_whole_rows(reply: str, style: str, count: int, cut: bool) -> None:
    parsed = written(reply, style=style, count=count, cut=cut)
    assert 1 <= len(parsed) <= count
    for item in parsed:
        if isinstance(item, Draft):
            assert item.input.encode() and item.input.count(HOLDING) == 1 and len(item.input.split("\n")) == 6
            assert CaseHold().is_correct(item.output, CaseHold().completion(item.output))
        else:
            assert item.reason and (item.text + item.detail).encode() is not None


@given(completion=st.text() | PIECES)
def test_the_grader_never_raises(completion: str) -> None:
    assert CaseHold().answer(completion) in (None, *LETTERS)
