"""What the body of an OpenAI-compatible answer means, as a pure function: services differ in what they leave out.

Keeps: an answer that holds no usable text becomes a Reply with an error that says why; text that is no answer at all (a
proxy's HTML page, half a JSON document) becomes None, and may be asked for again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.types import Reply

_CUT = frozenset({"length", "max_tokens"})
_CHARACTERS_PER_TOKEN = 4
"""English, roughly; used only where a service does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    reply: Reply
    usage_estimated: bool
    """The service did not say how many tokens it used: the reply's counts are guesses from its length."""


def estimate_tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def read_reply(body: str, *, asked: str, model: str) -> Reading | None:
    """Read the answer of chat/completions or completions. `asked` is the prompt, `model` the name it was sent to."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        return None
    choice = answer["choices"][0] if answer["choices"] else None
    if choice is not None and not isinstance(choice, dict):
        return None
    content, thoughts = _content(choice or {})
    text, reasoning = split_reasoning(content or "", thoughts)
    finish = str((choice or {}).get("finish_reason") or "stop")
    error = _error(choice, content, finish, bool(reasoning))
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    prompt_tokens, completion_tokens = (_count(usage, key) for key in ("prompt_tokens", "completion_tokens"))
    named = answer.get("model")
    reply = Reply(
        text="" if error else text,
        finish_reason="error" if error else "length" if finish in _CUT else "stop",
        prompt_tokens=estimate_tokens(asked) if prompt_tokens is None else prompt_tokens,
        completion_tokens=estimate_tokens(text + reasoning) if completion_tokens is None else completion_tokens,
        model=named if isinstance(named, str) and named else model,
        reasoning=reasoning,
        error=error,
    )
    return Reading(reply=reply, usage_estimated=prompt_tokens is None or completion_tokens is None)


def _error(choice: dict[str, Any] | None, content: str | None, finish: str, thought: bool) -> str:
    if choice is None:
        return "no_choices"
    if finish == "content_filter":
        return "content_filter"
    if content is None:
        return f"no_content: {'only reasoning, ' if thought else ''}finish_reason {finish}"
    return ""


def _content(choice: dict[str, Any]) -> tuple[str | None, str | None]:
    """(text, reasoning kept apart by the service)."""
    message = choice.get("message")
    if not isinstance(message, dict):
        text = choice.get("text")
        return (text if isinstance(text, str) else None), None
    thoughts = [message[key] for key in ("reasoning_content", "reasoning") if isinstance(message.get(key), str)]
    content = message.get("content")
    if isinstance(content, list):  # parts, as some services write them; those without text are thoughts or images
        parts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        content = "".join(parts) if parts else None
    return (content if isinstance(content, str) else None), (thoughts[0] if thoughts else None)


def _count(usage: Any, key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
