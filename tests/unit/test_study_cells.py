"""A study's spec, the order of its cells, and what each method changes in the base config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from labelled import SEEDS, UNUSED

from llm2llm_ray.errors import UserError
from llm2llm_ray.study.cells import Cell, cell_config, cells, reference_of
from llm2llm_ray.study.methods import METHODS
from llm2llm_ray.study.plan import PlannedStudy
from llm2llm_ray.study.spec import StudySpec, load_spec

BASE: dict[str, Any] = {
    "task": {"name": "classification", "data": "data", "options": {"labels": ["billing", "account"]}},
    "student": {"model": "base", "updates": "auto"},
    "teacher": {"kind": "scripted", "model": "replies.jsonl"},
    "augmentation": {"per_wrong": 3},
    "run": {"name": "base", "iterations": 3},
}
ALL = [name for name in METHODS if name not in ("loop_dev", "loop_cross_fit")]


def written(folder: Path, **spec: Any) -> Path:
    """A spec with its base config and data."""
    (folder / "data").mkdir(exist_ok=True)
    for name, rows in (("seed", [*SEEDS, *UNUSED]), ("test", [])):
        lines = [{"id": row.id, "text": row.input, "label": row.output} for row in rows]
        lines = lines or [{"id": "t", "text": "What is the price?", "label": "billing"}]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "replies.jsonl").write_text('{"reply": "What does it cost?"}\n')
    given = {**BASE, "teacher": {**BASE["teacher"], "model": str(folder / "replies.jsonl")}}
    (folder / "base.yaml").write_text(yaml.safe_dump(given))
    told = {"name": "s", "base": "base.yaml", "methods": ["seeds", "loop_seed"], **spec}
    told.setdefault("folder", str(folder / "studies"))
    (folder / "spec.yaml").write_text(yaml.safe_dump(told))
    return folder / "spec.yaml"


def spec_of(**spec: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "s", "base": "base.yaml", "methods": ["seeds", "loop_seed"], **spec})


def config_of(label: str, spec: StudySpec, **given: Any) -> Any:
    return cell_config(spec, BASE, Cell(label=label, draw=0, run_seed=0, size=None), **given)


def test_cells_are_all_methods_of_a_draw_and_references_stand_first() -> None:
    spec = spec_of(methods=["random", "seeds", "loop_seed"], draws=2, run_seeds=[4], seed_sizes={"seeds_per_class": [1, 2]})
    names = [cell.name for cell in cells(spec)]
    assert names[:3] == ["seeds-d0-s4-n1", "loop-seed-d0-s4-n1", "random-d0-s4-n1"]
    assert len(names) == len(set(names)) == 3 * 2 * 2 and names[-1] == "random-d1-s4-n2"
    random = next(cell for cell in cells(spec) if cell.label == "random")
    reference = reference_of(spec, random)
    assert reference is not None and reference.name == "loop-seed-d0-s4-n1"
    assert reference_of(spec, reference) is None


def test_every_built_in_method_makes_a_config_and_changes_what_it_is_named_after() -> None:
    spec = spec_of(methods=ALL, equal_rows_to="loop_early", set={"student.learning_rate": 1e-4})
    found = {label: config_of(label, spec) for label in ALL}
    assert {config.student.learning_rate for config in found.values()} == {1e-4}
    assert found["seeds"].run.iterations == 1
    assert (found["loop_seed"].evaluation.error_source, found["loop_early"].evaluation.error_source) == ("seed", "early")
    assert (found["random"].augmentation.targets, found["random"].evaluation.error_source) == ("random", "early")
    assert (found["one_shot"].augmentation.targets, found["one_shot"].augmentation.one_shot) == ("all", True)
    assert found["augment_augmented"].augmentation.augment_augmented
    assert found["continue_from_previous"].student.start_from == "previous"
    given = {label: config for label, config in found.items() if METHODS[label].given}
    assert {config.teacher.kind for config in given.values()} == {"rows"}
    assert {label for label, config in given.items() if config.augmentation.copies} == {"duplicated", "eda"}
    assert found["pool"].augmentation.targets == "wrong"
    # The snapshot is part of a training's key: only with it is the first student the reference's.
    assert {found[label].evaluation.error_source for label in ALL if label not in ("loop_seed",)} == {"early"}


def test_a_cell_is_held_to_the_rows_of_its_reference() -> None:
    spec = spec_of(methods=["loop_seed", "random", "one_shot", "eda"])
    assert config_of("random", spec, rows=(5, 2)).augmentation.rows_at_most == (5, 2)
    assert config_of("one_shot", spec, rows=(5, 2)).augmentation.rows_at_most == 7
    eda = config_of("eda", spec, rows=(5, 2), given="/x/rows.jsonl")
    assert (eda.augmentation.rows_at_most, eda.teacher.model, eda.run.iterations) == (7, "/x/rows.jsonl", 2)
    own = spec_of(methods={"random": {"set": {"augmentation.rows_at_most": 9}}})
    assert reference_of(own, cells(own)[0]) is None and config_of("random", own).augmentation.rows_at_most == 9


def test_dimensions_and_overrides_reach_the_config() -> None:
    spec = spec_of(
        methods={"mine": {"kind": "loop_seed", "set": {"augmentation.per_wrong": 9}}, "loop_seed": {}},
        seed_sizes={"seed_rows": [7]}, set={"augmentation.per_wrong": 5},
    )  # fmt: skip
    config = cell_config(spec, BASE, Cell(label="mine", draw=2, run_seed=1, size=7))
    assert (config.task.sample_seed, config.run.seed, config.student.seed, config.task.seed_rows) == (2, 1, 1, 7)
    assert (config.augmentation.per_wrong, config_of("loop_seed", spec).augmentation.per_wrong) == (9, 5)
    assert config.run_path == "studies/s/cells/mine-d2-s1-n7"
    assert BASE["augmentation"] == {"per_wrong": 3}, "the base is not changed"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"methods": ["seed"]}, "methods.seed: no method seed; built in: seeds, loop_seed"),
        ({"methods": ["random", "seeds"]}, "methods.random takes as many new rows as a loop does, and there is none to equal"),
        ({"methods": ["seeds", "seeds"]}, "a method stands there twice"),
        ({"methods": ["loop_seed"], "equal_rows_to": "loop_early"}, "equal those of loop_early, which is no method"),
        ({"methods": {"seeds": {"set": {"run.seed": 3}}}}, "run.seed is not set here: it follows from run_seeds"),
        ({"draws": []}, "draws"),
        ({"draws": [1, 1]}, "a number stands there twice"),
        ({"draws": 0}, "draws"),
        ({"seed_sizes": {"seed_rows": [2], "seeds_per_class": [2]}}, "one of the two"),
        ({"drawz": 3}, "drawz: unknown key; did you mean draws?"),
        ({"methods": {"seeds": {"sets": {}}}}, "methods.seeds.sets: unknown key; did you mean set?"),
        ({"base": "none.yaml"}, "base: none.yaml: no such file"),
    ],
)
def test_mistakes_in_a_spec_are_told_with_file_and_field(tmp_path: Path, spec: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        load_spec(written(tmp_path, **spec))
    assert told in str(error.value) and "spec.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"set": {"augmentation.per_wronk": 2}},
            "cell seeds-d0-s0: augmentation.per_wronk: unknown key; did you mean per_wrong?",
        ),
        ({"methods": {"loop_seed": {"set": {"student.epochs": -1}}}}, "cell loop-seed-d0-s0: student.epochs"),
        ({"set": {"student": 3, "student.epochs": 2}}, "student is a value, not a section"),
        ({"set": {"evaluation.test": False}}, "a study compares test accuracies"),
        ({"draws": 2}, "draws: 2, but the base config takes all seed rows"),
        ({"methods": ["loop_dev"]}, "cell loop-dev-d0-s0: evaluation.error_source: dev needs labelled dev rows"),
        ({"methods": ["loop_seed", "pool"]}, "methods.pool takes real rows that are no seeds"),
        ({"seed_sizes": {"seeds_per_class": [50]}}, "cell seeds-d0-s0-n50: task.seeds_per_class: 50 wanted"),
        (
            {"methods": {"loop_early": {}, "loop_seed": {"set": {"student.engine.max_model_len": 64}}}},
            "cell loop-seed-d0-s0; all cells share engines and workers",
        ),
    ],
)
def test_every_cell_is_checked_before_anything_starts(tmp_path: Path, spec: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        PlannedStudy(*load_spec(written(tmp_path, **spec))).check()
    assert told in str(error.value)


def test_a_sound_study_passes_and_makes_the_rows_of_its_cells(tmp_path: Path) -> None:
    methods = [name for name in ALL if name != "loop_early"]
    planned = PlannedStudy(*load_spec(written(tmp_path, methods=methods, draws=2, seed_sizes={"seeds_per_class": [1]})))
    planned.check()
    for cell in planned.cells:
        if METHODS[cell.label].given:
            config = planned.config(cell, rows=(3,) if METHODS[cell.label].equal_rows else None)
            lines = planned.given_rows(cell, config, 3 if METHODS[cell.label].equal_rows else None).decode().splitlines()
            seeds = {row.id for row in planned.rows(config)[1].seed}
            assert lines and {json.loads(line)["seed"] for line in lines} <= seeds
