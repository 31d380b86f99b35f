"""What a run may ask of its teacher in all: calls, tokens, money.

Keeps: calls are never exceeded, because those in flight count. Tokens and money are known only when a reply is there,
so they can be exceeded by what was in flight when the limit was reached. One object per run: it lives where all asking
passes. A call is a reply: the client's retries of one request are not counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm2llm_ray.config import BudgetConfig
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.types import Reply


class Budget:
    """`reserve` before a call, then `spend` its reply, or `release` it if it never got one."""

    def __init__(self, config: BudgetConfig) -> None:
        self._config = config
        self._calls = 0
        self._in_flight = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def reserve(self) -> None:
        """Count a call that is about to be made; raises BudgetExhausted if no more may be."""
        spent = {"calls": self._calls + self._in_flight, "tokens": self.tokens, "money": self.money}
        for name, limit in self._limits().items():
            if limit is not None and spent[name] >= limit:
                raise BudgetExhausted(f"teacher.budget.{name}: {limit} is used up ({self.describe()})")
        self._in_flight += 1

    def spend(self, reply: Reply) -> None:
        """Count the reply to a reserved call. An error reply is a call too: it was made."""
        self.release()
        self._count(reply)

    def release(self) -> None:
        """Take back a reservation whose call ended without a reply (it was cancelled)."""
        assert self._in_flight > 0, "spend or release without reserve"
        self._in_flight -= 1

    def replay(self, replies: Iterable[Reply]) -> None:
        """Count replies that are already stored: a resumed run goes on from what it has spent."""
        for reply in replies:
            self._count(reply)

    def remaining(self) -> dict[str, float | None]:
        """What is left of calls, tokens and money; None where there is no limit. Never below 0."""
        limits = self._limits()
        spent = {"calls": self._calls + self._in_flight, "tokens": self.tokens, "money": self.money}
        return {name: None if limit is None else max(0, limit - spent[name]) for name, limit in limits.items()}

    @property
    def calls(self) -> int:
        return self._calls

    @property
    def tokens(self) -> int:
        return self._prompt_tokens + self._completion_tokens

    @property
    def money(self) -> float:
        """In the unit of the configured prices; from whole token counts, so the order of replies changes nothing."""
        prompt = self._prompt_tokens * self._config.price_per_million_prompt_tokens
        completion = self._completion_tokens * self._config.price_per_million_completion_tokens
        return (prompt + completion) / 1_000_000

    def describe(self) -> str:
        return f"{self._calls} calls, {self.tokens} tokens, {self.money:.4g} money"

    def _limits(self) -> dict[str, float | None]:
        return {"calls": self._config.calls, "tokens": self._config.tokens, "money": self._config.money}

    def _count(self, reply: Reply) -> None:
        self._calls += 1
        self._prompt_tokens += reply.prompt_tokens
        self._completion_tokens += reply.completion_tokens
