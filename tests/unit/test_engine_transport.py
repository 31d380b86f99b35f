"""What a request to an engine is sent again for, and what ends it. A handle that fails on purpose stands in for Serve's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from llm2llm_ray.asking.scores import Score, score_request, scores_of
from llm2llm_ray.runtime.models.hand_off import WrongWeights
from llm2llm_ray.runtime.streaming import transports
from llm2llm_ray.runtime.streaming.transports import EngineRoute, EngineTransport
from llm2llm_ray.types import Prompt, Reply

_ANSWER = {"text": "yes", "finish_reason": "stop", "weights_sha": "5ha"}


class Handle:
    """Fails or answers as told, call by call, and then answers well."""

    def __init__(self, *failures: BaseException | dict[str, Any]) -> None:
        self._failures = list(failures)
        self.ids: list[str] = []
        self.ask = self

    async def remote(self, token_ids: list[int], sampling: dict[str, Any], request_id: str, weights: Any) -> dict[str, Any]:
        self.ids.append(request_id)
        if self._failures:
            failure = self._failures.pop(0)
            if isinstance(failure, dict):
                return failure
            raise failure
        return _ANSWER


class Slow(Handle):
    async def remote(self, *call: Any) -> dict[str, Any]:
        await asyncio.sleep(60)
        return _ANSWER


def _transport(handle: Handle) -> tuple[EngineTransport, list[bool]]:
    retried: list[bool] = []
    transport = EngineTransport.__new__(EngineTransport)  # its own start wants a cluster and a tokenizer
    transport._handle, transport._on_retry = handle, lambda: retried.append(True)
    transport._route = EngineRoute(app="app", tokenizer="t", max_model_len=64, model="m", weights=("folder", "5ha"))
    return transport, retried


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "wait_random_exponential", lambda **settings: lambda state: 0)


def test_what_the_world_breaks_is_asked_again_under_another_id() -> None:
    # A replica that is being stopped cancels its own task, and Serve hands that on as the answer.
    failures = (asyncio.CancelledError(), ActorUnavailableError("gone", None), BackPressureError(1, 1), TimeoutError())
    handle = Handle(*failures)
    transport, retried = _transport(handle)
    assert asyncio.run(transport._send([1], {})) == _ANSWER
    assert len(set(handle.ids)) == len(failures) + 1 == len(retried) + 1


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_an_answer_that_the_engine_broke_off_is_none(finish: str) -> None:
    handle = Handle({"text": "ye", "finish_reason": finish})
    transport, retried = _transport(handle)
    assert asyncio.run(transport._send([1], {})) == _ANSWER
    assert len(set(handle.ids)) == 2 and len(retried) == 1


def test_an_answer_that_was_cut_or_refused_is_one() -> None:
    cut, refused = {"text": "ye", "finish_reason": "length"}, {"error": "refused: no", "replica": "r"}
    for answer in (cut | {"weights_sha": "5ha"}, refused | {"weights_sha": "5ha"}):
        transport, retried = _transport(Handle(answer))
        assert asyncio.run(transport._send([1], {})) == answer and not retried


def test_a_cancelled_caller_is_not_asked_for_again() -> None:
    transport, retried = _transport(Slow())

    async def cancelled() -> None:
        asking = asyncio.create_task(transport._send([1], {}))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancelled())
    assert not retried


@pytest.mark.parametrize("sha", ["0ther", ""])
def test_an_answer_of_other_weights_is_no_answer(sha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_ANSWER, "weights_sha", sha)
    transport, retried = _transport(Handle())
    with pytest.raises(WrongWeights, match="app: asked for an answer of the weights 5ha, got one of"):
        asyncio.run(transport._send([1], {}))
    assert not retried


def test_what_the_request_breaks_is_told() -> None:
    transport, retried = _transport(Handle(KeyError("no such thing")))
    with pytest.raises(KeyError):
        asyncio.run(transport._send([1], {}))
    assert not retried


class Letters:
    """A token is a letter's number; the end of text is 0."""

    eos_token_id = 0

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def scored(handle: Handle, completions: list[str]) -> Reply:
    transport, _ = _transport(handle)
    transport._tokenizer = Letters()
    return asyncio.run(transport.ask(score_request("s-1", Prompt(text="ab"), completions)))


def test_a_score_asks_for_the_completions_as_they_are_trained_on() -> None:
    told = {"log_probs": [-1.5, -2.0], "tokens": [2, 3], "prompt_tokens": 2, "weights_sha": "5ha", "replica": "r"}
    handle = Handle(told)
    handle.score = handle  # type: ignore[attr-defined]
    asked: list[tuple[Any, ...]] = []

    async def remote(*call: Any) -> dict[str, Any]:
        asked.append(call)
        return told

    handle.remote = remote  # type: ignore[method-assign]
    reply = scored(handle, ["c", "de"])
    assert asked == [([97, 98], [[99, 0], [100, 101, 0]], ("folder", "5ha"))]
    assert scores_of(reply) == [Score(log_prob=-1.5, tokens=2), Score(log_prob=-2.0, tokens=3)]
    assert (reply.error, reply.prompt_tokens, reply.completion_tokens, reply.weights_sha) == ("", 7, 0, "5ha")


def test_a_score_that_leaves_the_engine_no_room_is_not_asked_for() -> None:
    handle = Handle()
    reply = scored(handle, ["c" * 61])  # 2 + 61 and the end of text are all 64
    assert reply.error == "prompt_too_long: 64 tokens with the completion, 63 fit" and handle.ids == []
