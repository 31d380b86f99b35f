"""What is asked of a model, as data: a request has a prompt, sampling parameters and a place in the run.

The place (row, ordinal, attempt) makes the sampling seed, so asking the same thing again, after a crash or a retry, asks
for the same sample, and asking for another example asks for another one. The key of a stored reply is `answerer.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.types import Message, Prompt, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a student or a teacher.

    Example: Request(row_id="s-17", prompt=Prompt(text="Request: …"), sampling={"temperature": 0.0, "max_tokens": 8})
    """

    row_id: str
    prompt: Prompt
    sampling: Mapping[str, Any]
    """temperature, top_p, max_tokens, seed: names that vLLM and the OpenAI protocol share. choice: texts of which the answer must
    be exactly one; score: texts that are weighed, in place of all others (scores.py). These two only engines of ours know."""
    ordinal: int = 0
    attempt: int = 0

    @property
    def prompt_sha(self) -> str:
        return fingerprint(asdict(self.prompt))

    @property
    def asked_with(self) -> dict[str, Any]:
        """All settings of `Teacher.ask`, those that a role left open too; a service is not held to choices."""
        return {"top_p": 1.0, "seed": 0, **{name: value for name, value in self.sampling.items() if name != "choice"}}


class AskModel(Protocol):
    """Gets a durable reply; raises BudgetExhausted when no more may be asked."""

    async def __call__(self, request: Request) -> Reply: ...


def sampling_seed(run_seed: int, row_id: str, ordinal: int, attempt: int) -> int:
    """31 bits, which every service accepts."""
    digest = hashlib.sha256(f"{run_seed}/{row_id}/{ordinal}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def merged_system(prompt: Prompt) -> Prompt:
    """The same prompt without system messages: their text stands before that of the first user message.

    For models that know no such role (teacher.system_message: merge).
    """
    system = [message.content for message in prompt.messages if message.role == "system"]
    others = [message for message in prompt.messages if message.role != "system"]
    if not system:
        return prompt
    place = next((n for n, message in enumerate(others) if message.role == "user"), None)
    if place is None:
        return replace(prompt, messages=(Message(role="user", content="\n\n".join(system)), *others))
    others[place] = Message(role="user", content="\n\n".join([*system, others[place].content]))
    return replace(prompt, messages=tuple(others))
