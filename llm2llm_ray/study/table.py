"""What a study came to: a row per method and seed size, from its finished cells. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from llm2llm_ray.study.cells import cells
from llm2llm_ray.study.results import CellResult
from llm2llm_ray.study.spec import StudySpec
from llm2llm_ray.study.statistics import Estimate, Marks, Power, differences, estimate, power, values

RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A method at a seed size. Means are over its finished cells."""

    label: str
    about: str
    size: int | None
    cells: int
    planned: int
    accuracy: Estimate
    over_baseline: Estimate | None
    """Minus the seeds alone at as many updates: the baseline of each cell. None: it was not examined, or is this very student."""
    over_random: Estimate | None
    """Minus equally many rows for random seeds, at the same draws and seeds; None where the study has no such cell."""
    baseline_power: Power | None
    random_power: Power | None
    updates: float
    rows: float
    accepted: float
    acceptance: float | None
    """Of the texts that the teacher wrote; None: it wrote none."""
    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The untrained student or the teacher itself, at a seed size."""

    who: str
    size: int | None
    accuracy: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    name: str
    finished: int
    planned: int
    draws: int
    run_seeds: int
    size_of: str
    """The field that a size is of; "" without seed sizes."""
    lines: tuple[Line, ...]
    beside: tuple[Beside, ...]

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def table(spec: StudySpec, results: Iterable[CellResult]) -> StudyTable:
    found, planned = list(results), cells(spec)
    sizes = sorted({cell.size for cell in planned}, key=lambda size: size or 0)
    lines, beside = [], []
    for size in sizes:
        here = [result for result in found if result.cell.size == size]
        control = next((label for label in spec.methods if (spec.methods[label].kind or label) == RANDOM), None)
        for label in spec.methods:
            own = [result for result in here if result.cell.label == label]
            if own:
                others = [result for result in here if result.cell.label == control]
                count = sum(cell.label == label and cell.size == size for cell in planned)
                lines.append(_line(spec, label, own, others, count))
        beside += [one for who in ("untrained", "teacher") if (one := _beside(spec, who, size, here)) is not None]
    return StudyTable(
        name=spec.name, finished=len(found), planned=len(planned), draws=len(spec.draws), run_seeds=len(spec.run_seeds),
        size_of=spec.seed_sizes.field if spec.seed_sizes else "", lines=tuple(lines), beside=tuple(beside),
    )  # fmt: skip


def _line(spec: StudySpec, label: str, own: Sequence[CellResult], random: Sequence[CellResult], planned: int) -> Line:
    kept = marks_of(own, "kept")
    accuracy = estimate(values(kept), resamples=spec.resamples)
    assert accuracy is not None, "a finished cell has an exam of its kept student"
    # Seeds only is its own baseline: 0 by definition, which is no finding.
    fair = [] if spec.method(label).only_seeds else differences(kept, marks_of(own, "baseline"))
    control = [] if all(result.cell.label == label for result in random) else differences(kept, marks_of(random, "kept"))
    written = sum(sum(result.accepted) + result.rejected for result in own)
    return Line(
        label=label,
        about=spec.method(label).about,
        size=own[0].cell.size,
        cells=len(own),
        planned=planned,
        accuracy=accuracy,
        over_baseline=estimate(fair, resamples=spec.resamples),
        over_random=estimate(control, resamples=spec.resamples),
        baseline_power=power(fair) if fair else None,
        random_power=power(control) if control else None,
        updates=_mean(own, lambda result: result.updates),
        rows=_mean(own, lambda result: result.rows),
        accepted=_mean(own, lambda result: sum(result.accepted)),
        acceptance=sum(sum(result.accepted) for result in own) / written if written else None,
        tokens=_mean(own, lambda result: result.tokens),
        seconds=_mean(own, lambda result: result.seconds),
    )


def marks_of(results: Iterable[CellResult], who: str) -> Marks:
    """Draw -> run seed -> graded test rows, of the cells in which `who` was examined."""
    found: dict[int, dict[int, Mapping[str, bool]]] = {}
    for result in results:
        if who in result.marks:
            found.setdefault(result.cell.draw, {})[result.cell.run_seed] = result.marks[who]
    return found


def _beside(spec: StudySpec, who: str, size: int | None, here: Sequence[CellResult]) -> Beside | None:
    """The same in every cell of a draw and run seed, so any of them tells."""
    found = estimate(values(marks_of(here, who)), resamples=spec.resamples)
    return None if found is None else Beside(who=who, size=size, accuracy=found)


def _mean(own: Sequence[CellResult], of: Callable[[CellResult], float]) -> float:
    return fmean(of(result) for result in own)
