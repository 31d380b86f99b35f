"""Where a training's weights lie, and what it leaves when it is over."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from llm2llm_ray.runtime.training import engine


def test_what_is_trained_gets_memory_of_its_own_and_stays_tied() -> None:
    model = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5), "frozen": torch.nn.Linear(3, 3)}
    )
    model["head"].weight = model["embedding"].weight
    model["frozen"].requires_grad_(False)
    lay = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    was = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine.own_weights(model)
    assert model["head"].weight is model["embedding"].weight
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, was[name])
        assert (parameter.data_ptr() == lay[name]) == name.startswith("frozen"), name


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("available", "given_back"), [(7.9, [0]), (8.0, []), (12.0, [])])
def test_memory_is_given_back_where_less_than_half_is_free(
    monkeypatch: pytest.MonkeyPatch, available: float, given_back: list[int]
) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(engine, "memory", lambda: (16.0, available))
    monkeypatch.setattr(engine.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    engine.release_memory()
    assert trimmed == given_back
