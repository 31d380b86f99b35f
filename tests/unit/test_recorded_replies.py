"""The file of recorded replies: what is read from it, what is found in it, and what is said of a wrong one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.asking.recorded import (
    SAMPLING,
    RecordedReplies,
    place_of,
    prompt_sha_of,
    read_recorded,
    written_header,
    written_line,
    written_prompt,
)
from llm2llm_ray.asking.request import Request
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt, Reply

PROMPT = {"messages": [{"role": "user", "content": "Write one."}]}
ASKED = Prompt(messages=(Message(role="user", content="Write one."),))


def line(**fields: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "reply": "one", **fields}


def of(*records: Mapping[str, Any]) -> RecordedReplies:
    return RecordedReplies("replies.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())


def request(ordinal: int = 0, attempt: int = 0, row_id: str = "r", **sampling: Any) -> Request:
    return Request(row_id=row_id, prompt=ASKED, sampling=sampling, ordinal=ordinal, attempt=attempt)


def said(replies: RecordedReplies, asked: Request) -> str:
    reply = replies.find(place_of(asked), asked.asked_with)
    return reply.error or reply.text


# Unicode of all kinds; half surrogate pairs in replies only, as no prompt can hold one.
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
SPOKEN = st.text(max_size=30)
MESSAGES = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXTS)
PROMPTS = st.builds(
    lambda messages, text, stop: Prompt(messages=tuple(messages), text="" if messages else text, stop=tuple(stop)),
    st.lists(MESSAGES, max_size=3), TEXTS, st.lists(TEXTS, max_size=2),
)  # fmt: skip
NUMBERS = st.integers(0, 2**31)
SAMPLINGS = st.fixed_dictionaries(
    {"temperature": st.floats(0, 2), "top_p": st.floats(0.01, 1), "max_tokens": NUMBERS, "seed": NUMBERS}
)
REPLIES = st.one_of(
    st.builds(
        Reply, text=SPOKEN, finish_reason=st.sampled_from(["stop", "length"]), prompt_tokens=NUMBERS, completion_tokens=NUMBERS
    ),
    st.builds(lambda why: Reply(text="", finish_reason="error", error=f"content_filter: {why}"), TEXTS),
)


@given(PROMPTS, NUMBERS, NUMBERS, SAMPLINGS, REPLIES, TEXTS, st.booleans())
def test_what_is_written_is_found_by_what_was_asked(
    prompt: Prompt, ordinal: int, attempt: int, sampling: dict[str, Any], reply: Reply, model: str, packed: bool
) -> None:
    asked = Request(row_id="r", prompt=prompt, sampling=sampling, ordinal=ordinal, attempt=attempt)
    told = written_line(
        written_prompt(prompt), ordinal=ordinal, attempt=attempt, sampling=asked.asked_with, reply=reply, model=model
    )
    data = f"{written_header(model='them', made='here')}\n{told}\n".encode("ascii")
    replies = RecordedReplies("f", gzip.compress(data) if packed else data)
    assert prompt_sha_of(written_prompt(prompt)) == asked.prompt_sha
    found = replies.find(place_of(asked), asked.asked_with)
    assert (found.text, found.error, found.finish_reason) == (reply.text, reply.error, reply.finish_reason)
    assert (found.prompt_tokens, found.completion_tokens) == (reply.prompt_tokens, reply.completion_tokens)
    assert (found.model, replies.about.model, replies.about.made, replies.about.replies) == (model, "them", "here", 1)
    assert replies.find_same(asked, model=model, weights_sha="") == found
    assert replies.find_same(asked, model=f"{model}!", weights_sha="") is None


@given(st.binary(max_size=200) | st.lists(TEXTS, max_size=3).map(lambda lines: "\n".join(lines).encode()))
def test_any_file_is_read_or_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(UserError, match="replies"):
        RecordedReplies("replies", data)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda each: st.lists(each, max_size=2))


@given(
    st.dictionaries(st.sampled_from([*line(), "ordinal", "attempt", "sampling", "model", "error", "finish_reason", "x"]), JSON)
)
def test_any_record_is_read_or_refused_with_its_line(fields: dict[str, Any]) -> None:
    try:
        replies = of(line(attempt=7), line(**fields))
    except UserError as error:
        assert str(error).startswith("replies.jsonl:2: ")
    else:
        assert said(replies, request(attempt=7)) == "one"


def test_the_runs_seed_and_the_rows_name_are_no_part_of_the_match() -> None:
    replies = of(line(sampling={"seed": 1, "temperature": 1.0}))
    assert said(replies, request(row_id="another", seed=2, temperature=0.5)) == "one"


def test_another_ordinal_attempt_or_prompt_is_not_recorded() -> None:
    replies = of(line(ordinal=1, attempt=1))
    assert said(replies, request(1, 1)) == "one"
    for asked in (request(0, 1), request(1, 0), Request(row_id="r", prompt=Prompt(text="x"), sampling={}, ordinal=1, attempt=1)):
        assert said(replies, asked).startswith("not_recorded: replies.jsonl has no reply to this prompt at ordinal")
        assert asked not in replies


def test_of_several_replies_the_one_sampled_most_like_it_is_taken_then_the_first() -> None:
    replies = of(
        line(reply="hot", sampling={"temperature": 1.0, "seed": 5}), line(reply="cold", sampling={"temperature": 0.0, "seed": 5})
    )
    assert said(replies, request(temperature=0.0, seed=9)) == "cold"
    assert said(replies, request(temperature=0.5, seed=5)) == "hot"


def test_a_live_teachers_reply_must_be_of_the_same_model_and_sampled_the_same() -> None:
    sampling = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 64, "seed": 5}
    replies = of(line(sampling=sampling, model="m"))
    found = replies.find_same(request(**sampling), model="m", weights_sha="")
    assert found is not None and found.text == "one"
    assert replies.find_same(request(**sampling), model="n", weights_sha="") is None
    for name in SAMPLING:
        assert replies.find_same(request(**sampling | {name: 0.25}), model="m", weights_sha="") is None
        unknown = of(line(sampling=sampling | {name: None}, model="m"))
        assert unknown.find_same(request(**sampling), model="m", weights_sha="") is None
    served = of(line(sampling=sampling, model="a/path", weights_sha="5ha"))
    assert served.find_same(request(**sampling), model="another/path", weights_sha="5ha") is not None
    assert served.find_same(request(**sampling), model="a/path", weights_sha="0ther") is None


def test_a_file_says_of_whom_it_is_by_its_lines_where_it_has_no_header() -> None:
    replies = of(line(model="b"), line(attempt=1, model="a"), line(attempt=2))
    assert replies.about.model == "a, b" and str(replies.about) == "recorded replies of a, b, replies.jsonl"
    assert str(of(line()).about) == "recorded replies of an unnamed model, replies.jsonl"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (line(reply=None), "reply: required, but missing; give a file as `llm2llm export RUN --replies FILE` writes it"),
        (line(prompt=None), "prompt: required, but missing"),
        (line(prompt="Write one."), "prompt: expected an object, found 'Write one.'"),
        (line(prompt={}), "prompt: expected either messages or text, found {}"),
        (line(prompt={"text": "a", **PROMPT}), "prompt: expected either messages or text"),
        (line(prompt={"messages": []}), "prompt: expected either messages or text, found {'messages': []}"),
        (line(prompt={"messages": [{"role": "robot", "content": ""}]}), "prompt: messages: expected objects of a role (system,"),
        (line(prompt={"text": "a", "stop": [1]}), "prompt: stop: expected a list of texts, found [1]"),
        (line(prompt={"text": "\ud800"}), "prompt: holds half of a surrogate pair"),
        (line(ordinal=-1), "ordinal: expected a whole number from 0, found -1"),
        (line(attempt=True), "attempt: expected a whole number from 0, found True"),
        (line(sampling={"seed": 1.5}), "sampling: seed: expected a number or null, found 1.5"),
        (line(sampling={"top_k": 1}), "sampling: 'top_k': unknown field; known here: max_tokens, seed, temperature, top_p"),
        (line(finish_reason="eos"), "finish_reason: write stop or length, found 'eos'"),
        (line(finish_reason="stop", error="content_filter: x"), "finish_reason: write error beside an error, found 'stop'"),
        (line(answer="one"), "'answer': unknown field; known here: attempt, completion_tokens"),
        (line(llm2llm_replies=1), "'llm2llm_replies': unknown field"),
        (line(reply="two"), "reply: another one than in line 1 to the same prompt, ordinal, attempt, sampling and model"),
    ],
)
def test_a_wrong_line_is_told_with_line_field_value_and_remedy(record: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        of(line(), record)
    assert str(told.value).startswith("replies.jsonl:2: ") and message in str(told.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "replies.jsonl: no replies in it; give a file as"),
        (b'{"llm2llm_replies": 1}', "replies.jsonl: no replies in it"),
        (b'{"llm2llm_replies": 2}', "replies.jsonl:1: llm2llm_replies: expected 1, found 2"),
        (b'{"llm2llm_replies": 1, "model": 7}', "replies.jsonl:1: model: expected text, found 7"),
        (b"\n\n[]", "replies.jsonl:3: expected an object, found []"),
        (b"{", "replies.jsonl:1: not valid JSON"),
        (b"\xff\xfe", "replies.jsonl:1: not UTF-8 text"),
        (gzip.compress(b"{}", mtime=0)[:-9], "replies.jsonl: not whole gzip data"),
    ],
)
def test_a_file_that_is_none_is_told(data: bytes, message: str) -> None:
    with pytest.raises(UserError) as told:
        RecordedReplies("replies.jsonl", data)
    assert str(told.value).startswith(message)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read \(No such file or directory\); give a file as"):
        read_recorded(str(tmp_path / "none.jsonl"))


def test_a_prompt_as_a_request_holds_it_is_one_too() -> None:
    for prompt in (ASKED, Prompt(text="a", stop=("b",))):
        assert prompt_sha_of(json.loads(json.dumps(asdict(prompt)))) == prompt_sha_of(written_prompt(prompt))


def test_the_same_line_twice_is_one_reply() -> None:
    assert of(line(), line()).about.replies == 1
