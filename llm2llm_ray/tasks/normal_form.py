"""When two texts are the same text: equal up to case, punctuation, whitespace and Unicode form.

Keeps what changes a text's meaning although it looks like punctuation: decimal points, signs, arithmetic operators,
percent, currencies, exponents, emoji. Knows English number words, and no other language's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# fmt: off
_NUMBER_WORDS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15",
    "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30",
    "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
}
"""Without "one", which is more often a pronoun."""

_QUANTITIES = frozenset({
    "dozen", "hundred", "thousand", "million", "billion", "half", "third", "quarter", "double", "triple", "twice",
    "thrice", "percent",
})
# fmt: on

_KEPT = frozenset("+*=<>^$€£¥₹≤≥%#.,-/'")
_MAPPED = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{FRACTION SLASH}": "/",
        "\N{MINUS SIGN}": "-",
        "\N{HYPHEN}": "-",
        "\N{EN DASH}": "-",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{MODIFIER LETTER APOSTROPHE}": "'",
    }
)
"""After NFKC, which already made the non-breaking hyphen a hyphen."""
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_SIGN = r"(?<![^\s=<>+*^])(?<!\d\s)-"
"""A minus is a sign at the start of a word, an operator between numbers (spaced or not), and else a hyphen."""
_TOKEN = re.compile(
    rf"""
    (?:{_SIGN})? (?: \d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)? | \d+(?:\.\d+)* | (?<![^\s$€£¥₹-])\.\d+ )
    | \b[a-z](?:\+\+|\#)(?!\w)                                      # C++ and C# are not C
    | [^\s\d.,/\-+*=<>^$€£¥₹≤≥%\#']+
    | [$€£¥₹%]
    | (?: (?<=\w) | (?<=\w\ ) ) [+=<>^≤≥] (?= \ ?[\w$€£¥₹.-])
    | (?: (?<=\d) | (?<=\d\ ) ) [*/-] (?= \ ?[\d$€£¥₹])
    """,
    re.VERBOSE,
)


def words(text: str) -> tuple[str, ...]:
    """The text's words in order, normalised; what two texts are compared by. Never empty unless `text` is blank."""
    plain = _plain(text)
    found = tuple(_word(token) for token in _TOKEN.findall(plain))
    return found or tuple(text.casefold().split())


def numbers(normal: Sequence[str]) -> tuple[str, ...]:
    """The numbers among normalised words, in order: two problems with other numbers are two problems."""
    return tuple(w for w in normal if w.lstrip("-")[:1].isdecimal() or w in _QUANTITIES)


def same_text(left: str, right: str) -> bool:
    """Whether two texts are equal up to case, punctuation, whitespace and Unicode form."""
    return identity(words(left)) == identity(words(right))


def identity(normal: Sequence[str]) -> str:
    """One string per text: whitespace is gone ("e-mail" is "email"), but 1 23 stays other than 12 3."""
    return f"{''.join(normal)}\n{' '.join(numbers(normal))}"


def _plain(text: str) -> str:
    """NFKC and casefold, with everything that does not count turned into single spaces."""
    if text.isascii():  # the same, three times as fast: most texts of large sets
        return " ".join(_APOSTROPHE.sub("", text.lower().translate(_ASCII)).split())
    text = "".join(_compatible(char) for char in text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_MAPPED)
    text = _APOSTROPHE.sub("", "".join(_class(char) for char in text))
    return " ".join(text.split())


def _compatible(char: str) -> str:
    # NFKC alone makes 10² into 102 and 3½ into 31/2.
    if unicodedata.category(char) == "No":
        form = unicodedata.decomposition(char)
        if form.startswith("<super>"):
            return f"^{unicodedata.normalize('NFKC', char)}"
        if form.startswith("<fraction>"):
            return f" {unicodedata.normalize('NFKC', char)} "
    return char


def _class(char: str) -> str:
    if char in _KEPT:
        return char
    kind = unicodedata.category(char)
    if kind == "Nd":
        return str(unicodedata.decimal(char))
    if kind[0] in "LN" or (kind[0] == "M" and not "\ufe00" <= char <= "\ufe0f"):
        return char
    if kind == "So":
        return f" {char} "
    # Format characters (soft hyphen, zero-width space) and variation selectors stand inside words.
    return "" if kind == "Cf" or kind[0] == "M" else " "


_ASCII = {code: _class(chr(code)) for code in range(128)}


def _word(token: str) -> str:
    if token == "%":
        return "percent"
    if token[-1].isdecimal():
        number = token.replace(",", "")
        number = f"0{number}" if number[0] == "." else number.replace("-.", "-0.")
        return number.removesuffix(".00")  # $5.00 is $5; but 3.10 may be a version other than 3.1
    return _NUMBER_WORDS.get(token, token)
