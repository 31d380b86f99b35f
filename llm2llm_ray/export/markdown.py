"""Anybody's text inside a Markdown card: shown as it is written, never obeyed."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~@:$!#]|(?<=www)\.", re.IGNORECASE)
"""Inline markup, table borders, bare links, mentions, emoji codes, formulas."""
_LONGEST = 300


def escaped(text: object, longest: int = _LONGEST) -> str:
    """Text for the inside of a cell, list item, heading or paragraph (not for a line's start) that renders as `text`.

    No markup, HTML, link or table border of it takes effect.

    Line ends become spaces, characters that are not to be seen become U+FFFD, and what is longer than `longest` is cut.
    """
    line = " ".join(str(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    line = "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else char for char in line
    )
    # Entities, not backslashes: a backslash before a pipe or an @ means different things to different renderers.
    return _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", line)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table. Cells are Markdown: what is not ours must be `escaped` before."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]


def json_block(value: object) -> list[str]:
    """A fenced block of JSON that cannot end its own fence."""
    text = json.dumps(value, indent=1, ensure_ascii=True).replace("`", "\\u0060").replace("<", "\\u003c")
    return ["```json", *text.splitlines(), "```"]
