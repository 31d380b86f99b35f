from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_data import real_rows

from llm2llm_ray.tasks.arithmetic import only_number, written, wrong_mark
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.task import Asked
from llm2llm_ray.types import Draft, Example, Graded, Rejected

GOLD = Example(id="s-1", input="Tom has 6 boxes of 7 eggs. How many?", output="6*7=<<6*7=42>>42 eggs.\n#### 42")
WRONG = Graded(example=GOLD, completion=" 6 + 7 = 13\n#### 13", answer="13", correct=False)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("keep", [True, False])
def test_every_gold_is_accepted(split: str, keep: bool) -> None:
    task = Gsm8k(keep_calculator_marks=keep)
    for number, row in enumerate(real_rows(f"gsm8k/{split}.jsonl")):
        example = task.example(row, f"s-{number}")
        completion = task.completion(example.output)
        assert task.is_correct(example.output, completion)
        assert ("<<" in completion) == (keep and "<<" in example.output)
        assert not task.is_correct(example.output, completion.rpartition("####")[0])


def test_a_real_problem_in_the_demanded_form_is_a_row() -> None:
    task = Gsm8k()
    rows = real_rows("gsm8k/train.jsonl")[:300]
    kept = 0
    for row in rows:
        reply = f"Question: {row['question']}\nAnswer: {row['answer']}\n"
        [item] = task.parse(reply, WRONG, style="chat", count=1, cut=True)
        if isinstance(item, Draft):
            kept += 1
            assert (item.input, item.output) == (row["question"].strip(), row["answer"])
        else:
            assert item.detail.startswith(("not a plain sum", "wrong sum"))
    assert kept >= 0.95 * len(rows)


def test_marks_are_not_trained_unless_asked_for() -> None:
    assert Gsm8k().completion(GOLD.output) == " 6*7=42 eggs.\n#### 42"
    assert Gsm8k(keep_calculator_marks=True).completion(GOLD.output) == f" {GOLD.output}"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("10.50", Fraction(21, 2)),
        ("1/3 of it", Fraction(1, 3)),
        ("$-5", Fraction(-5)),
        ("- 5", Fraction(-5)),
        (".5", Fraction(1, 2)),
        ("25 m²", Fraction(25)),
        ("$5/hour", Fraction(5)),
        ("2½", None),
        ("½", None),
        ("1,00", None),
        ("1 1/2", None),
        ("1/2/2024", None),
        ("1.2.3", None),
        ("1e5", None),
        ("9" * 200, None),
    ],
)
def test_only_number(line: str, value: Fraction | None) -> None:
    assert only_number(line) == value


@settings(deadline=None)  # other work shares the cores
@given(st.fractions(max_denominator=10**6))
def test_a_number_is_read_back_as_written(value: Fraction) -> None:
    assert only_number(written(value)) == value


@settings(deadline=None)  # other work shares the cores
@given(st.integers(), st.integers(0, 999))
def test_thousands_and_trailing_zeros_change_nothing(whole: int, thousandths: int) -> None:
    task = Gsm8k()
    plain = f"{whole}.{thousandths:03}"
    assert task.is_correct(f"#### {plain}", f"#### {whole:,}.{thousandths:03}00 dollars.")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<<6*7=42>>42 and <<1/3=0.33>>0.33", None),
        ("<<(3+4)*-2=-14>>", None),
        ("<<0.1+0.2=.3>>", None),
        ("<<6*7=43>>", "wrong sum: <<6*7=43>>"),
        ("<<5-5=0.1>>", "wrong sum: <<5-5=0.1>>"),
        ("<<2**3=8>>", "not a plain sum: <<2**3=8>>"),
        ("<<1/0=0>>", "not a plain sum: <<1/0=0>>"),
        ("<<1+1=1+1=2>>", "not a plain sum: <<1+1=1+1=2>>"),
        ("<<٣+٣=6>>", "not a plain sum: <<٣+٣=6>>"),
        ("<<42>>", "broken calculator mark"),
        ("<<6*7=42", "broken calculator mark"),
        ("<<" + "(" * 150 + "1" + ")" * 150 + "=1>>", "not a plain sum: <<" + "(" * 58),
    ],
)
def test_calculator_marks(text: str, fault: str | None) -> None:
    assert wrong_mark(text) == fault


def test_a_row_without_a_final_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"field answer: 'It is 42\.' does not end in a line `#### number`"):
        Gsm8k().example({"question": "How many?", "answer": "It is 42."}, "s-1")


def test_chat_prompt_is_rules_one_worked_pair_and_the_mistake() -> None:
    prompt = Gsm8k().teacher_prompt(WRONG, Asked(style="chat", count=2))
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]
    assert "\n9. " in prompt.messages[0].content
    assert prompt.messages[1].content.partition("Write ")[2].startswith("2 new problems")
    worked = Gsm8k().parse(prompt.messages[2].content, WRONG, style="chat", count=9, cut=False)
    assert len(worked) == 2 and all(isinstance(item, Draft) for item in worked)
    single = Gsm8k().teacher_prompt(WRONG, Asked(style="chat")).messages[2].content
    assert Gsm8k().parse(single, WRONG, style="chat", count=9, cut=False) == worked[:1]
    asked = prompt.messages[3].content
    assert (
        GOLD.input in asked
        and "6*7=42 eggs.\n#### 42" in asked
        and "Write 2 new problems that need the same kind of reasoning." in asked
    )
    assert "#### 13" not in asked
    shown = Gsm8k().teacher_prompt(WRONG, Asked(style="chat", count=2, show_wrong_answer=True)).messages[3].content
    assert "The student wrote:\n6 + 7 = 13\n#### 13" in shown


def test_completion_prompt_ends_where_a_question_begins() -> None:
    peer = Example(id="s-2", input="How many legs has a dog?", output="#### 4")
    prompt = Gsm8k().teacher_prompt(WRONG, Asked(style="completion", peers=[peer, GOLD]))
    problems = prompt.text.split("Question:")
    assert [peer.input in problems[1], GOLD.input in problems[2], problems[3]] == [True, True, ""]
    assert prompt.stop == ("\nQuestion:",)


@pytest.mark.parametrize(
    ("reply", "cut", "expected"),
    [
        (" How many?\nAnswer: 2 + 2 = 4\n#### 4\n", True, ["How many?"]),
        (" How many?\nAnswer: 2 + 2 = 4\n#### 4", True, ["truncated"]),
        ("Question: How many?\nAnswer: 2 + 2 = 4\n#### 4", False, ["How many?"]),
        ("<think>Question: no</think> How many?\nAnswer: 2 + 2 = 4\n#### 4", False, ["How many?"]),
        ("<think>Question: How many?\nAnswer: 2 + 2 = 4\n#### 4", True, ["truncated"]),
        (" \n", False, ["empty"]),
        (" How many?\nAnswer: 2 + 2 = 4 #### 4\n#### 4", False, ["malformed"]),
        (" How many?\nAnswer:\n#### 4", False, ["malformed"]),
        (" How many?<|im_end|>\nAnswer: 4\n#### 4", False, ["malformed"]),
    ],
)
def test_replies_that_continue_the_list(reply: str, cut: bool, expected: list[str]) -> None:
    items = Gsm8k().parse(reply, WRONG, style="completion", count=2, cut=cut)
    assert [item.input if isinstance(item, Draft) else item.reason for item in items] == expected


def test_prose_is_malformed_and_cut_prose_truncated() -> None:
    for cut, reason in ((False, "malformed"), (True, "truncated")):
        [item] = Gsm8k().parse("Sorry, I cannot.", WRONG, style="chat", count=1, cut=cut)
        assert isinstance(item, Rejected) and item.reason == reason
