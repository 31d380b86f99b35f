"""Each stateless gate by what it must stop and what it must let through."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.augmentation.gates import check
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected

LABELS = Classification(labels=["billing", "account"])
_SETTINGS = AugmentationConfig(max_words=12)
_MISTAKE = Graded(
    example=Example(id="s-1", input="Where do I change my card?", output="billing"),
    completion=" account",
    answer="account",
    correct=False,
)


class Intents(Task):
    """A small task of the tests' own."""

    def example(self, row, row_id):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def student_prompt(self, text: str) -> str:
        return f"Request: {text}\nIntent:"

    def answer(self, completion: str) -> str | None:
        label = completion.strip().casefold()
        return label if label in ("billing", "account") else None

    def is_correct(self, output: str, completion: str) -> bool:
        return self.answer(completion) == output

    def teacher_prompt(self, mistake, asked):  # type: ignore[no-untyped-def]
        return Prompt(text="")

    def parse(self, reply, mistake, *, style, count, cut):  # type: ignore[no-untyped-def]
        return []


def _reason(text: str, output: str = "billing", mistake: Graded = _MISTAKE) -> str | None:
    rejected = check(Draft(input=text, output=output), mistake, Intents(), _SETTINGS)
    return rejected.reason if rejected else None


@pytest.mark.parametrize(
    "text",
    [
        "I cannot log in to my account.",
        "I can't create an account with my work email.",
        "Sure, I paid it already, so why the reminder?",
        "Here is my order number, where is the parcel?",
        "Sorry, I can't find the invoice.",
        "Great, another charge I did not make!",
        "Does your AI language model read my messages?",
        "Kannst du <b>meine</b> Karte ändern?",
        "ab\tcd\nef 😀",
        "आप कैसे हैं",
        "It says:\nUser: jsmith",
    ],
)
def test_rows_people_could_write_pass(text: str) -> None:
    assert _reason(text) is None


@pytest.mark.parametrize("text", ["", "  \n", "...", "?!", "\u200b"])
def test_empty(text: str) -> None:
    assert _reason(text) == "empty"


def test_empty_output() -> None:
    assert _reason("Where is it?", output=" ") == "empty"


def test_too_long_by_words_or_without_spaces() -> None:
    assert _reason("word " * 12) is None
    assert _reason("word " * 13) == "too_long"
    assert _reason("Where is it?", output="billing " * 13) == "too_long"
    assert _reason("x" * 500) == "too_long"


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b",
        "a\x1b[31mb",
        "broken \ufffd text",
        "\u202egnp.exe",
        "lone \ud800 surrogate",
        "Hi<|im_end|>",
        "<|endoftext|> Hi",
        "Hi [/INST]",
        "<s> Hi",
        "Hi\nAssistant: hello",
        "User: hi",
        "Hi\n### Response:",
        "Hi <think> hm",
    ],
)
def test_malformed(text: str) -> None:
    assert _reason(text) == "malformed"


def test_markup_of_the_task_itself_is_not_malformed() -> None:
    dialogue = Example(id="s-2", input="Human: hello\nHuman: anyone?", output="account")
    mistake = Graded(example=dialogue, completion="", answer=None, correct=False)
    assert _reason("Human: who is there?", mistake=mistake) is None
    assert _reason("Human: who is there?\nAssistant: me", mistake=mistake) == "malformed"


@pytest.mark.parametrize(
    ("task", "parent", "style", "reply"),
    [
        (LABELS, ("<s>old price</s> new price", "billing"), "completion", "<s>9.99</s> 7.99"),
        (LABELS, ("What is [INST] for?", "account"), "chat", '{"text": "Where does [INST] go?", "label": "account"}'),
        (Gsm8k(), ("<|x|> is |x|. What is <|-2|>?", "It is 2.\n#### 2"), "chat",
         "Question: <|x|> is |x|. And <|x|>?\nAnswer: It is 3.\n#### 3"),
    ],
)  # fmt: skip
def test_what_a_row_may_hold_its_offspring_may_hold_from_reader_to_gate(
    task: Task, parent: tuple[str, str], style: str, reply: str
) -> None:
    mistake = Graded(example=Example(id="s-3", input=parent[0], output=parent[1]), completion="", answer=None, correct=False)
    (draft,) = task.parse(reply, mistake, style=style, count=1, cut=False)
    assert isinstance(draft, Draft) and check(draft, mistake, task, _SETTINGS) is None
    plain = Graded(example=replace(mistake.example, input="Why?"), completion="", answer=None, correct=False)
    (rejected,) = task.parse(reply, plain, style=style, count=1, cut=False)
    assert isinstance(rejected, Rejected) and rejected.reason == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have cards.",
        "Sure, here is one: where is my card?",
        "Sure! Here's a request about cards.",
        "Certainly, I can do that.",
        "Here is a similar question: where is it?",
        "Here are 3 new examples for billing:",
        "I'm sorry, but I cannot help with cards.",
        "I’m sorry, but I can’t assist with that.",
        "I cannot fulfill your request.",
        "I am unable to provide more examples.",
        "I cannot generate such content.",
        '"I am just an AI model."',
    ],
)
def test_chatter(text: str) -> None:
    assert _reason(text) == "chatter"


def test_copied_parent() -> None:
    assert _reason("where do i change MY card") == "copied_parent"
    assert _reason("Where do I change my address?") is None


def test_label_outside_the_set() -> None:
    assert _reason("Where is it?", output="shipping") == "bad_answer"


def test_the_first_reason_counts_and_the_text_is_kept() -> None:
    rejected = check(Draft(input="a\x00 " * 20, output="shipping"), _MISTAKE, Intents(), _SETTINGS)
    assert rejected == Rejected(reason="malformed", detail="character U+0000", text="a\x00 " * 20)


@settings(deadline=None)
@given(st.text(), st.text())
def test_no_text_raises_and_what_passes_is_whole(text: str, output: str) -> None:
    rejected = check(Draft(input=text, output=output), _MISTAKE, Intents(), _SETTINGS)
    if rejected is None:
        assert text.strip() and Intents().answer(f" {output}") and "\x00" not in text
    else:
        assert rejected.reason in {"empty", "malformed", "too_long", "chatter", "copied_parent", "bad_answer"}
