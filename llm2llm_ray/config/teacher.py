"""`teacher`: who writes new examples, where it is reached, and what it may cost."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llm2llm_ray.config.section import Section
from llm2llm_ray.config.student import EngineConfig


class BudgetConfig(Section):
    """What a run may ask of the teacher; a reached limit ends the run cleanly. None: no limit."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    price_per_million_prompt_tokens: float = Field(default=0.0, ge=0)
    price_per_million_completion_tokens: float = Field(default=0.0, ge=0)


class TeacherConfig(Section):
    """Who writes new examples: a vLLM deployment of ours, an OpenAI-compatible service, or a script."""

    kind: Literal["serve", "openai", "scripted"] = "serve"
    model: str
    """serve: like student.model. openai: the service's name for it. scripted: a JSONL file of replies."""
    style: Literal["chat", "completion"] = "chat"
    """`completion` lets a base or very small model continue a list of real examples."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    engine: EngineConfig = EngineConfig()
    in_flight: int | None = Field(default=None, ge=1)
    """Teacher requests open at once; None: 64 on CPU and for services, 256 on GPU."""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself is never stored."""
    timeout_s: float = Field(default=120, gt=0)
    max_retries: int = Field(default=8, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    budget: BudgetConfig = BudgetConfig()
    latency_s: float = Field(default=0.0, ge=0)
    """scripted only: service time of each reply, for trying out overlap."""

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("teacher.kind openai needs teacher.base_url")
        if self.base_url and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                "teacher.base_url must not hold a user or password: it is stored with the run; put the key into the environment "
                "variable named in teacher.api_key_env"
            )
        if self.budget.money and not (
            self.budget.price_per_million_prompt_tokens or self.budget.price_per_million_completion_tokens
        ):
            raise ValueError("teacher.budget.money needs the prices per million tokens beside it")
        return self
