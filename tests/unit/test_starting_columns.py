"""Which column is what: found where the values and names settle it, asked where they do not, refused where no task fits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_files import requests

from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.columns import Question, Roles, find_roles
from llm2llm_ray.starting.table import Table

TEXTS, LABELS = zip(*requests(), strict=True)
NUMBERS = [str(["billing", "shipping", "login"].index(label)) for label in LABELS]


def table(columns: Mapping[str, Sequence[object]], read_as: str = "commas between columns, UTF-8") -> Table:
    rows = [dict(zip(columns, map(str, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    return Table("some.csv", tuple(columns), tuple(enumerate(rows, 2)), read_as)


def nobody(question: Question) -> str:
    raise UserError(f"{question.flag}: {', '.join(name for name, _ in question.candidates)}")


def roles(columns: Mapping[str, Sequence[object]], text: str | None = None, label: str | None = None) -> Roles:
    return find_roles(table(columns), text=text, label=label, choose=nobody)


def told(found: Roles, column: str) -> str:
    (line,) = [line.removeprefix(f"{column}: ") for line in found.told if line.startswith(f"{column}: ")]
    return line


@given(st.permutations(["note", "intent", "message", "number", "at", "who"]))
def test_the_order_of_columns_changes_nothing(order: list[str]) -> None:
    count = len(TEXTS)
    every = {
        "note": ["internal"] * count, "intent": LABELS, "message": TEXTS, "number": [100 + 3 * n for n in range(count)],
        "at": [f"2026-01-{n % 28 + 1:02} 10:{n % 60:02}" for n in range(count)], "who": [f"{n % 40},5" for n in range(count)],
    }  # fmt: skip
    found = roles({name: every[name] for name in order})
    assert (found.task, found.text, found.label, found.id) == ("classification", "message", "intent", "number")
    assert [line.partition(":")[0] for line in found.told] == order


def test_each_column_has_a_line_that_says_why() -> None:
    found = roles(
        {"ticketId": [f"T{n * n}" for n in range(len(TEXTS))], "body": TEXTS, "queue": LABELS, "lang": ["en"] * len(TEXTS)}
    )
    assert told(found, "ticketId") == "the id: every row has its own"
    assert told(found, "body").startswith("the text: called like one; 10 words on average, 96 different in 96 rows")
    assert told(found, "queue").startswith("the label: called like one; 3 values in 96 rows: ")
    assert told(found, "lang") == "not used: 'en' in every row that has one"


def test_names_that_say_nothing_are_not_needed() -> None:
    found = roles({"a": LABELS, "b": TEXTS})
    assert (found.text, found.label, found.id) == ("b", "a", None)
    assert told(found, "a").startswith("the label: the only column that can be;")


def test_of_a_label_in_words_and_in_numbers_the_words_are_taken() -> None:
    found = roles({"text": TEXTS, "label": NUMBERS, "label_name": LABELS})
    assert found.label == "label_name" and told(found, "label") == "not used: says the same as label_name"
    assert roles({"text": TEXTS, "label": NUMBERS}).label == "label"


def test_amounts_dates_and_ids_are_no_labels() -> None:
    count = len(TEXTS)
    found = roles(
        {
            "amount": [f"{n % 4},50" for n in range(count)],
            "day": [f"0{n % 5 + 1}.03.2026" for n in range(count)],
            "age": [20 + n % 45 for n in range(count)],
            "text": TEXTS,
            "x": LABELS,
        }
    )
    assert (found.text, found.label, found.id) == ("text", "x", None)


def test_two_columns_that_could_be_the_label_are_asked_about_and_a_flag_settles_it() -> None:
    columns = {"text": TEXTS, "queue": LABELS, "intent": random.Random(0).sample(LABELS, len(LABELS)), "urgent": NUMBERS[::-1]}
    with pytest.raises(UserError, match="--label: queue, intent"):
        roles(columns)
    assert told(roles(columns, label="urgent"), "urgent").startswith("the label: named by --label; 3 values in 96 rows")
    asked: list[Question] = []
    found = find_roles(table(columns), text=None, label=None, choose=lambda question: asked.append(question) or "intent")  # type: ignore[func-returns-value]
    assert found.label == "intent" and told(found, "intent").startswith("the label: chosen; 3 values")
    assert [(question.role, question.asked) for question in asked] == [("label", "Which column is the label?")]


def test_a_column_called_label_goes_before_one_called_fine_label() -> None:
    fine = [f"{label}:{n % 2}" for n, label in enumerate(LABELS)]
    found = roles({"text": TEXTS, "fine_label": fine, "label": LABELS, "text_clean": TEXTS[::-1]})
    assert (found.text, found.label) == ("text", "label")


def test_multiple_choice_is_not_taken_for_classification() -> None:
    every = table({"context": TEXTS, "choices": TEXTS, "answer": LABELS})
    nested = Table(every.path, every.columns, every.rows, every.read_as, frozenset({"choices"}))
    with pytest.raises(UserError, match="choices holds lists, as of a multiple-choice task"):
        find_roles(nested, text=None, label=None, choose=nobody)
    assert find_roles(nested, text=None, label="answer", choose=nobody).text == "context"


def test_two_texts_are_told_apart_by_name_or_length_or_asked_about() -> None:
    long = [f"{text} {text} {text} {text}" for text in TEXTS]
    titles = [text[:12] + str(n) for n, text in enumerate(TEXTS)]
    assert roles({"title": titles, "body": TEXTS, "label": LABELS}).text == "body"
    assert told(roles({"a": TEXTS, "b": long, "label": LABELS}), "b").startswith("the text: by far the longest")
    for pair in ({"subject": TEXTS, "other": TEXTS[::-1]}, {"text": TEXTS, "body": TEXTS[::-1]}, {"text": TEXTS, "reply": long}):
        with pytest.raises(UserError, match="--text: "):
            roles({**pair, "label": LABELS})
        assert roles({**pair, "label": LABELS}, text=next(iter(pair))).text == next(iter(pair))


def test_worked_answers_make_it_gsm8k_whatever_else_there_is() -> None:
    answers = [f"{n} + 1 = {n + 1}\n#### {n + 1}" for n in range(len(TEXTS))]
    found = roles({"level": NUMBERS, "a": answers, "q": TEXTS})
    assert (found.task, found.text, found.label) == ("gsm8k", "q", "a")
    assert told(found, "a") == "the answer: the only column that can be; its values end in #### and a number"
    assert roles({"level": NUMBERS, "a": answers, "q": TEXTS}, label="level", text="q").task == "classification"


def test_an_id_that_rows_share_is_none() -> None:
    found = roles({"id": [n // 2 * 5 for n in range(len(TEXTS))], "text": TEXTS, "label": LABELS})
    assert found.id is None and told(found, "id").startswith("not used")


def test_what_no_task_reads_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError) as refused:
        roles({"question": TEXTS, "answer": TEXTS[::-1], "lang": ["en"] * len(TEXTS)})
    for part in (
        "some.csv: no column can be the label",
        "96 different in 96 rows",
        "'en' in every row",
        "gsm8k",
        "llm2llm tasks",
        "--label",
    ):
        assert part in str(refused.value)
    with pytest.raises(UserError, match=r"no column beside label in which .* \(others: amount\): name it with --text"):
        roles({"amount": NUMBERS, "label": LABELS})


def test_flags_that_name_no_column_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--label quue: some\.csv has no such column; did you mean queue\?"):
        roles({"text": TEXTS, "queue": LABELS}, label="quue")
    with pytest.raises(UserError, match="--text and --label are both queue"):
        roles({"text": TEXTS, "queue": LABELS}, label="queue", text="queue")


def test_a_file_without_names_on_top_is_told() -> None:
    with pytest.raises(UserError, match=r"line 1: 'billing' should be the name of a column, but 3\d rows have it as a value"):
        roles({"Where is my parcel then?": TEXTS, "billing": LABELS})
