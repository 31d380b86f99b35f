"""Reading what a teacher wrote, shared by the tasks: text in, items or counted reasons out, on any input.

Nothing here raises on a reply and nothing in a reply is ever evaluated. What an item *means* is the task's business.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import NoReturn

from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.types import Example, Rejected

_MARKER = re.compile(r"^[ \t]*\d{1,3}[.)](?!\d)", re.MULTILINE)
_LINE = re.compile(r"\S[^\r\n]*")
_FENCE = re.compile(r"```[a-z]*[ \t]*\r?\n(?P<body>.*?)(?:\r?\n[ \t]*```)?", re.DOTALL | re.IGNORECASE)
_LIST = re.compile(r'(?:```[a-z]*\s*)?(?:\{\s*"examples"\s*:\s*)?\[\s*', re.IGNORECASE)
_BETWEEN = re.compile(r"\s*,\s*")
_CHAT_MARKUP = re.compile(
    r"<\|[^<>\n]{0,40}\|>"  # <|im_start|>, <|endoftext|>
    r"|</?(?:s|bos|eos|think(?:ing)?|start_of_turn|end_of_turn)>|\[/?INST\]|<</?SYS>>"
    r"|^\s*#{2,}\s*(?:instruction|response|input|output|system|user|assistant)\s*:?\s*$"
    r"|^\s*(?:assistant|human)\s*:|\A\s*user\s*:",  # further down, "User: jsmith" is what people write
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"\{|\[\s*[\[{\"']|```")
_PAIRS = (
    ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"),
    ('"', '"'), ("'", "'"), ("“", "”"), ("„", "“"), ("‘", "’"), ("«", "»"),
)  # fmt: skip


def reject(reason: str, detail: str = "", text: str = "") -> Rejected:
    """A reason with a short, always encodable excerpt (the whole reply is in the reply store)."""
    excerpt = text[:200].encode("utf-8", "backslashreplace").decode()
    return Rejected(reason=reason, detail=detail, text=excerpt)


def chat_markup(text: str, parent: Example) -> str | None:
    """The first markup of a chat that leaked into `text`, or None. Markup that the parent row has too belongs to the task."""
    known = f"{parent.input}\n{parent.output}".lower()
    tags = (found.group().strip() for found in _CHAT_MARKUP.finditer(text))
    return next((tag for tag in tags if tag.lower() not in known), None)


def unusable(text: str, parent: Example) -> tuple[str, str] | None:
    """(reason, detail) why `text`, written for the row `parent`, can be no row whatever the task is, or None."""
    if tag := chat_markup(text, parent):
        return "malformed", f"chat markup {tag}"
    if any(unicodedata.category(char) == "Cs" or (char < " " and char not in "\t\r\n") for char in text):
        return "malformed", "lone surrogate or control character"
    if not any(char.isalnum() for char in text):
        return "empty", "no letter or digit"
    return None


def peel(text: str) -> str:
    """`text` without white space, quotes and markdown emphasis that enclose all of it."""
    text = text.strip()
    for opening, closing in _PAIRS:
        inner = text[len(opening) : -len(closing)]
        if inner.strip() and text.startswith(opening) and text.endswith(closing):
            plain = re.sub(r"(?<=\w)['’](?=\w)", "", inner)
            if opening not in plain and closing not in plain:
                return peel(inner)
    return text


def numbered_items(reply: str, parent: Example, *, count: int, cut: bool) -> list[str | Rejected]:
    """The first `count` items of a reply that continues a numbered list whose last number stands in the prompt.

    An item is its first line that is not blank; what follows up to the next `N.` or `N)` is chatter. With `cut`, the
    last item counts as truncated unless a newline shows that its line was finished.
    """
    if not reply.strip():
        return [reject("empty", "empty reply")]
    markers = list(_MARKER.finditer(reply))
    starts = [0, *(marker.end() for marker in markers)]
    ends = [*(marker.start() for marker in markers), len(reply)]
    items: list[str | Rejected] = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        if number > count:
            break
        unfinished = cut and number == len(starts)
        line = _LINE.search(reply, start, end)
        if unfinished and (line is None or line.end() == end):
            items.append(reject("truncated", "cut by max_tokens", reply[start:end].strip()))
        else:
            items.append(_item(line.group() if line else "", parent))
    return items


def _item(line: str, parent: Example) -> str | Rejected:
    text = " ".join(line.split())
    if _CODE.match(text):
        return reject("malformed", "JSON or code where plain text was asked for", text)
    text = peel(text)
    problem = unusable(text, parent)
    return reject(*problem, text) if problem else text


def json_items(reply: str, *, count: int, cut: bool) -> list[Mapping[str, object] | Rejected]:
    """The first `count` objects of a reply that is one object, a list of objects, or {"examples": [...]}.

    Of a list that ends or breaks off where it should not, the objects before that are whole and count; one rejection stands for
    the rest.
    """
    text, thoughts = split_reasoning(reply)
    if thoughts and not text:
        return [reject("truncated" if cut else "malformed", "unclosed reasoning", reply)]
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    values: list[object]
    try:
        value = _JSON.decode(fenced["body"] if fenced else text)
    except (ValueError, RecursionError) as error:
        values = _whole(text, count)
        values += [reject("truncated" if cut else "malformed", f"not JSON: {str(error)[:80]}", text)][: count - len(values)]
    else:
        found = value.get("examples", [value]) if isinstance(value, dict) else value
        values = found[:count] if isinstance(found, list) else []
        if not values:
            return [reject("malformed", "neither an object nor a list of objects", text)]
    return [
        item if isinstance(item, dict | Rejected) else reject("malformed", f"{type(item).__name__}, not an object")
        for item in values
    ]


def _whole(text: str, count: int) -> list[object]:
    """At most `count` objects at the beginning of a list that is no JSON as a whole."""
    found: list[object] = []
    start = _LIST.match(text)
    at = start.end() if start else len(text)
    while len(found) < count and text.startswith("{", at):
        try:
            value, at = _JSON.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        found.append(value)
        between = _BETWEEN.match(text, at)
        at = between.end() if between else len(text)
    return found


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_not_json)
