import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_data import real_rows

from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.task import Asked, identity
from llm2llm_ray.types import Draft, Example, Graded, Rejected

TREC = {
    "ABBR": "an abbreviation",
    "DESC": "a description",
    "ENTY": "a thing",
    "HUM": "a person or group",
    "LOC": "a place",
    "NUM": "a number",
}


def question(number: int, text: str, label: str = "LOC") -> Example:
    return Example(id=f"s-{number}", input=text, output=label)


def trec() -> Classification:
    return Classification(labels=TREC, item="question", question="Type")


WRONG = Graded(example=question(9, "Where is Oslo ?"), completion=" HUM", answer="HUM", correct=False)
PEERS = [question(1, "What county is Modesto in ?"), question(2, "Where\nis   Bern ?"), question(9, "Where is Oslo ?")]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_trec_gold_is_accepted(split: str) -> None:
    task = trec()
    for number, row in enumerate(real_rows(f"trec/{split}.jsonl")):
        example = task.example(row, f"s-{number}")
        completion = task.completion(example.output)
        assert task.is_correct(example.output, completion)
        assert task.group(example) == row["label"]
        assert sum(task.is_correct(label, completion) for label in task.labels) == 1


def test_completion_prompt_is_the_list_with_the_wrong_one_last() -> None:
    prompt = trec().teacher_prompt(WRONG, Asked(style="completion", count=3, peers=PEERS))
    assert prompt.text == (
        "Questions whose type is LOC (a place):\n1. What county is Modesto in ?\n2. Where is Bern ?\n3. Where is Oslo ?\n4."
    )
    assert prompt.stop == ("\n\n", "\n7.", "\n7)")


def test_one_item_stops_at_its_line_and_names_the_confusion() -> None:
    prompt = trec().teacher_prompt(WRONG, Asked(style="completion", show_wrong_answer=True))
    assert prompt.text == "Questions whose type is LOC (a place), easily mistaken for HUM:\n1. Where is Oslo ?\n2."
    assert prompt.stop == ("\n",)


def test_chat_prompt_shows_labels_mistake_and_form() -> None:
    prompt = trec().teacher_prompt(WRONG, Asked(style="chat", count=2, peers=PEERS))
    system, user = (message.content for message in prompt.messages)
    for label, description in TREC.items():
        assert f"- {label}: {description}\n" in system
    assert json.loads(system.rpartition("form:")[2]) == {"examples": [{"text": "...", "label": "..."}]}
    assert user.startswith('Real questions with the label "LOC":\n- "What county is Modesto in ?"\n- "Where\\nis   Bern ?"\n\n')
    assert '"Where is Oslo ?"\nIts right label: "LOC" (a place)\n' in user
    assert 'Write 2 new questions with the label "LOC"' in user and "with 2 examples in the list" in user
    assert json.loads(user.rpartition("form, with 2 examples in the list: ")[2]) == {
        "examples": [{"text": "...", "label": "LOC"}] * 2
    }
    assert "HUM" not in user and "wrong" not in user, "it may be a row that the student got right"


def test_the_wrong_answer_is_shown_as_a_label_with_real_examples_of_it() -> None:
    """What is asked of the teacher, read whole."""
    people = [Example(id="s-7", input="Who is Ann ?", output="HUM"), Example(id="s-8", input="Who made it ?", output="HUM")]
    asked = Asked(style="chat", peers=PEERS[:1], show_wrong_answer=True, confused=people)
    assert trec().teacher_prompt(WRONG, asked).messages[-1].content == (
        'Real questions with the label "LOC":\n- "What county is Modesto in ?"\n\n'
        'The student got this question wrong:\n"Where is Oslo ?"\nIts right label: "LOC" (a place)\n'
        f'The student took it for: "HUM" ({TREC["HUM"]})\n\n'
        'Real questions with the label "HUM":\n- "Who is Ann ?"\n- "Who made it ?"\n'
        'These are "HUM", not "LOC". Make the difference clear in what you write.\n\n'
        'Write 1 new question with the label "LOC" that would teach the student what matters here: what makes such a question '
        '"LOC", in other situations and other words. Copy nothing that is shown above.\n'
        '"LOC" (a place) must be right for it beyond doubt, and no other label of the list, even if the text mentions something '
        "that another label is about.\n"
        'Reply with JSON of this form: {"examples": [{"text": "...", "label": "LOC"}]}'
    )


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        (' the "city"\nof Ann ', 'The student\'s answer, which is none of the labels: "the \\"city\\"\\nof Ann"'),
        (" \n", "The student gave no answer."),
    ],
)
def test_an_answer_outside_the_set_is_shown_as_such(completion: str, said: str) -> None:
    mistake = replace(WRONG, completion=completion, answer=None)
    assert trec().taken_for(mistake) is None
    user = trec().teacher_prompt(mistake, Asked(style="chat", show_wrong_answer=True)).messages[-1].content
    assert f"{said}\n\n" in user
    assert "student's answer" not in trec().teacher_prompt(mistake, Asked(style="chat")).messages[-1].content


def test_labels_without_descriptions_leave_no_colon() -> None:
    prompt = Classification(labels=["LOC", "HUM"]).teacher_prompt(WRONG, Asked(style="chat", show_wrong_answer=True))
    system, user = (message.content for message in prompt.messages)
    assert "The labels (Intent):\n- LOC\n- HUM\n" in system and 'The student took it for: "HUM"\n' in user
    assert 'Write 1 new request with the label "LOC"' in user and "()" not in system + user


def test_a_valid_label_that_is_not_the_mistakes_is_kept() -> None:
    reply = '{"text": "Who is Ann ?", "label": "hum"}'
    assert trec().parse(reply, WRONG, style="chat", count=1, cut=False) == [Draft(input="Who is Ann ?", output="HUM")]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ('{"examples": []}', "malformed"),
        ('{"text": "bad \\ud800 text", "label": "LOC"}', "malformed"),
        ('{"text": "a \\u0000 b", "label": "LOC"}', "malformed"),
        ('{"text": "Where?<|im_end|>", "label": "LOC"}', "malformed"),
        ('{"text": "...", "label": "LOC"}', "empty"),
        ('{"text": "Where?", "label": "\\ud800"}', "unknown_label"),
        ('{"text": "Where?", "label": "LOC", "score": NaN}', "malformed"),
    ],
)
def test_chat_replies_that_are_no_row(reply: str, reason: str) -> None:
    [item] = trec().parse(reply, WRONG, style="chat", count=2, cut=False)
    assert isinstance(item, Rejected) and item.reason == reason
    assert (item.text + item.detail).encode() is not None


def test_reasoning_whose_opening_tag_was_in_the_prompt_is_removed() -> None:
    reply = 'The label is {"text": "no"}.\n</think>\n{"text": "Where is Rome?", "label": "LOC"}'
    assert trec().parse(reply, WRONG, style="chat", count=1, cut=False) == [Draft(input="Where is Rome?", output="LOC")]


@pytest.mark.parametrize(
    ("reply", "cut", "expected"),
    [
        (" Where is the 3.5 mile road?\n3.5 miles\n5. Where?", False, ["Where is the 3.5 mile road?", "Where?"]),
        (" Where is Rome?\n5.\n", True, ["Where is Rome?", "truncated"]),
        ("4. Where is Rome?", False, ["empty", "Where is Rome?"]),
        (' **"Where\'s Rome?"**', False, ["Where's Rome?"]),
        (" <think>Hm", False, ["malformed"]),
    ],
)
def test_list_replies(reply: str, cut: bool, expected: list[str]) -> None:
    items = trec().parse(reply, WRONG, style="completion", count=3, cut=cut)
    assert [item.input if isinstance(item, Draft) else item.reason for item in items] == expected


def test_rows_are_read_with_the_sets_spelling_and_numbers_as_labels() -> None:
    assert trec().example({"text": " Where? ", "label": "loc "}, "s-1") == question(1, "Where?")
    assert Classification(labels=["0", "1"]).example({"text": "x", "label": 1}, "s").output == "1"
    with pytest.raises(ValueError, match=r"label 'PLACE' is not in the set \(ABBR, DESC"):
        trec().example({"text": "Where?", "label": "PLACE"}, "s-1")


def test_labels_fixed_later_leave_the_first_task_as_it_was() -> None:
    first = Classification(item="question")
    assert first.answer(" LOC") is None
    assert first.with_labels(["LOC"]).answer(" loc.") == "LOC"
    assert first.labels == ()


LABELS = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None)  # other work shares the cores
@given(LABELS)
def test_any_label_set_is_refused_or_told_apart(labels: list[str]) -> None:
    try:
        task = Classification(labels=labels)
    except ValueError:
        return
    for label in task.labels:
        assert task.answer(task.completion(label)) == label


COMPOSED, DECOMPOSED = "r\u00e9clamation", "re\u0301clamation"


@pytest.mark.parametrize("configured", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize(
    "said",
    [COMPOSED, DECOMPOSED, DECOMPOSED.upper(), "r\u00e9\u00adclamation", f"\u200b{COMPOSED}\u00a0", "\uff52\u00e9clamation."],
)
def test_labels_that_look_the_same_are_the_same(configured: str, said: str) -> None:
    task = Classification(labels={configured: "wants something put right", "merci": ""})
    assert task.labels == (COMPOSED, "merci") and task.descriptions[COMPOSED] == "wants something put right"
    assert task.example({"text": "Ma carte", "label": said}, "s-1").output == COMPOSED
    assert task.answer(f" {said}") == COMPOSED and task.is_correct(configured, said)
    reply = json.dumps({"text": "Ma facture", "label": said})
    assert task.parse(reply, WRONG, style="chat", count=1, cut=False) == [Draft(input="Ma facture", output=COMPOSED)]


@pytest.mark.parametrize(
    "other", [DECOMPOSED, "R\u00c9CLAMATION", "r\u00e9clama\u200btion", "\uff52\u00e9clamation", "\u00a0r\u00e9clamation"]
)
def test_two_labels_that_look_the_same_are_refused(other: str) -> None:
    with pytest.raises(ValueError, match="read the same: rename one"):
        Classification(labels=[COMPOSED, other])


def test_inner_spaces_of_any_kind_are_one_space_in_a_label() -> None:
    task = Classification(labels=["not ok", "ok"])
    assert task.answer("not\u00a0ok") == "not ok" and task.answer("not  ok") == "not ok" and task.answer("notok") is None


def test_the_choices_are_the_completions_of_all_labels() -> None:
    task = trec()
    choices = task.choices("Where is Oslo ?")
    assert choices == [" ABBR", " DESC", " ENTY", " HUM", " LOC", " NUM"]
    assert [task.answer(choice) for choice in choices] == list(task.labels)
    assert Classification().choices("Where is Oslo ?") is None, "no labels yet: they come from the seeds"


def test_the_labels_are_shown_to_the_student_when_wanted() -> None:
    shown = Classification(labels=TREC, item="question", question="Type", show_labels=True)
    listed = "Type is one of: ABBR, DESC, ENTY, HUM, LOC, NUM\n\n"
    assert shown.student_prompt("Where is Oslo ?") == listed + trec().student_prompt("Where is Oslo ?")
    with pytest.raises(ValueError, match="show_labels must be true or false"):
        Classification(labels=TREC, show_labels="yes")  # type: ignore[arg-type]


def test_an_option_that_is_off_is_no_part_of_what_the_task_is() -> None:
    assert "show_labels" not in identity(trec())
    assert identity(Classification(labels=TREC, show_labels=True))["show_labels"] is True
