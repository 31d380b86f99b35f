"""`teacher`: who writes new examples, where it is reached, and what it may cost."""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from llm2llm_ray.config.engine import EngineConfig
from llm2llm_ray.config.secrets import names_a_secret, secrets_in
from llm2llm_ray.config.section import Section


class BudgetConfig(Section):
    """What a run may ask of the teacher; a reached limit ends the run cleanly. None: no limit."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    price_per_million_prompt_tokens: float = Field(default=0.0, ge=0)
    price_per_million_completion_tokens: float = Field(default=0.0, ge=0)


_OURS = {
    "model": "set teacher.model",
    "temperature": "set teacher.temperature",
    "top_p": "set teacher.top_p",
    "max_tokens": "set teacher.max_tokens",
    "messages": "the task writes it",
    "prompt": "the task writes it",
    "stop": "the task sets it",
    "seed": "each request has its own, from run.seed",
    "stream": "replies are read whole",
    "n": "one reply is read per request",
    "best_of": "one reply is read per request",
    "echo": "the prompt would be read as the reply",
}


class RequestConfig(Section):
    """What a service's requests lack and hold beside what we send: services differ in the fields that they refuse or want."""

    drop: tuple[Literal["temperature", "top_p", "max_tokens", "seed", "stop"], ...] = ()
    """Fields left out; the service's own default then holds."""
    add: dict[str, Any] = Field(default_factory=dict)
    """Fields added to the body as they are. Stored with the run, so never a key."""

    @field_validator("add")
    @classmethod
    def _no_secrets_and_not_ours(cls, add: dict[str, Any]) -> dict[str, Any]:
        for name in add:
            if name in _OURS:
                raise ValueError(f"{name} is not added here: {_OURS[name]}")
        for name in secrets_in(add):
            raise ValueError(
                f"{name} looks like a key, and this is stored with the run; put the key into the environment variable named in "
                "teacher.api_key_env"
            )
        try:
            json.dumps(add, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}; only what JSON can hold can be sent (quote dates)") from None
        return add


class TeacherConfig(Section):
    """Who writes new examples: a vLLM deployment of ours, an OpenAI-compatible service, recorded replies, a script, or a file of
    rows."""

    kind: Literal["serve", "openai", "recorded", "scripted", "rows"] = "serve"
    model: str
    """serve: like student.model. openai: the service's name for it. recorded: a JSONL file of replies to these very prompts
    (docs/recorded-replies.md). scripted: a JSONL file of replies to whatever is asked. rows: a JSONL file of new
    rows for each labelled one, {seed: its id, input, output}; nobody is asked (for comparisons)."""
    replies: str | None = None
    """serve, openai: a file as for `recorded`. The teacher is asked only for what it has not said there already, sampled in the
    same way; what comes from the file costs no budget."""
    style: Literal["chat", "completion"] = "chat"
    """`completion` lets a base or very small model continue a list of real examples."""
    system_message: Literal["keep", "merge"] = "keep"
    """merge: what the task says as `system` is put before the first user message, for models that know no such role."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    engine: EngineConfig = EngineConfig()
    """recorded: replicas, max_replicas and max_num_seqs (replies that a replica gives at once) count, nothing else."""
    in_flight: int | None = Field(default=None, ge=1)
    """Teacher requests open at once; None: 64 on CPU and for services, 256 on GPU."""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself is never stored."""
    ca_file: str | None = None
    """openai only: PEM file of the authorities that the service's certificate is checked against, instead of the machine's
    own; a path that every node sees."""
    request: RequestConfig = RequestConfig()
    """openai only."""
    timeout_s: float = Field(default=120, gt=0)
    max_retries: int = Field(default=8, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    budget: BudgetConfig = BudgetConfig()
    latency_s: float = Field(default=0.0, ge=0)
    """recorded, scripted: service time of each reply, for trying out overlap and replicas."""

    @property
    def served(self) -> bool:
        """Whether it is a Ray Serve application of the run."""
        return self.kind in ("serve", "recorded")

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("teacher.kind openai needs teacher.base_url")
        if self.replies is not None and self.kind not in ("serve", "openai"):
            raise ValueError(f"teacher.replies is for a teacher that is asked for the rest (serve, openai), not for {self.kind}")
        _check_address(self.base_url)
        if self.budget.money and not (
            self.budget.price_per_million_prompt_tokens or self.budget.price_per_million_completion_tokens
        ):
            raise ValueError("teacher.budget.money needs the prices per million tokens beside it")
        return self


def _check_address(url: str | None) -> None:
    """Raises ValueError for an address that no client could ask, or that holds what must not be stored. Never quotes it."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        secret = "@" in parts.netloc or any(names_a_secret(name) for name, _ in parse_qsl(parts.query))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0  # a wrong port raises
    except ValueError:
        secret, usable = False, False
    if secret:
        raise ValueError(
            "teacher.base_url must not hold a user, password or key: it is stored with the run; put the key into the environment "
            "variable named in teacher.api_key_env"
        )
    if not usable:
        raise ValueError("teacher.base_url is no address: write http://host:port/v1 or https://host/v1")
