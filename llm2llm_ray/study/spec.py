"""SPEC.yaml of `llm2llm study`, read and checked. What a cell's config is follows from it and the base config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from llm2llm_ray.config.file import read_tree, validated
from llm2llm_ray.config.section import Section
from llm2llm_ray.errors import UserError
from llm2llm_ray.study.methods import METHODS, Method

_LABEL = r"^[a-z][a-z0-9_]{0,23}$"
_IN_DIMENSIONS = {
    "task.sample_seed": "draws", "run.seed": "run_seeds", "student.seed": "run_seeds", "run.name": "name", "run.folder": "folder",
    "task.seeds_per_class": "seed_sizes", "task.seed_rows": "seed_sizes",
}  # fmt: skip


def _counted(given: object) -> object:
    """3 stands for 0, 1, 2."""
    return list(range(given)) if type(given) is int else given


Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_counted), Field(min_length=1)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class SeedSizes(Section):
    """How many seed rows a cell has; one of the two."""

    seeds_per_class: Sizes | None = None
    seed_rows: Sizes | None = None

    @model_validator(mode="after")
    def _one(self) -> SeedSizes:
        if (self.seeds_per_class is None) == (self.seed_rows is None):
            raise ValueError("give seeds_per_class or seed_rows, one of the two")
        return self

    @property
    def field(self) -> str:
        return "task.seeds_per_class" if self.seeds_per_class else "task.seed_rows"

    @property
    def values(self) -> tuple[int, ...]:
        return self.seeds_per_class or self.seed_rows or ()


class MethodSpec(Section):
    """One row of the table."""

    kind: str = ""
    """A built-in method (methods.py); "": that of the label's name."""
    set: dict[str, Any] = Field(default_factory=dict)
    """section.field -> value, over everything else."""
    rows_of: str | None = None
    """Label of the method whose number of new rows this one may not exceed; None: `equal_rows_to`."""


class StudySpec(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    folder: str = "studies"
    """Where studies are kept: a path every node sees, or a URI that pyarrow opens."""
    base: str
    """Config of a run, relative to the spec's folder."""
    methods: dict[Annotated[str, Field(pattern=_LABEL)], MethodSpec] = Field(min_length=1)
    """Label -> method; a list of built-in methods where they need nothing further."""
    draws: Numbers = (0,)
    """Each is a `task.sample_seed`; a number n stands for 0 to n - 1."""
    run_seeds: Numbers = (0,)
    """Each is a `run.seed` and a `student.seed`."""
    seed_sizes: SeedSizes | None = None
    """None: as the base config draws them."""
    set: dict[str, Any] = Field(default_factory=dict)
    """section.field -> value, in every cell."""
    equal_rows_to: str | None = None
    """Label of the method whose number of new rows others are held to; None: the first loop among the methods."""
    resamples: int = Field(default=2000, ge=200)
    """Of the bootstrap."""

    @field_validator("methods", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return {label: {} if found is None else found for label, found in given.items()} if isinstance(given, dict) else given
        if len({str(name) for name in given}) < len(given):
            raise ValueError("a method stands there twice; give labels: {label: {kind: ..., set: {...}}}")
        return {str(name): {} for name in given}

    @field_validator("draws", "run_seeds")
    @classmethod
    def _once(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(given)) < len(given):
            raise ValueError("a number stands there twice")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        for label, method in self.methods.items():
            if (method.kind or label) not in METHODS:
                raise ValueError(f"methods.{label}: no method {method.kind or label}; built in: {', '.join(METHODS)}")
            for name in (method.rows_of, self.equal_rows_to):
                if name is not None and name not in self.methods:
                    raise ValueError(f"methods.{label}: its rows are to equal those of {name}, which is no method of this study")
            for field in {**self.set, **method.set}:
                if field in _IN_DIMENSIONS:
                    raise ValueError(f"{field} is not set here: it follows from {_IN_DIMENSIONS[field]}")
            self._has_rows_to_equal(label)
        return self

    def _has_rows_to_equal(self, label: str) -> None:
        if self.method(label).equal_rows and "augmentation.rows_at_most" not in {**self.set, **self.methods[label].set}:
            reference = self.reference(label)
            if reference is None or self.method(reference).equal_rows or self.method(reference).only_seeds:
                raise ValueError(
                    f"methods.{label} takes as many new rows as a loop does, and there is none to equal: add loop_seed, "
                    "loop_early or another loop, name one in equal_rows_to, or set augmentation.rows_at_most in its `set`"
                )

    def method(self, label: str) -> Method:
        return METHODS[self.methods[label].kind or label]

    def reference(self, label: str) -> str | None:
        """The method whose settings and number of rows `label` goes by; None where the study has none."""
        loops = (name for name in self.methods if self.method(name).source is not None)
        return self.methods[label].rows_of or self.equal_rows_to or next(loops, None)

    @property
    def path(self) -> str:
        return f"{self.folder.rstrip('/')}/{self.name}"


def load_spec(path: str | Path) -> tuple[StudySpec, dict[str, Any], Path]:
    """The spec, its base config as it stands, and where that lies. Raises UserError (file, field, value, remedy)."""
    spec = validated(StudySpec, read_tree(path, "a study (name, base, methods, draws, ...)"), path)
    base = Path(path).parent / spec.base
    if not base.is_file():
        raise UserError(f"{path}: base: {spec.base}: no such file ({base}); name the config of a run, relative to the spec")
    return spec, read_tree(base, "sections (task, student, teacher, ... run)"), base
