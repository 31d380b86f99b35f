"""Why a request to a service got no answer: what the service said, and whether asking again may help.

Services say it in many forms; `said` finds the words in all of them. Pure: no HTTP, no clock.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_RETRIED = frozenset({408, 409, 425, 429})
_STOPPING = frozenset({401, 402, 403, 404, 405, 407})
NO_QUOTA = "insufficient_quota"
CERTIFICATE = "certificate"
_MOST = 8_000
"""Characters of an error body that are read: a page of HTML may be long, its reason is not."""
_WORDS = (
    "title",
    "message",
    "Message",
    "error_description",
    "msg",
    "reason",
    "detail",
    "details",
    "error",
    "errors",
    "metadata",
    "raw",
)
_MARKUP = re.compile(r"<(?:!doctype|html|head|body|title|h[1-6]|p|div|center|pre)\b", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """`status` is None where there was no HTTP answer, 200 where it was not one that can be read."""

    status: int | None
    message: str
    retry_after_s: float | None = None
    code: str = ""
    """The service's own word for it, or one of the constants here."""

    @property
    def transient(self) -> bool:
        if self.code in (NO_QUOTA, CERTIFICATE):  # no waiting mends them
            return False
        return self.status in (None, 200) or self.status in _RETRIED or self.status >= 500

    @property
    def stops_the_run(self) -> bool:
        """No other row would fare better."""
        return self.status in _STOPPING or self.code in (NO_QUOTA, CERTIFICATE)


def said(body: str) -> tuple[str, str]:
    """(reason with the field it is about, code) of an error body: JSON of any service we know, a web page, or plain text.

    Example: said('{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}') == ("seed: not permitted", "")
    """
    body = body[:_MOST].strip()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return (_page(body) if _MARKUP.search(body) else body) or "no reason given", ""
    return said_in(value)


def said_in(value: Any) -> tuple[str, str]:
    """`said` of an error that is read already."""
    told = list(dict.fromkeys(_reasons(value)))  # some repeat themselves on every level
    return "; ".join(told) or (json.dumps(value, ensure_ascii=False) if value else "no reason given"), _code(value)


def _reasons(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > 8:
        return
    if isinstance(value, str):
        if value.lstrip().startswith(("{", "[")):  # what an upstream service said, passed on as text
            try:
                yield from _reasons(json.loads(value), depth + 1)
                return
            except (ValueError, RecursionError):
                pass
        if value.strip():
            yield _page(value) if _MARKUP.search(value) else value.strip()
    elif isinstance(value, list):
        for inside in value:
            yield from _reasons(inside, depth + 1)
    elif isinstance(value, dict):
        told = [reason for word in _WORDS for reason in _reasons(value.get(word), depth + 1)]
        if not told:
            told = [str(value[word]) for word in ("code", "type") if isinstance(value.get(word), str) and value[word]][:1]
        field = _field(value)
        yield from (reason if not field or field in reason else f"{field}: {reason}" for reason in told)


def _field(error: dict[str, Any]) -> str:
    """The request's field that an error is about: OpenAI's `param`, FastAPI's `loc`."""
    param, place = error.get("param"), error.get("loc")
    if isinstance(param, str):
        return param
    if isinstance(place, list):
        return ".".join(str(part) for part in place if part != "body")
    return ""


def _code(value: Any) -> str:
    while isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return ""
    inner = value.get("error")
    code = _code(inner) if isinstance(inner, dict) else ""
    own = value.get("code")
    return code or (str(own) if isinstance(own, str | int) and not isinstance(own, bool) else "")


def _page(text: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
    parts = [title.group(1) if title else "", _UNSEEN.sub(" ", text)]
    return html.unescape(" ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip())))
