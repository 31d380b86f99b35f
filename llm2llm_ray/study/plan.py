"""Everything that can be wrong with a study, found before its first cell starts: every cell's config, that one session serves
them all, and that there are rows where a method needs some. And what each cell is made of when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import Checked, check_loaded, load_rows
from llm2llm_ray.study.cells import Cell, cell_config, cells
from llm2llm_ray.study.given_rows import rows_file
from llm2llm_ray.study.spec import StudySpec
from llm2llm_ray.tasks.splits import Splits, unused_rows
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

_ALIKE = ("cluster", "student.model", "student.engine", "student.workers")
_SERVED_ALIKE = ("kind", "model", "engine", "latency_s")
_LOOKED_AT = {"task", "teacher", "judge", "augmentation", "gates", "evaluation"}


class PlannedStudy:
    """A spec with its base config. Rows are read once for each draw and seed size, a service is tried once."""

    def __init__(self, spec: StudySpec, base: Mapping[str, Any], base_path: Path) -> None:
        self.spec, self._base, self._base_dir = spec, base, base_path.parent
        self.cells = cells(spec)
        self._rows: dict[str, tuple[Task, Splits]] = {}
        self._checked: dict[str, Checked] = {}

    def check(self) -> None:
        """Raises UserError naming the cell, the field and the value. Asks a teacher service what the first cells will ask it."""
        configs = [self.config(cell) for cell in self.cells]
        self._draws_differ(configs[0])
        one_session(self.spec.name, list(zip(self.cells, configs, strict=True)))
        for cell, config in zip(self.cells, configs, strict=True):
            try:
                self._check(cell, config)
            except UserError as error:
                raise UserError(f"study {self.spec.name}, cell {cell.name}: {error}") from None

    def config(self, cell: Cell, *, rows: Sequence[int] | None = None, given: str | None = None) -> Config:
        """See `cells.cell_config`."""
        return cell_config(self.spec, self._base, cell, rows=rows, given=given)

    def checked(self, config: Config) -> Checked:
        """As `preflight.check` has it, but once for cells that ask the same of the same rows."""
        key = config.model_dump_json(include=_LOOKED_AT)
        if key not in self._checked:
            self._checked[key] = check_loaded(config, *self.rows(config))
        return self._checked[key]

    def rows(self, config: Config) -> tuple[Task, Splits]:
        key = f"{config.task.model_dump_json()} {config.augmentation.near_test}"
        if key not in self._rows:
            self._rows[key] = load_rows(config, self._base_dir)
        return self._rows[key]

    def given_rows(self, cell: Cell, config: Config, count: int | None) -> bytes:
        """The file of a cell whose rows no model writes. `count`: new rows of its reference, which it may not exceed; None: it is
        held to none and takes as many for each wrong seed as the loop asks for."""
        given, (task, splits) = self.spec.method(cell.label).given, self.rows(config)
        assert given is not None
        wanted = config.augmentation.per_wrong * config.run.iterations
        # Twice as many as are wanted: gates turn some away.
        each = wanted if count is None else 2 * -(-count // len(splits.seed)) + 2
        return rows_file(given, splits.seed, self._unused(cell, config), task, each=each, draw=cell.draw)

    def _check(self, cell: Cell, config: Config) -> None:
        if not config.evaluation.test:
            raise UserError("evaluation.test is off, and a study compares test accuracies; turn it on")
        if self.spec.method(cell.label).given is None:
            self.checked(config)
        elif self.spec.method(cell.label).given in ("more_real", "pool") and not self._unused(cell, config):
            raise UserError(
                f"methods.{cell.label} takes real rows that are no seeds, and the seed file has no others; draw "
                "fewer (seed_sizes), or leave it out"
            )

    def _unused(self, cell: Cell, config: Config) -> list[Example]:
        if self.spec.method(cell.label).given not in ("more_real", "pool"):
            return []
        return unused_rows(config.task, *self.rows(config), base_dir=self._base_dir)

    def _draws_differ(self, config: Config) -> None:
        drawn = config.task.seeds_per_class or config.task.seed_rows
        if len(self.spec.draws) > 1 and not drawn:
            raise UserError(
                f"study {self.spec.name}: draws: {len(self.spec.draws)}, but the base config takes all seed rows, so they "
                "are the same; set seed_sizes, or task.seed_rows in the base config, or vary run_seeds instead"
            )


def one_session(name: str, planned: Sequence[tuple[Cell, Config]]) -> None:
    """All cells must be served by the same engines and trained by the same workers. Raises UserError naming two cells, the field
    and both values."""
    for field in _ALIKE:
        _alike(name, field, ((cell, _at(config, field)) for cell, config in planned))
    for role in ("teacher", "judge"):
        for field in _SERVED_ALIKE:
            asked = ((cell, config.teacher if role == "teacher" else config.judge_apart) for cell, config in planned)
            _alike(name, f"{role}.{field}", ((cell, getattr(model, field)) for cell, model in asked if model and model.served))


def _alike(name: str, field: str, found: Iterable[tuple[Cell, Any]]) -> None:
    first: tuple[Cell, Any] | None = None
    for cell, value in found:
        if first is None:
            first = cell, value
        elif value != first[1]:
            raise UserError(
                f"study {name}: {field} is {first[1]} in cell {first[0].name} and {value} in cell {cell.name}; all cells share "
                "engines and workers: make two studies of it"
            )


def _at(config: Config, field: str) -> Any:
    found: Any = config
    for name in field.split("."):
        found = getattr(found, name)
    return found
