"""How a request reaches a model: one verb, `ask(request) -> Reply`, for engines of ours, recorded replies, services and scripts.

Transports are built inside the process that uses them, from a frozen spec; they retry what the world breaks (a replica
that died, an overloaded queue) and turn what the request itself breaks into a Reply with an `error`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from llm2llm_ray.asking.answer_length import answer_room
from llm2llm_ray.asking.recorded import place_of
from llm2llm_ray.asking.request import Request
from llm2llm_ray.asking.scores import SCORE, written
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.runtime.models.hand_off import WrongWeights
from llm2llm_ray.runtime.models.tokens import ChatRefused, completion_ids, prompt_ids
from llm2llm_ray.types import Reply

RECOVERY_S = 900.0
"""How long a request waits for a replica to come back: longer than an engine takes to start."""


_BROKEN_OFF = ("abort", "error")
"""vLLM's words for a request that it did not finish: what it wrote until then is no answer."""


class Transport(Protocol):
    async def ask(self, request: Request) -> Reply: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRoute:
    """A vLLM deployment of this run. `weights` (path, sha) go with every request, and the sha comes back with every reply."""

    app: str
    tokenizer: str
    max_model_len: int
    model: str
    weights: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepliesRoute:
    """A deployment of this run that serves a file of a teacher's recorded replies: `weights` are its path and sha."""

    app: str
    weights: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoute:
    """An OpenAI-compatible service, or a scripted teacher, in this process."""

    teacher: TeacherConfig
    sha: str = ""
    """Of the script's content."""
    log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoute:
    """Nobody is asked: the role has its rows (`teacher.kind: rows`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRoute:
    """Recorded student answers, for tests of the loop: `generation` is the iteration."""

    path: str
    sha: str
    """Of its content."""
    generation: int


Route = EngineRoute | RepliesRoute | ServiceRoute | RecordedRoute | NoRoute


def open_route(route: Route, on_retry: Callable[[], None] = lambda: None) -> Transport:
    """`on_retry` is called for each time that a request to an engine is sent again."""
    if isinstance(route, EngineRoute):
        return EngineTransport(route, on_retry)
    if isinstance(route, RepliesRoute):
        return RepliesTransport(route, on_retry)
    if isinstance(route, RecordedRoute):
        return RecordedTransport(route)
    if isinstance(route, NoRoute):
        return NoTransport()
    return ServiceTransport(route)


def _worth_retrying(error: BaseException) -> bool:
    cause = error.cause if isinstance(error, RayTaskError) else error
    transient = (ActorDiedError, ActorUnavailableError, BackPressureError, DeploymentUnavailableError, TimeoutError)
    # vLLM's own names: its exceptions are not importable where only the handle is used.
    # gRPC's: a connection that broke is not always told as "unavailable", which Serve translates.
    names = {type(cause).__name__, type(error).__name__}
    return isinstance(error, transient) or bool(
        names & {"EngineDeadError", "ReplicaUnavailableError", "QueueOverflowError", "ActorDiedError", "AioRpcError"}
    )


class _ByHandle:
    """One application of this run, asked until it answers, with an answer of the weights that were meant."""

    def __init__(self, route: EngineRoute | RepliesRoute, on_retry: Callable[[], None] = lambda: None) -> None:
        self._on_retry = on_retry
        self._route = route
        self._handle = serve.get_app_handle(route.app)

    async def _send(self, asked: Sequence[Any], sampling: dict[str, Any]) -> dict[str, Any]:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_worth_retrying),
            stop=stop_after_delay(RECOVERY_S),
            wait=wait_random_exponential(multiplier=0.5, max=15),
            reraise=True,
            before_sleep=lambda state: self._on_retry(),
        )
        async for attempt in retrying:
            with attempt:
                return await self._once(asked, sampling)
        raise AssertionError("unreachable: tenacity reraises")

    async def _once(self, asked: Sequence[Any], sampling: dict[str, Any]) -> dict[str, Any]:
        request_id = uuid.uuid4().hex  # the engine refuses an id twice; identity lives in the reply key
        try:
            async with asyncio.timeout(RECOVERY_S):
                if SCORE in sampling:
                    call = self._handle.score.remote(asked, sampling[SCORE], self._route.weights)
                else:
                    call = self._handle.ask.remote(asked, sampling, request_id, self._route.weights)
                answer: dict[str, Any] = await call
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task's: that of the replica's, which is being stopped, and Serve hands it on as the answer.
            raise ActorUnavailableError("the replica was stopped while it answered", None) from error
        if answer.get("finish_reason") in _BROKEN_OFF:
            raise ActorUnavailableError(f"the engine broke off (finish_reason {answer['finish_reason']})", None)
        meant, answered = self._route.weights[1], answer["weights_sha"]
        if answered != meant:
            raise WrongWeights(f"{self._route.app}: asked for an answer of the weights {meant}, got one of {answered or 'none'}")
        return answer


def _reply(answer: Mapping[str, Any], model: str) -> Reply:
    text, reasoning = split_reasoning(answer.get("text", ""))
    return Reply(
        text=text,
        finish_reason="error" if "error" in answer else answer["finish_reason"],
        prompt_tokens=answer.get("prompt_tokens", 0),
        completion_tokens=answer.get("completion_tokens", 0),
        model=model,
        weights_sha=answer["weights_sha"],
        replica=answer["replica"],
        reasoning=reasoning,
        error=answer.get("error", ""),
    )


class EngineTransport(_ByHandle):
    """Token ids by Serve handle, without an HTTP hop; the tokenisation is training's."""

    _route: EngineRoute

    def __init__(self, route: EngineRoute, on_retry: Callable[[], None] = lambda: None) -> None:
        from transformers import AutoTokenizer

        super().__init__(route, on_retry)
        self._tokenizer = AutoTokenizer.from_pretrained(route.tokenizer)

    async def ask(self, request: Request) -> Reply:
        try:
            token_ids = prompt_ids(self._tokenizer, request.prompt)
        except ChatRefused as refused:
            return self._unasked(f"chat_template: {refused}")
        if SCORE in request.sampling:
            return await self._scored(token_ids, request.sampling[SCORE])
        sampling, context = dict(request.sampling), self._route.max_model_len
        room = answer_room(len(token_ids), max_tokens=sampling["max_tokens"], context=context)
        if room is None:
            return self._unasked(f"prompt_too_long: {len(token_ids)} tokens leave no room for an answer in {context}")
        sampling["max_tokens"] = room
        sampling["stop"] = list(request.prompt.stop) or None
        return _reply(await self._send(token_ids, sampling), self._route.model)

    async def _scored(self, token_ids: list[int], completions: Sequence[str]) -> Reply:
        """The completions as they are trained on, with the end of text."""
        context = self._route.max_model_len
        behind = [completion_ids(self._tokenizer, text) for text in completions]
        longest = len(token_ids) + max(map(len, behind))
        if longest >= context:  # the engine must be left room for a token
            return self._unasked(f"prompt_too_long: {longest} tokens with the completion, {context - 1} fit")
        answer = await self._send(token_ids, {SCORE: behind})
        return Reply(
            text="" if "error" in answer else written(answer["log_probs"], answer["tokens"]),
            finish_reason="error" if "error" in answer else "stop",
            prompt_tokens=answer.get("prompt_tokens", 0) + sum(answer.get("tokens", ())),
            model=self._route.model,
            weights_sha=answer["weights_sha"],
            replica=answer["replica"],
            error=answer.get("error", ""),
        )

    def _unasked(self, error: str) -> Reply:
        return Reply(text="", finish_reason="error", model=self._route.model, error=error)


class RepliesTransport(_ByHandle):
    """What is asked goes by its place in the file: there is no tokenizer. What is missing there is an answer, not sent again."""

    async def ask(self, request: Request) -> Reply:
        answer = await self._send(place_of(request), dict(request.asked_with))
        return _reply(answer, answer["model"])


class ServiceTransport:
    """A client of teacher/: an OpenAI-compatible service or a script."""

    def __init__(self, route: ServiceRoute) -> None:
        from llm2llm_ray.asking.openai_service import OpenAITeacher
        from llm2llm_ray.asking.scripted import ScriptedTeacher, check_unchanged

        config = route.teacher
        self._client: OpenAITeacher | ScriptedTeacher
        if config.kind == "openai":
            self._client = OpenAITeacher(config)
        else:
            check_unchanged(config.model, route.sha)
            self._client = ScriptedTeacher(config.model, latency_s=config.latency_s, log_path=route.log)

    async def ask(self, request: Request) -> Reply:
        return await self._client.ask(request.prompt, **request.asked_with)


class NoTransport:
    async def ask(self, request: Request) -> Reply:
        raise AssertionError("a role that has its rows asks nobody")


class RecordedTransport:
    def __init__(self, route: RecordedRoute) -> None:
        from llm2llm_ray.asking.scripted import ScriptedStudent, check_unchanged

        check_unchanged(route.path, route.sha)
        self._student = ScriptedStudent(route.path)
        self._generation = route.generation

    async def ask(self, request: Request) -> Reply:
        text = self._student.answer(request.prompt.text, self._generation)
        return Reply(text=text, finish_reason="stop", model="recorded", weights_sha=str(self._generation))
