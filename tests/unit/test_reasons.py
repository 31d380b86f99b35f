"""The table of reasons: it has every reason that the code gives, and no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from finished_run import config

from llm2llm_ray.augmentation.reasons import REASONS, meanings

PACKAGE = Path(__file__).parents[2] / "llm2llm_ray"


def given() -> Iterator[str]:
    """Every text literal that the sources give as a reason: to Rejected, to `reject`, or as the first of what is passed to it."""
    for path in [*(PACKAGE / "augmentation").glob("*.py"), *(PACKAGE / "rounds").glob("*.py"), *(PACKAGE / "tasks").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="Rejected"), keywords=keywords):
                    yield from (text for word in keywords if word.arg == "reason" for text in literals(word.value))
                case ast.Call(func=ast.Name(id="reject"), args=[first, *_]):
                    yield from literals(first)
                case ast.Assign(targets=[ast.Name(id="reason")], value=value):
                    yield from literals(value)
                case ast.FunctionDef(name="unusable", body=body):  # its answers go to `reject` as they are
                    returned = [n.value for statement in body for n in ast.walk(statement) if isinstance(n, ast.Return)]
                    yield from (text for value in returned if isinstance(value, ast.Tuple) for text in literals(value.elts[0]))


def literals(node: ast.expr) -> Iterator[str]:
    """Texts that an expression can come to."""
    if isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_every_reason_that_can_be_given_has_its_meaning_and_nothing_else_has() -> None:
    assert set(given()) == set(REASONS)


def test_a_meaning_names_the_setting_that_the_gate_went_by() -> None:
    told = meanings(config(augmentation={"near_test": 0.75, "max_words": 7}, teacher={"max_tokens": 99}).model_dump(mode="json"))
    assert list(told) == list(REASONS)
    assert told["contaminated"].endswith("(augmentation.near_test = 0.75)")
    assert "augmentation.max_words = 7 words" in told["too_long"] and told["truncated"].endswith("teacher.max_tokens = 99")
    assert not any("{" in meaning for meaning in told.values())
