"""Who answers a request, and how: the one description that a reply's key and a stage's key are both made from.

Invariant: where the same request may come to another reply, the description is another one. Where an answer is computed, how
fast, and what is done when it fails is no part of it. A field of a config section counts unless it is named here as one that
does not, so a new one is in both keys until somebody has thought about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import EngineConfig, TeacherConfig
from llm2llm_ray.fingerprint import fingerprint

ANSWER_VERSION = 1
"""Raised by hand when the code comes to another reply to the same request: what we set in engines, transports, how a reply is
read. Stored replies are not used any more then."""
_SIZE_OF_ENGINE = {"replicas", "max_replicas", "max_num_seqs", "kv_cache_gib", "gpu_memory_utilization", "tensor_parallel"}
"""How much is computed at once and where: another order of the same sums."""
SAMPLING = {"style", "temperature", "top_p", "max_tokens"}
"""Settings of the teacher's requests for new rows, in place of which an exam has its own."""
_IN_REQUEST = SAMPLING | {"system_message"}
"""What each request itself says, as its prompt or its sampling."""
_SERVICE = {"base_url", "request"}
"""Settings that other kinds of teacher than a service do not read."""
_ACCESS = {
    "kind", "model", "engine", "budget", "in_flight", "api_key_env", "ca_file", "timeout_s", "max_retries", "requests_per_minute",
    "tokens_per_minute", "latency_s", "replies",
}  # fmt: skip
"""What is named apart (kind, model, engine, budget), and how a teacher is reached, which changes no reply. A live teacher's
`replies` are its own, of the same model to the same request; how far a budget reaches with them is for round_inputs.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """Example: Answerer(how="engine", model="0b95…", settings={"max_model_len": 1024, "dtype": "float32", …})"""

    how: Literal["engine", "service", "script", "replies", "rows", "recording"]
    model: str
    """sha of an engine's weights and tokenizer, or of a file's content; a service's name, behind which it may change."""
    settings: Mapping[str, Any]
    """What else changes replies, as JSON."""

    def described(self) -> dict[str, Any]:
        """For the inputs of a stage."""
        return {"version": ANSWER_VERSION, **asdict(self)}

    def reply_key(self, request: Request) -> str:
        """What makes two requests the same request, to be answered once.

        The request's place is part of it: `ordinal` numbers a row's requests over the whole run, and without it the same wrong
        seed would get the same reply in every iteration, which is then a duplicate.
        """
        return fingerprint({"answerer": self.described(), "request": asdict(request)})


def engine(sha: str, config: EngineConfig) -> Answerer:
    """Weights in an engine of ours; `config.dtype` is the type that is computed in, not `auto`."""
    assert config.dtype != "auto", "auto is another type on another machine"
    return Answerer(how="engine", model=sha, settings=config.model_dump(mode="json", exclude=_SIZE_OF_ENGINE))


def recording(sha: str, generation: int) -> Answerer:
    """A file of recorded answers in a student's place, read as those of one iteration."""
    assert sha, "a file without the sha of its content"
    return Answerer(how="recording", model=sha, settings={"generation": generation})


def teacher(config: TeacherConfig, sha: str) -> Answerer:
    """`sha`: of the weights that are served, or of the file's content; of no use for a service."""
    if config.kind == "serve":
        return engine(sha, config.engine)
    if config.kind == "scripted":
        assert sha, "a script without the sha of its content"
        return Answerer(how="script", model=sha, settings={})
    if config.kind == "rows":
        assert sha, "a file of rows without the sha of its content"
        return Answerer(how="rows", model=sha, settings={})
    if config.kind == "recorded":
        assert sha, "a file of replies without the sha of its content"
        return Answerer(how="replies", model=sha, settings={})
    return Answerer(how="service", model=config.model, settings=config.model_dump(mode="json", exclude=_IN_REQUEST | _ACCESS))


def request_settings(config: TeacherConfig) -> dict[str, Any]:
    """Settings of the teacher that its requests are made from, whoever answers."""
    return config.model_dump(mode="json", exclude=_SERVICE | _ACCESS)
