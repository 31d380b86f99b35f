"""What a reasoning model thinks never reaches a parser."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.reasoning import split_reasoning


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("plain  text\n", "plain  text\n", ""),
        ("<think>hm</think>\n\nanswer", "answer", "hm"),
        ("<think>a</think>one<think>b</think>two", "one\ntwo", "a\nb"),
        ("<think>a<think>b</think>c</think>d", "d", "a\nb\nc"),
        ("<think>I could open a <think> block</think>d", "d", "I could open a\nblock"),
        ("never opened</think>answer", "answer", "never opened"),
        ("<think>never closed", "", "never closed"),
        ("answer? <think>never closed", "", "answer?\nnever closed"),
        ("<THINKING>a</THINKING >b", "b", "a"),
        ("<think></think>", "", ""),
    ],
)
def test_split(text: str, answer: str, reasoning: str) -> None:
    assert split_reasoning(text) == (answer, reasoning)


def test_reasoning_kept_apart_by_the_service_comes_first() -> None:
    assert split_reasoning("<think>b</think>c", "a") == ("c", "a\nb")
    assert split_reasoning("c", "a") == ("c", "a")


_PIECES = st.lists(st.sampled_from(["<think>", "</think>", "word", " ", "\n", "<thinking>"]) | st.text(max_size=8))


@settings(deadline=None)
@given(_PIECES.map("".join))
def test_no_tag_and_no_invented_text(text: str) -> None:
    answer, reasoning = split_reasoning(text)
    if "think" in text:
        assert not re.search(r"</?think(ing)?>", answer)
    for part in (answer, reasoning):
        assert set(part) <= set(text) | {"\n"}
    if text.rfind("<think>") > text.rfind("</think>"):
        assert answer == ""
