"""Exact numbers in text, and whether the sums marked `<<6*7=42>>` hold. Teacher text is parsed here, never evaluated.

math-verify (0.9) is not used: it guesses where a grader must not. It reads the last number of "12 or 18" and of
"5 dozens and 4" as the answer, finds none in "−5" (U+2212), and takes "50%" for 50 and for 0.5. Its strength, LaTeX and
symbolic equality, has no use where answers are plain numbers.
"""

from __future__ import annotations

import ast
import operator
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_MINUS = "-\u2212\uff0d"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_SIGNED = rf"(?P<sign>[{_MINUS}]\s?)?\$?\s?(?P<after>[{_MINUS}])?(?P<top>{_DIGITS})"
_NUMBER = re.compile(rf"{_SIGNED}(?P<rest>(?:\s?/\s?\d[\d.]*)*)")
_MAX_DIGITS = 100
_SUM = re.compile(r"[\d.+\-*/() ]{1,200}", re.ASCII)
_MARK = re.compile(r"<<(?P<left>[^<>]*)=(?P<right>[^<>=]*)>>")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def only_number(line: str) -> Fraction | None:
    """The one number in `line`, exact; None when there is none, more than one, or one not meant plainly (2½, 1/0).

    Words, a currency sign, a percent sign and a full stop around it are ignored: 50% is 50.
    """
    if any(unicodedata.category(char) == "No" and not char.isdigit() for char in line):
        return None
    found = list(_NUMBER.finditer(line))
    if len(found) != 1:
        return None
    number = found[0]
    top, *rest = [number["top"].replace(",", ""), *(part.strip() for part in number["rest"].split("/")[1:])]
    if len(rest) > 1 or any(len(part) > _MAX_DIGITS for part in (top, *rest)):
        return None
    try:
        value = Fraction(top) / (Fraction(rest[0]) if rest else 1)
    except (ValueError, ZeroDivisionError):
        return None
    return -value if number["sign"] or number["after"] else value


def written(value: Fraction) -> str:
    """One spelling per number: 1200, 10.5, -3, and 1/3 where decimals do not end."""
    twos = fives = 0
    rest = value.denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    if not places:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def without_marks(text: str) -> str:
    """`text` without `<<...>>` calculator marks."""
    return re.sub(r"<<[^<>]*>>", "", text)


def wrong_mark(text: str) -> str | None:
    """What is wrong with the first faulty calculator mark in `text`, or None; 1 % of rounding is allowed."""
    for mark in _MARK.finditer(text):
        left, right = _value(mark["left"]), _value(mark["right"])
        shown = mark.group()[:60]
        if left is None or right is None:
            return f"not a plain sum: {shown}"
        if abs(left - right) > max(abs(left), abs(right)) / 100:
            return f"wrong sum: {shown}"
    rest = _MARK.sub("", text)
    return "broken calculator mark" if "<<" in rest or ">>" in rest else None


def _value(text: str) -> Fraction | None:
    if not _SUM.fullmatch(text.strip()):
        return None
    try:
        return _walk(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _walk(node: ast.expr) -> Fraction:
    """Raises ValueError on anything but numbers and the four operations."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _walk(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_walk(node.left), _walk(node.right))
    raise ValueError("not a sum")
