"""Others' text on a terminal: made visible instead of obeyed. Imports nothing, so that scripts can use it at once."""

from __future__ import annotations

import unicodedata


def shown(text: object) -> str:
    """One line of anybody's text without what a terminal obeys: escape sequences, line ends, reordering of characters.

    Example: shown("a\\x1b[2Jb") == "a\\\\u001b[2Jb"
    """
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in str(text)
    )


def shown_lines(text: object) -> str:
    """`shown` of each line of a text whose line ends are meant, as in a message of ours that quotes others."""
    return "\n".join(map(shown, str(text).splitlines()))
