"""The contract every task keeps, run on the built-in ones and on the example in the how-to; and loading by name."""

import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm2llm_ray.tasks as tasks
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.tasks import TASKS, load_task
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Rejected

STYLES = ("chat", "completion")


@dataclass
class Sample:
    """A task, rows of it, a wrong completion, and a reply of `written` as its own prompt demands it, per style."""

    task: Task
    rows: Sequence[dict[str, object]]
    wrong: str
    replies: dict[str, str]
    written: Sequence[Draft]

    @property
    def examples(self) -> list[Example]:
        return [self.task.example(row, f"s-{number}") for number, row in enumerate(self.rows)]

    @property
    def mistake(self) -> Graded:
        example = self.examples[0]
        return Graded(example=example, completion=self.wrong, answer=self.task.answer(self.wrong), correct=False)


def classification() -> Sample:
    written = [
        Draft(input="Why was I charged twice?", output="billing"),
        Draft(input="Send a receipt", output="billing"),
    ]
    items = [{"text": draft.input, "label": draft.output} for draft in written]
    return Sample(
        task=Classification(labels={"billing": "charges and invoices", "login": "cannot get in"}),
        rows=[
            {"text": "Where is my invoice?", "label": "billing"},
            {"text": "My card was refused", "label": "billing"},
            {"text": "What does the plan cost?", "label": "Billing"},
        ],
        wrong=" login\n",
        replies={
            "chat": json.dumps({"examples": items}),
            "completion": f" {written[0].input}\n5. {written[1].input}\n",
        },
        written=written,
    )


def gsm8k() -> Sample:
    written = [
        Draft(input="Ann has 3 bags of 4 nuts. How many nuts?", output="She has 3*4=<<3*4=12>>12 nuts.\n#### 12"),
        Draft(input="Bo has 9 cards and loses 2. How many are left?", output="9 - 2 = 7 are left.\n#### 7"),
    ]
    reply = "\n\n".join(f"Question: {draft.input}\nAnswer: {draft.output}" for draft in written)
    return Sample(
        task=Gsm8k(),
        rows=[
            {"question": "Tom has 6 boxes of 7 eggs. How many?", "answer": "He has 6*7=<<6*7=42>>42 eggs.\n#### 42"},
            {"question": "It was 3 degrees and fell by 8. What now?", "answer": "3-8=-5\n#### -5"},
        ],
        wrong=" 6 + 7 = 13\n#### 13",
        replies={"chat": reply, "completion": reply.removeprefix("Question:")},
        written=written,
    )


def how_to(folder: Path) -> Sample:
    """The example in the docstring of llm2llm_ray.tasks, as a user would save and name it."""
    source = (inspect.getdoc(tasks) or "").split("my_task.py:\n", 1)[1].split("\nSmall changes", 1)[0]
    (folder / "my_task.py").write_text(textwrap.dedent(source))
    written = [Draft(input="big", output="small"), Draft(input="near", output="far")]
    reply = "big: small\nnear: far"
    return Sample(
        task=load_task("my_task:Antonyms", {}),
        rows=[{"word": "hot", "opposite": "cold"}, {"word": "up", "opposite": "down"}],
        wrong=" warm",
        replies={"chat": reply, "completion": reply},
        written=written,
    )


@pytest.fixture(params=["classification", "gsm8k", "how_to"])
def sample(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    if request.param == "how_to":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        yield how_to(tmp_path)
        sys.modules.pop("my_task")
    else:
        yield {"classification": classification, "gsm8k": gsm8k}[request.param]()


def test_the_grader_accepts_its_own_gold_and_no_wrong_answer(sample: Sample) -> None:
    for example in sample.examples:
        assert sample.task.is_correct(example.output, sample.task.completion(example.output))
        assert not sample.task.is_correct(example.output, "")
        assert not sample.task.is_correct(example.output, " I do not know.")
    assert not sample.task.is_correct(sample.examples[0].output, sample.wrong)


def test_an_answer_does_not_come_from_the_prompt(sample: Sample) -> None:
    for example in sample.examples:
        prompt = sample.task.student_prompt(example.input)
        assert example.input in prompt and not prompt.endswith((" ", "\n"))


@pytest.mark.parametrize("style", STYLES)
def test_parse_accepts_what_the_prompt_demands(sample: Sample, style: str) -> None:
    reply = sample.replies[style]
    for count in (1, 2):
        assert sample.task.parse(reply, sample.mistake, style=style, count=count, cut=False) == sample.written[:count]


@pytest.mark.parametrize("style", STYLES)
def test_a_cut_reply_gives_no_row_from_its_end(sample: Sample, style: str) -> None:
    cut = sample.replies[style].rstrip()[:-3]
    parsed = sample.task.parse(cut, sample.mistake, style=style, count=2, cut=True)
    assert isinstance(parsed[-1], Rejected) and parsed[-1].reason == "truncated"
    assert sample.written[-1] not in parsed


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("show", [True, False])
def test_teacher_prompt_shows_the_mistake_and_its_peers(sample: Sample, style: str, show: bool) -> None:
    prompt = sample.task.teacher_prompt(
        sample.mistake, Asked(style=style, count=2, peers=sample.examples, show_wrong_answer=show)
    )
    assert bool(prompt.messages) == (style == "chat") and bool(prompt.text) == (style == "completion")
    text = prompt.text or prompt.messages[-1].content
    assert text.count(sample.examples[0].input) == 1 or not isinstance(sample.task, Classification | Gsm8k)
    if style == "completion":
        assert all(example.input in text for example in sample.examples)
    if style == "chat" and isinstance(sample.task, Classification | Gsm8k):
        assert (sample.wrong.strip() in text) == show


@pytest.mark.parametrize("make", [classification, gsm8k])
def test_a_later_call_asks_from_another_side_after_what_all_calls_share(make: Callable[[], Sample]) -> None:
    """Stateless: the same call asks the same."""
    sample = make()

    def prompts(call: int) -> list[str]:
        asked = Asked(style="chat", count=6, peers=sample.examples, call=call)
        first, again = (sample.task.teacher_prompt(sample.mistake, asked) for _ in range(2))
        assert first == again
        return [message.content for message in first.messages]

    found = [prompts(call) for call in range(9)]
    assert len({texts[-1] for texts in found}) == 9
    assert len({tuple(texts[:-1]) for texts in found}) == 1
    assert all(sample.mistake.example.input in texts[-1] and " 6 " in texts[-1] for texts in found)
    assert prompts(9) == found[1], "after all angles the first comes again"


@settings(deadline=None)  # other work shares the cores
@given(st.data())
@pytest.mark.parametrize("make", [classification, gsm8k])
def test_of_a_reply_that_is_cut_anywhere_the_rows_before_are_kept(make: Callable[[], Sample], data: st.DataObject) -> None:
    sample = make()
    wanted = data.draw(st.lists(st.sampled_from(sample.written), min_size=1, max_size=7))
    if isinstance(sample.task, Classification):
        whole = json.dumps({"examples": [{"text": draft.input, "label": draft.output} for draft in wanted]})
        ends = [end + 1 for end, char in enumerate(whole) if char == "}"]
    else:
        items = [f"Question: {draft.input}\nAnswer: {draft.output}\n\n" for draft in wanted]
        whole = "".join(items)
        ends = [len("".join(items[: n + 1])) - 1 for n in range(len(items))]
    at, count = data.draw(st.integers(0, len(whole))), data.draw(st.integers(1, 8))
    finished = sum(end <= at for end in ends[: len(wanted)])
    parsed = sample.task.parse(whole[:at], sample.mistake, style="chat", count=count, cut=True)
    assert parsed[:finished] == wanted[: min(finished, count)]
    assert all(isinstance(item, Rejected) and item.reason == "truncated" for item in parsed[finished:])
    assert len(parsed) <= min(finished + 1, count)
    assert sample.task.parse(whole, sample.mistake, style="chat", count=count, cut=False) == wanted[:count]


def test_what_describes_a_task_has_a_fingerprint(sample: Sample) -> None:
    assert fingerprint(dict(sample.task.describe()))


@settings(deadline=None)  # other work shares the cores
@given(reply=st.text(), style=st.sampled_from(STYLES), count=st.integers(1, 8), cut=st.booleans())
@pytest.mark.parametrize("make", [classification, gsm8k])
def test_parse_never_raises(make, reply: str, style: str, count: int, cut: bool) -> None:  # type: ignore[no-untyped-def]
    sample = make()
    parsed = sample.task.parse(reply, sample.mistake, style=style, count=count, cut=cut)
    assert 1 <= len(parsed) <= count
    for item in parsed:
        assert isinstance(item, Draft | Rejected)
        if isinstance(item, Draft):
            assert (item.input + item.output).encode() and sample.task.answer(sample.task.completion(item.output))
        else:
            assert (item.text + item.detail).encode("utf-8") is not None and item.reason


MARKS = "Question: Answer: #### 1. 2) <<6*7=42>> << >> = ( - $ / 5 Tom <think> </think> ```json ``` ** ' <|im_end|>"
JSON = '{"examples": {"text": "label": "billing" " , [ ] } \\ud800 NaN'
PIECES = st.lists(st.sampled_from([*MARKS.split(), *JSON.split(), "\n", " ", "\0", "\ud800"])).map("".join)


@settings(deadline=None)  # other work shares the cores
@given(reply=PIECES, style=st.sampled_from(STYLES), cut=st.booleans())
@pytest.mark.parametrize("make", [classification, gsm8k])
def test_parse_never_raises_on_nearly_right_replies(make, reply: str, style: str, cut: bool) -> None:  # type: ignore[no-untyped-def]
    test_parse_never_raises.hypothesis.inner_test(make, reply, style, 3, cut)


@settings(deadline=None)  # other work shares the cores
@given(completion=st.text() | PIECES, output=st.text() | PIECES)
@pytest.mark.parametrize("task", [classification().task, gsm8k().task], ids=["classification", "gsm8k"])
def test_the_grader_never_raises(task: Task, completion: str, output: str) -> None:
    answer = task.answer(completion)
    assert answer is None or (isinstance(answer, str) and answer)
    if answer is None:
        assert not task.is_correct(output, completion)


@pytest.mark.parametrize("bomb", ["[" * 10_000, '{"text":' * 10_000, "(" * 50_000, "<<" + "(" * 150 + "1=1>>", "9" * 9_999])
@pytest.mark.parametrize("make", [classification, gsm8k])
def test_bombs_are_rejected(make, bomb: str) -> None:  # type: ignore[no-untyped-def]
    sample = make()
    worked = f"Question: how many?\nAnswer: {bomb}\n#### 1{bomb[:9000]}\n"
    for reply in (bomb, worked):
        assert all(
            isinstance(item, Rejected) for item in sample.task.parse(reply, sample.mistake, style="chat", count=2, cut=False)
        )
    assert sample.task.answer(f"#### {bomb}") is None


def test_the_list_of_tasks_is_true() -> None:
    for task in TASKS.values():
        assert tuple(load_task(task.name, {}).columns) == task.columns


def test_options_reach_the_task() -> None:
    task = load_task("classification", {"labels": ["a", "b"], "item": "question", "instruction": "Name the class."})
    assert task.student_prompt("Why?") == "Name the class.\n\nQuestion: Why?\nIntent:"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("clasification", {}, "did you mean classification?"),
        ("nonsense", {}, "built in: classification, gsm8k"),
        ("no_such_pkg.task:Mine", {}, "cannot import no_such_pkg.task"),
        (":Mine", {}, "no task ':Mine'"),
        ("json:JSONDecoder", {}, "JSONDecoder is no Task"),
        ("llm2llm_ray.tasks.gsm8k:Gsm8", {}, "tasks there: Gsm8k"),
        ("llm2llm_ray.tasks.task:Task", {}, "still lacks answer, example"),
        ("classification", {"label": ["a"]}, "did you mean labels?"),
        ("gsm8k", {"colour": 1}, "unknown option of gsm8k; gsm8k knows: keep_calculator_marks"),
        ("classification", {"labels": ["a", "A."]}, "'a' and 'A.' read the same"),
        ("classification", {"labels": ["a", "?", "**"]}, "label '**' is only punctuation"),
        ("classification", {"labels": [0, 1]}, "quote numbers"),
    ],
)
def test_what_cannot_be_loaded_is_the_users_mistake(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_task(name, options)
    assert said in str(raised.value)


def test_a_task_written_for_an_earlier_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how_to_file = (inspect.getdoc(tasks) or "").split("my_task.py:\n", 1)[1].split("\nSmall changes", 1)[0]
    old = textwrap.dedent(how_to_file).replace("mistake, asked)", "mistake, peers, *, style, count, show_wrong_answer)")
    (tmp_path / "old_task.py").write_text(old)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match=r"teacher_prompt takes \(mistake, asked\).*asked\.peers"):
        load_task("old_task:Antonyms", {})


def test_a_broken_task_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_task.py").write_text("class Half(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match=r"cannot import half_task: .*line 1"):
        load_task("half_task:Half", {})
