"""jobs/paper: every file is a line of the paper's, in the paper's settings, and says in its header what the planner says."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from task_data import real_folder

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.planning.plan import Plan, plan
from llm2llm_ray.preflight import Checked, check

FOLDER = Path(__file__).parents[2] / "jobs" / "paper"

# Written by hand. Seeds: the sizes of the paper's lines. What is not named is as in EVERY.
LINES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "gsm8k-74": ("main table, GSM8K", 74, {}),
    "gsm8k-149": ("main table, GSM8K", 149, {}),
    "gsm8k-373": ("main table, GSM8K", 373, {}),
    "gsm8k-747": ("main table, GSM8K", 747, {}),
    "gsm8k-1494": ("main table, GSM8K", 1494, {}),
    "gsm8k-3737": ("main table, GSM8K", 3737, {}),
    "gsm8k-7473": ("main table, GSM8K", 7473, {}),
    "casehold-225": ("main table, CaseHOLD", 225, {}),
    "snips-70": ("main table, SNIPS", 70, {}),
    "trec-60": ("main table, TREC", 60, {}),
    "sst2-20": ("main table, SST-2", 20, {}),
    "ablation-one-shot": ("Ablation: one-shot or iterative", 149, {"augmentation.one_shot": True}),
    "ablation-continue": ("Ablation: from scratch or continued training", 149, {"student.start_from": "previous"}),
    "ablation-augment-augmented": ("Ablation: seeds only or augmented rows too", 149, {"augmentation.augment_augmented": True}),
    "ablation-teacher-gpt-4-turbo": ("Teachers: a stronger service", 149, {"teacher.model": "gpt-4-turbo"}),
    "ablation-teacher-llama-2-70b": (
        "Teachers: an open model that the run serves itself",
        149,
        {"teacher.kind": "serve", "teacher.model": "meta-llama/Llama-2-70b-chat-hf"},
    ),
}
# What the paper and its released scripts say, resolved (docs/paper.md has the sources).
EVERY: dict[str, Any] = {
    "recipe": "paper",
    "student.model": "meta-llama/Llama-2-7b-hf",
    "student.method": "full",
    "student.epochs": 3,
    "student.updates": None,
    "student.global_batch_size": 128,
    "student.learning_rate": 2e-5,
    "student.warmup_ratio": 0.03,
    "student.schedule": "cosine",
    "student.weight_decay": 0,
    "student.max_length": 1024,
    "student.precision": "auto",
    "student.zero_stage": 3,
    "student.workers": 4,
    "student.start_from": "base",
    "student.checkpoint_every_updates": 2000,
    "teacher.kind": "openai",
    "teacher.model": "gpt-3.5-turbo",
    "teacher.style": "chat",
    "teacher.temperature": 1,
    "teacher.top_p": 1,
    "teacher.api_key_env": "OPENAI_API_KEY",
    "augmentation.per_wrong": 1,
    "augmentation.per_call": 1,
    "augmentation.one_shot": False,
    "augmentation.augment_augmented": False,
    "augmentation.show_wrong_answer": False,
    "augmentation.targets": "wrong",
    "augmentation.random_share": 0,
    "gates.relabel.votes": 0,
    "evaluation.error_source": "seed",
    "evaluation.judge_by": "greedy",
    "evaluation.structured": False,
    "evaluation.check_teacher": False,
    "evaluation.matched_baseline": True,
    "run.iterations": 10,
    "run.keep": "last",
    "run.patience": None,
    "cluster.device": "gpu",
}
NAMED = ("recipe", "task.", "run.name", "teacher.kind", "teacher.model", "teacher.base_url", "student.model")
"""What a run is, whether or not it is the default."""

_ROWS: dict[str, Checked] = {}

every = pytest.mark.parametrize("name", LINES)
SAME_DATA = ("gsm8k-74", "gsm8k-373", "gsm8k-747", "gsm8k-1494", "gsm8k-3737", "gsm8k-7473")
"""Differ from gsm8k-149 in the number of seeds only, and take half a minute of the planner's."""
with_rows = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SAME_DATA else []) for name in LINES]
)


def header(name: str) -> str:
    """The comment lines at the beginning, as one line."""
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\n")
    return " ".join(line.removeprefix("# ") for line in lines[: lines.index("recipe: paper")])


def leaves(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


@lru_cache
def planned(name: str) -> tuple[Config, Checked, Plan]:
    """As by `llm2llm run FILE --dry-run --set teacher.kind=serve`: no service is asked, no key is needed."""
    data = load_config(FOLDER / f"{name}.yaml").task.data
    assert data is not None
    config = load_config(FOLDER / f"{name}.yaml", [f"task.data={real_folder(Path(data).name)}", "teacher.kind=serve"])
    return config, checked(config), plan(config, checked(config), rates=lambda *_: None)


def checked(config: Config) -> Checked:
    """Read once for all files with the same rows."""
    wanted = config.task.model_dump_json()
    if wanted not in _ROWS:
        _ROWS[wanted] = check(config, FOLDER)
    return _ROWS[wanted]


def told(name: str) -> str:
    """What a header has to say of its plan."""
    _, _, found = planned(name)
    updates, calls = found.total(lambda amount: amount.updates), found.total(lambda amount: amount.calls)
    asked, written = (found.total(of).expected / 1e3 for of in (lambda a: a.teacher_prompt_tokens, lambda a: a.teacher_tokens))
    wrong = re.search(r"(\d+)% are wrong in every iteration \((\d+)% to (\d+)%\)", found.assumptions[0])
    assert wrong
    students = sum(step.name == "train" for step in found.steps)
    return (
        f"Plan, if {wrong[1]} % of the rows are wrong each time ({wrong[2]} to {wrong[3]} %): {students} students; "
        f"{updates.expected:,.0f} updates ({updates.low:,.0f} to {updates.high:,.0f}) with the baseline's, "
        f"{found.steps[0].expected.updates} of the first; {calls.expected:,.0f} teacher calls ({calls.low:,.0f} to "
        f"{calls.high:,.0f}), {asked:,.0f} k prompt and {written:,.0f} k reply tokens; {found.disk.students_gib:.0f} GiB of "
        f"students, {found.disk.checkpoints_gib:.0f} GiB of checkpoints. Seconds: not told, nothing was measured on a GPU."
    )


def test_every_file_is_in_the_table_and_on_the_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(LINES)
    assert set(re.findall(r"`([a-z0-9-]+)\.yaml`", (FOLDER / "README.md").read_text(encoding="utf-8"))) == set(LINES)


@every
def test_it_says_what_the_paper_says(name: str) -> None:
    resolved = load_config(FOLDER / f"{name}.yaml")
    found = leaves(resolved.model_dump(mode="json"))
    wanted = EVERY | LINES[name][2]
    assert {field: found[field] for field in wanted} == wanted
    assert resolved.run.name == f"paper-{name}"


@every
def test_it_states_nothing_that_the_recipe_says_already(name: str) -> None:
    raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    resolved = Config.model_validate(raw)
    for field in leaves(raw):
        if field.startswith(NAMED):
            continue
        without = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        *sections, last = field.split(".")
        target = without
        for section in sections:
            target = target[section]
        del target[last]
        try:
            same = Config.model_validate(without) == resolved
        except ValidationError:
            same = False
        assert not same, f"{field} is the default"


@every
def test_its_header_names_the_line_its_number_and_that_it_was_not_run(name: str) -> None:
    text = header(name)
    assert LINES[name][0] in text and f"{LINES[name][1]:,} seeds" in text
    for part in ("arXiv 2403.15042", "The paper's number: ", "Not run: ", "Plan, ", "Data: "):
        assert text.count(part) == 1


@with_rows
def test_its_seeds_are_as_many_as_the_papers(name: str) -> None:
    config, rows, _ = planned(name)
    assert len(rows.splits.seed) == LINES[name][1]
    if config.task.seeds_per_class:
        assert config.task.seeds_per_class == 10


@with_rows
def test_its_header_says_what_the_planner_says(name: str) -> None:
    _, _, found = planned(name)
    said = re.search(r"Plan, .* on a GPU\.", header(name))
    assert said, told(name)
    number = re.compile(r"\d[\d,]*")
    assert number.sub("", said[0]) == number.sub("", told(name))
    ours, its = ([int(found.replace(",", "")) for found in number.findall(text)] for text in (said[0], told(name)))
    assert ours == pytest.approx(its, rel=0.25, abs=1), told(name)
    served = load_config(FOLDER / f"{name}.yaml").teacher.kind == "serve"
    gpus = sum(item.count * item.gpus for item in found.resources if served or not item.what.startswith("teacher"))
    assert f"Needs: {gpus:g} GPUs" in header(name)


@with_rows
def test_a_row_fits_into_what_the_engines_take(name: str) -> None:
    _, _, found = planned(name)
    teacher = load_config(FOLDER / f"{name}.yaml").teacher
    room = [line for line in found.advice if "max_model_len" in line or "max_length" in line]
    assert [line for line in room if teacher.kind == "serve" or "teacher.engine" not in line] == []
