"""An asker's metrics: counted reply by reply, told together, and only once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from llm2llm_ray.runtime import series as loop_series
from llm2llm_ray.types import DatasetVersion, Iteration, Reply, Round, Student


class Series:
    """What Ray would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, Mapping[str, str]]] = []

    def __call__(self, name: str, about: str, *tags: str) -> Series.Of:
        return Series.Of(self, name, {"run", *tags})

    class Of:
        def __init__(self, series: Series, name: str, tags: set[str]) -> None:
            self._series, self._name, self._tags = series, name, tags

        def inc(self, value: float, tags: Mapping[str, str]) -> None:
            assert value > 0 and set(tags) == self._tags
            self._series.told.append((self._name, value, {tag: tags[tag] for tag in tags if tag not in ("run", "role")}))

        set = inc


def test_a_second_telling_tells_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    series = Series()
    monkeypatch.setattr(loop_series, "_counter", series)
    monkeypatch.setattr(loop_series, "_gauge", series)
    metrics = loop_series.RoleMetrics("/runs/demo", "student")
    for finish, tokens in (("stop", 5), ("stop", 7), ("length", 0)):
        metrics.answered(Reply(text="", finish_reason=finish, prompt_tokens=10, completion_tokens=tokens))
    metrics.replayed()
    metrics.replayed()
    assert not series.told
    metrics.tell(rows=4, in_flight=3)
    assert series.told == [
        ("requests_in_flight", 3, {}),
        ("rows", 4, {}),
        ("replayed", 2, {}),
        ("replies", 2, {"finish": "stop"}),
        ("replies", 1, {"finish": "length"}),
        ("tokens", 30, {"kind": "prompt"}),
        ("tokens", 12, {"kind": "completion"}),
    ]
    series.told.clear()
    metrics.answered(Reply(text="", finish_reason="error", error="no"))
    metrics.tell(rows=0, in_flight=1)
    assert series.told == [("requests_in_flight", 1, {}), ("replies", 1, {"finish": "error"})]


@pytest.mark.parametrize(
    ("round_", "accuracy", "unanswered"),
    [
        (Round(evaluated=32, wrong=4, errors={"refused": 4}), 0.75, 4),
        (Round(evaluated=4, wrong=0, errors={"unavailable": 4}), 0.0, 4),
        (Round(evaluated=4, wrong=0), 1.0, 0),
    ],
)
def test_an_iterations_accuracy_counts_rows_without_an_answer_as_not_right(
    monkeypatch: pytest.MonkeyPatch, round_: Round, accuracy: float, unanswered: int
) -> None:
    told: dict[str, float] = {}

    class Gauge:
        def __init__(self, name: str) -> None:
            self.name = name

        def set(self, value: float, tags: Mapping[str, str]) -> None:
            told[self.name] = value

    monkeypatch.setattr(loop_series, "_gauge", lambda name, about, *tags: Gauge(name))
    dataset = DatasetVersion(id="v", iteration=1, parent=None, parts=(), num_rows=42)
    student = Student(path="s", sha="w", iteration=1)
    metrics = loop_series.RunMetrics("demo")
    metrics.finished(Iteration(index=1, dataset=dataset, student=student, round=round_, grown=None), new=False)
    assert told == {"dataset_rows": 42, "error_source_accuracy": accuracy, "error_source_unanswered": unanswered}
    told.clear()
    metrics.examined({"kept": {"value": 0.5, "errors": {"refused": 2, "bad_request": 1}}})
    assert told == {"test_accuracy": 0.5, "test_unanswered": 3}
