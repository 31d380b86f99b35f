"""The key of a reply: all of who answers, and all of what is asked."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from llm2llm_ray.asking import answerer
from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import EngineConfig, TeacherConfig
from llm2llm_ray.types import Message, Prompt

ENGINE = Answerer(how="engine", model="w1", settings={"dtype": "float32", "max_model_len": 64})
REQUEST = Request(
    row_id="s-1", prompt=Prompt(text="Request: a"), sampling={"temperature": 1.0, "max_tokens": 8}, ordinal=0, attempt=0
)
OTHER_ANSWERER: dict[str, list[Any]] = {
    "how": ["service", "script", "recording"],
    "model": ["w2"],
    "settings": [{}, {"dtype": "bfloat16", "max_model_len": 64}, {"dtype": "float32", "max_model_len": 65}],
}
OTHER_REQUEST: dict[str, list[Any]] = {
    "row_id": ["s-2"],
    "prompt": [
        Prompt(text="Request: b"),
        Prompt(text="Request: a", stop=("\n",)),
        Prompt(messages=(Message(role="user", content="Request: a"),)),
    ],
    "sampling": [{"temperature": 1.0, "max_tokens": 9}, {"temperature": 1.0, "max_tokens": 8, "seed": 1}],
    "ordinal": [1],
    "attempt": [1],
}


def test_every_part_of_an_answerer_and_of_a_request_is_in_a_replys_key() -> None:
    assert OTHER_ANSWERER.keys() == {field.name for field in fields(Answerer)}
    assert OTHER_REQUEST.keys() == {field.name for field in fields(Request)}
    answerers = [replace(ENGINE, **{name: value}) for name, values in OTHER_ANSWERER.items() for value in values]
    requests = [replace(REQUEST, **{name: value}) for name, values in OTHER_REQUEST.items() for value in values]
    keys = [ENGINE.reply_key(REQUEST), *(one.reply_key(REQUEST) for one in answerers), *map(ENGINE.reply_key, requests)]
    assert len(set(keys)) == len(keys) == 1 + 7 + 8


def test_the_order_of_parameters_is_not_in_the_key() -> None:
    other = replace(REQUEST, sampling={"max_tokens": 8, "temperature": 1.0})
    engine = replace(ENGINE, settings={"max_model_len": 64, "dtype": "float32"})
    assert engine.reply_key(other) == ENGINE.reply_key(REQUEST)


def test_code_that_reads_other_replies_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For both keys at once: what is stored under the number before is found by neither."""
    reply, stage = ENGINE.reply_key(REQUEST), ENGINE.described()
    monkeypatch.setattr(answerer, "ANSWER_VERSION", answerer.ANSWER_VERSION + 1)
    assert reply != ENGINE.reply_key(REQUEST) and stage != ENGINE.described()


def test_a_file_without_its_contents_sha_describes_nobody() -> None:
    with pytest.raises(AssertionError):
        answerer.recording("", 0)
    with pytest.raises(AssertionError):
        answerer.teacher(TeacherConfig(kind="scripted", model="replies.jsonl"), "")
    with pytest.raises(AssertionError):
        answerer.engine("w1", EngineConfig())  # dtype auto
