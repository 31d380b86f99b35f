"""Rates come from runs: what is measured in one, which run is taken, and that nothing is told without a measurement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from timed_run import Sent, TimedRun

from llm2llm_ray.planning.rates import KNOWN, known, measured, rates_for


def requests(start: float, count: int, seconds: float, prompt: int, generated: int) -> list[Sent]:
    """One after the other, so that busy seconds are their sum."""
    return [Sent(start + n * seconds, start + (n + 1) * seconds, prompt, generated) for n in range(count)]


def a_run(folder: Path, patch: pytest.MonkeyPatch, *, name: str = "timed", **config: object) -> TimedRun:
    """An update costs 2 s and 0.01 s a token, the first of a training 3 s more; a request 0.001 s a prompt token and 0.002 s
    a generated one; a pipeline 10 s."""
    run = TimedRun(folder, patch, **{"run": {"name": name}, **config})
    run.up(0, 6, 70)
    run.train(0, (70, 110), [(98, 6, 100), (101, 3, 100), (105, 4, 200), (107, 2.5, 50)])
    run.round(0, (110, 121.08), [*requests(119, 4, 0.22, 200, 10), *requests(119.88, 4, 0.05, 10, 20)])
    run.stage("commit", 0, (121.08, 121.5), {"round": 0}, {"version": "v", "accepted": 0, "rejected": {}})
    run.round(0, (122, 133), requests(131, 10, 0.1, 20, 40), name="exam")
    run.event(140, "finished")
    return run


def test_a_run_tells_what_each_thing_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(a_run(tmp_path, monkeypatch).record)
    assert found is not None and found.device == "cpu" and found.source.endswith("timed on 2026-11-18")
    assert (found.starting_s, found.engines_s, found.report_s) == (6, 64, 7)
    assert found.update_s == pytest.approx(2.0) and found.train_tokens_per_s == pytest.approx(100)
    assert found.train_start_s == pytest.approx(22 + 3) and found.train_end_s == pytest.approx(3)
    assert found.pipeline_start_s == pytest.approx((10.0 + 10.0) / 2, abs=0.1)
    assert found.teacher == found.student, "one model in both roles"
    assert found.student.parameters == 134_515_008


def test_prompt_and_generated_tokens_are_told_apart_where_the_stages_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 6, 70)
    run.train(0, (70, 90), [(85, 2, 100)])
    run.round(0, (110, 130), requests(120, 10, 0.3, 100, 100))  # 0.001 s a prompt token, 0.002 a generated one
    run.round(0, (130, 150), requests(140, 10, 0.22, 180, 20), name="exam")
    found = measured(run.record)
    assert found is not None
    assert found.student.prompt_tokens_per_s == pytest.approx(1000, rel=0.01)
    assert found.student.generated_tokens_per_s == pytest.approx(500, rel=0.01)
    assert found.student.seconds(1000, 500) == pytest.approx(2, rel=0.01)


def test_a_fit_that_noise_made_implausible_is_the_mean_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 6, 70)
    run.train(0, (70, 90), [(85, 2, 100)])
    run.round(0, (110, 130), requests(120, 10, 0.1, 100, 5))
    run.round(0, (130, 170), requests(140, 10, 0.9, 100, 6), name="exam")  # nine times as long for a token more
    found = measured(run.record)
    assert found is not None
    assert found.student.prompt_tokens_per_s == found.student.generated_tokens_per_s == pytest.approx(2110 / 10, rel=0.01)


def test_a_run_that_has_not_trained_and_evaluated_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TimedRun(tmp_path, monkeypatch)
    run.up(0, 6, 70)
    assert measured(run.record) is None
    run.train(0, (70, 90), [(85, 2, 100)])
    assert measured(run.record) is None


def test_a_scripted_teacher_has_no_engine_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = {"kind": "scripted", "model": "replies.jsonl"}
    found = measured(a_run(tmp_path, monkeypatch, teacher=teacher).record)
    assert found is not None and found.teacher is None


def test_this_run_comes_first_then_one_beside_it_then_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TimedRun(tmp_path, monkeypatch, run={"name": "new"}).config
    assert rates_for(config, "cpu") == KNOWN[0]
    a_run(tmp_path, monkeypatch, name="beside")
    found = rates_for(config, "cpu")
    assert found is not None and "/beside on " in found.source
    a_run(tmp_path, monkeypatch, name="new")
    found = rates_for(config, "cpu")
    assert found is not None and "/new on " in found.source


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("configs/*.json", lambda text: text[:20]),
        ("configs/*.json", lambda text: "{}"),
        ("stages/*.json", lambda text: text[:20]),
        ("stages/train-*.json", lambda text: text.replace('"result"', '"lost"')),
        ("rounds/*/*.parquet", lambda text: "x"),
    ],
)
def test_a_damaged_run_beside_this_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, damage: Callable[[str], str]
) -> None:
    a_run(tmp_path, monkeypatch, name="beside")
    config = a_run(tmp_path, monkeypatch, name="torn").config
    for file in (tmp_path / "torn").glob(pattern):
        file.write_text(damage(file.read_text(errors="replace")))
    found = rates_for(TimedRun(tmp_path, monkeypatch, run={"name": "new"}).config, "cpu")
    assert found is not None and "/beside on " in found.source
    with pytest.raises((ValueError, KeyError)):  # of one's own it is told
        rates_for(config, "cpu")


@pytest.mark.parametrize(
    "other",
    [
        {"student": {"model": "Qwen/Qwen3-0.6B"}},
        {"teacher": {"model": "Qwen/Qwen3-0.6B"}},
        {"student": {"method": "lora"}},
        {"cluster": {"threads": 1}},
    ],
)
def test_a_run_with_other_models_or_settings_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, object]
) -> None:
    a_run(tmp_path, monkeypatch, name="beside")
    found = rates_for(TimedRun(tmp_path, monkeypatch, run={"name": "new"}, **other).config, "cpu")
    assert found is None or found is KNOWN[0]


@pytest.mark.parametrize(
    ("device", "config"),
    [
        ("gpu", {}),
        ("cpu", {"student": {"model": "Qwen/Qwen3-0.6B"}}),
        ("cpu", {"teacher": {"model": "meta-llama/Llama-3.1-8B-Instruct"}}),
        ("cpu", {"student": {"model": "some-model-of-unknown-size"}}),
        ("cpu", {"student": {"method": "lora"}}),
        ("cpu", {"student": {"precision": "bf16"}}),
    ],
)
def test_nothing_is_known_where_nothing_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, config: dict[str, object]
) -> None:
    assert known(TimedRun(tmp_path, monkeypatch, **config).config, device) is None


def test_a_model_of_about_the_same_size_goes_by_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"student": {"model": "HuggingFaceTB/SmolLM2-135M"}, "teacher": {"kind": "openai", "base_url": "http://x/v1"}}
    assert known(TimedRun(tmp_path, monkeypatch, **config).config, "cpu") is KNOWN[0]


def test_every_known_rate_says_where_it_comes_from() -> None:
    for rates in KNOWN:
        assert rates.source.startswith("measured on 20") and "cores" in rates.source
        assert rates.student.parameters > 0
