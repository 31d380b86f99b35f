"""Others' words as one short line that may be shown and stored: no key in it, nothing that a terminal obeys."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, quote_plus

from llm2llm_ray.terminal_text import shown

_PART = 8
"""Characters of a key that, one after the other, give it away."""
_OTHERS_KEY = re.compile(
    r"\b(?:(?P<scheme>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}|(?:sk|pk|gsk|xai|hf|ghp)[-_][A-Za-z0-9_-]{12,})", re.I
)
_STARRED = re.compile(r"[^\s'\"`:,(]*\*{3,}[^\s'\"`:,.)]*")
_HEAD, _TAIL = 420, 120


def one_line(text: str, key: str) -> str:
    """`text` without the key, shortened in its middle. The key goes first: a cut one would not be found any more."""
    line = shown(" ".join(without_key(text, key).split()))
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} … {line[-_TAIL:]}"


def without_key(text: str, key: str) -> str:
    """`text` with [key] for the key, a part of it, its form in a URL, JSON or HTML, and for what looks like another's key.

    Example: without_key("no sk-ab*****yz here", "sk-abcdefghijklmnopqrstuvwxyz") == "no [key] here"
    """
    forms = {key, quote(key, safe=""), quote_plus(key), html.escape(key), json.dumps(key)[1:-1]}
    for form in sorted(forms, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "[key]", text) if len(form) < _PART else text.replace(form, "[key]")
    text = _without_parts(text, {form[n : n + _PART].lower() for form in forms for n in range(len(form) - _PART + 1)})
    text = _STARRED.sub(lambda found: "[key]" if _masks(found.group(), key) else found.group(), text)
    return _OTHERS_KEY.sub(lambda found: f"{found['scheme']} [key]" if found["scheme"] else "[key]", text)


def _without_parts(text: str, parts: set[str]) -> str:
    """[key] for each run in which any `_PART` characters are some of the key's, in capitals or not."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose small form is two characters: places would not match
        lower = text
    kept, start, at = [], 0, 0
    while at <= len(text) - _PART:
        end = at
        while lower[end : end + _PART] in parts:
            end += 1
        if end > at:
            kept += [text[start:at], "[key]"]
            start = at = end - 1 + _PART
        else:
            at += 1
    return "".join([*kept, text[start:]])


def _masks(word: str, key: str) -> bool:
    """Whether a word with stars in it is the key with its middle starred out, as some services show it."""
    left = [part for part in re.split(r"\*+", word) if part]
    return len("".join(left)) > 2 and all(part in key for part in left)
