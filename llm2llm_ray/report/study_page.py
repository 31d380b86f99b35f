"""A study as one page in the report's style: the answer first, then accuracies with their intervals, then what each method took.

The page has no script: its policy lets none run. Labels are the user's own, everything is escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from llm2llm_ray.report.answer import Gap
from llm2llm_ray.report.markup import environment, static
from llm2llm_ray.storage.files import Files
from llm2llm_ray.study.shown import sentences
from llm2llm_ray.study.statistics import Estimate
from llm2llm_ray.study.table import Line, StudyTable

NAME = "report.html"
_WHO = {"untrained": "untrained student", "teacher": "teacher itself"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the accuracy chart; `main` for methods, not for who stands beside them."""

    name: str
    about: str
    main: bool
    accuracy: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """All that is told of one seed size."""

    name: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    reach: float
    lines: tuple[Line, ...]


def render_study(found: StudyTable) -> str:
    """The page, encodable as UTF-8."""
    page = environment().get_template("study.html.j2").render(
        study=found,
        sizes=[_size(found, size) for size in dict.fromkeys(line.size for line in found.lines)],
        sentences=sentences(found),
        style=Markup(static("style.css")),
    )  # fmt: skip
    return page.encode("utf-8", "backslashreplace").decode()


def write_study_page(files: Files, found: StudyTable) -> str:
    """Into the study's folder; returns where it is. Writing it again replaces it."""
    files.replace(NAME, render_study(found).encode())
    return files.absolute(NAME)


def _size(found: StudyTable, size: int | None) -> Size:
    lines = tuple(line for line in found.lines if line.size == size)
    rows = [Row(name=line.label, about=line.about, main=True, accuracy=line.accuracy) for line in lines]
    beside = [one for one in found.beside if one.size == size]
    rows += [Row(name=_WHO[one.who], about="", main=False, accuracy=one.accuracy) for one in beside]
    differences = list(_differences(lines))
    most = max((max(abs(d.low), abs(d.high)) for *_, d in differences), default=0.0)
    reach = next(step for step in (0.05, 0.1, 0.2, 0.5, 1.0) if most <= step or step == 1.0)
    of = "of each class" if found.size_of == "task.seeds_per_class" else "in all"
    return Size(
        name="" if size is None else f"{size} seed rows {of}",
        rows=tuple(rows),
        gaps=tuple(_gap(name, note, difference, reach) for name, note, difference in differences),
        reach=reach,
        lines=lines,
    )


def _differences(lines: tuple[Line, ...]) -> Iterator[tuple[str, str, Estimate]]:
    for line in lines:
        if line.over_baseline is not None:
            yield f"{line.label} − matched baseline", "the seeds alone, the same number of updates", line.over_baseline
        if line.over_random is not None:
            yield f"{line.label} − random targets", "equally many rows for random seeds", line.over_random


def _gap(name: str, note: str, found: Estimate, reach: float) -> Gap:
    left, right, dot = (50 + 50 * part / reach for part in (found.low, found.high, found.value))
    return Gap(name=name, note=note, value=found.value, low=found.low, high=found.high, left=left, width=right - left, dot=dot)
