"""What the body of an OpenAI-compatible answer means, as a pure function: services differ in what they leave out.

Keeps: only an answer that its service calls finished is a reply's text. One that holds no usable text is a Reply with an error
that says why; one that broke off, an error sent as an answer, or text that is no answer at all (a proxy's HTML page, half a
JSON document) is a `Failure`, which may be asked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.asking.openai_failure import Failure, said_in
from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.types import Reply

# Words of OpenAI, vLLM, TGI, Anthropic, Mistral, Gemini and Cohere, in small letters.
_FINISHED = frozenset({"", "stop", "eos", "eos_token", "end_turn", "end_of_turn", "stop_sequence", "complete", "completed"})
"""Services that say nothing of the finish have finished."""
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens", "model_context_window_exceeded"})
_WITHHELD = frozenset(
    {"content_filter", "safety", "refusal", "recitation", "blocklist", "prohibited_content", "spii", "error_toxic"}
)
_NO_TEXT = frozenset({"tool_calls", "tool_use", "function_call"})
"""The model called a tool that nobody offered: asking again with the same seed would not change it."""
_CHARACTERS_PER_TOKEN = 4
"""English, roughly; used only where a service does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    reply: Reply
    usage_estimated: bool
    """The service did not say how many tokens it used: the reply's counts are guesses from its length."""


def estimate_tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def read_reply(body: str, *, asked: str, model: str) -> Reading | Failure:
    """Read the answer of chat/completions or completions. `asked` is the prompt, `model` the name it was sent to."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if isinstance(answer, dict) and answer.get("error") and not choices:
        return _error_as_answer(answer)
    if not isinstance(answer, dict) or not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices[:1]):
        return Failure(200, f"not an answer: {body.strip()[:2000] or 'nothing in it'}")
    choice = choices[0] if choices else None
    finish = str((choice or {}).get("finish_reason") or "").lower()
    if finish not in _FINISHED | _CUT | _WITHHELD | _NO_TEXT:
        return Failure(200, _broken_off(finish, choice or {}))
    content, thoughts = _content(choice or {})
    text, reasoning = split_reasoning(content or "", thoughts)
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


def _error_as_answer(answer: Mapping[str, Any]) -> Failure:
    """Gateways that began to answer before their upstream failed can no longer change the status: it stands in the body."""
    reason, code = said_in(answer)
    status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else 200
    return Failure(status, f"an error instead of an answer{f' ({code})' if code else ''}: {reason}", code=code)


def _broken_off(finish: str, choice: Mapping[str, Any]) -> str:
    reason = f": {said_in(choice['error'])[0]}" if choice.get("error") else ""
    return f"the service broke off (finish_reason {finish}){reason}"


def _error(choice: dict[str, Any] | None, content: str | None, finish: str, thought: bool) -> str:
    if choice is None:
        return "no_choices: the list of choices is empty"
    if finish in _WITHHELD:
        return f"content_filter: finish_reason {finish}"
    if finish in _NO_TEXT:
        return f"no_content: a tool was called, finish_reason {finish}"
    if content is None:
        return f"no_content: {'only reasoning, ' if thought else ''}finish_reason {finish or 'not said'}"
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
