"""Text to token ids: the one tokenisation of training and evaluation. Light: no torch, so that data actors start fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jinja2 import TemplateError

from llm2llm_ray.types import Prompt


class Tokenizer(Protocol):
    eos_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids that stand before a student's answer, in training and in evaluation alike."""
    ids = list(tokenizer(text, add_special_tokens=True)["input_ids"])
    # Some tokenizers close every text; an answer could then never follow.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


class ChatRefused(ValueError):
    """A model's chat template does not take these messages (Gemma 2's refuses a system message)."""


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """What an engine is sent for a prompt. Raises ChatRefused."""
    if not prompt.messages:
        return encode_prompt(tokenizer, prompt.text)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:  # ValueError: a tokenizer without a template
        raise ChatRefused(" ".join(str(error).split())[:200]) from error
    # The template writes the special tokens itself: adding them again would double BOS.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True, slots=True)
class Row:
    ids: tuple[int, ...]
    """Prompt, completion and end-of-text token."""
    n_prompt: int
    number: int = 0
    """Its place among the pairs that were encoded."""
    weight: float = 1.0
    """Of each of its completion tokens in the loss."""

    @property
    def n_completion(self) -> int:
        return len(self.ids) - self.n_prompt


def encode(tokenizer: Tokenizer, prompt: str, completion: str) -> tuple[list[int], int]:
    """All ids of one training row and how many of them are the prompt."""
    before = encode_prompt(tokenizer, prompt)
    return [*before, *completion_ids(tokenizer, completion)], len(before)


def completion_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """What a student is trained to say behind a prompt: the completion's tokens and the end of text."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token: the student would never learn to stop")
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode_rows(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_length: int) -> tuple[list[Row], int]:
    """The (prompt, completion) pairs that fit into `max_length` tokens, in their order, and how many do not."""
    encoded = (encode(tokenizer, *pair) for pair in pairs)
    rows = [Row(tuple(ids), n_prompt, number) for number, (ids, n_prompt) in enumerate(encoded)]
    kept = [row for row in rows if len(row.ids) <= max_length]
    return kept, len(rows) - len(kept)
