"""When two texts are one text, and what only looks like punctuation."""

import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.tasks.normal_form import numbers, same_text, words


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Send an e-mail!", "send an EMAIL"),
        ("don’t", "dont"),
        ("Café", "cafe\u0301".upper()),
        ("3kg of “rice”", "3 kg, of rice"),
        ("1,000 people", "1000 people"),
        ("it costs $5.00", "It costs $5"),
        ("three apples", "3 apples"),
        ("3-5", "3 - 5"),
        ("1/2 cup", "½ cup"),
        ("٣ apples", "3 apples"),
        ("zero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen"),
        ("**bold** text", "bold text"),
        ("50% off", "50 percent off"),
    ],
)
def test_same(left: str, right: str) -> None:
    assert same_text(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("3.5", "35"),
        ("1 23", "12 3"),
        ("3 + 5", "3 - 5"),
        ("8/2", "8*2"),
        ("-5 degrees", "5 degrees"),
        ("10²", "102"),
        ("3½", "31/2"),
        ("5%", "5"),
        ("$5", "€5"),
        ("C++", "C"),
        ("C#", "C"),
        ("great 😀", "great 😡"),
        ("???", "!!!"),
        ("resume", "résumé"),
        ("version 3.10", "version 3.1"),
    ],
)
def test_different(left: str, right: str) -> None:
    assert not same_text(left, right)


def test_numbers_come_in_order_with_quantities() -> None:
    assert numbers(words("Half of 3 dozen is 18, not -2.5 or three.")) == ("half", "3", "dozen", "18", "-2.5", "3")


_WORDS = st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=12)


@settings(deadline=None)
@given(_WORDS, st.lists(st.sampled_from([" ", "\n", "\u00a0 ", "! ", ", ", " ("]), min_size=12, max_size=12))
def test_separators_and_unicode_form_do_not_count(parts: list[str], separators: list[str]) -> None:
    plain = " ".join(parts)
    marked = "".join(part + separator for part, separator in zip(parts, separators, strict=False))
    assert same_text(plain, marked)
    assert same_text(plain, unicodedata.normalize("NFD", plain))


@settings(deadline=None)
@given(st.text(string.printable))
def test_case_does_not_count(text: str) -> None:
    assert same_text(text, text.upper())


@settings(deadline=None)
@given(st.text())
def test_any_text_has_words_unless_blank(text: str) -> None:
    assert bool(words(text)) == bool(text.split())
