"""benchmarks/RESULTS.md from the files in benchmarks/results/, and from nothing else: the same files give the same page.

    python -m benchmarks.measuring.results_page            writes it
    python -m benchmarks.measuring.results_page --check    exit code 1 when it is not what the files give

Files are NAME_DATE.json; of those with one NAME the newest is shown whole, the others in a line each. Exit code 2 when a file
cannot be shown.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from itertools import groupby
from pathlib import Path

from benchmarks.measuring.measurement import Claim, Rows, claim_line, told
from benchmarks.measuring.result_file import Environment, Result, read_result
from llm2llm_ray.errors import UserError
from llm2llm_ray.export.markdown import escaped, table

FOLDER = Path(__file__).parents[1]
_HEAD = (
    "# Results", "",
    "Made by `python -m benchmarks.measuring.results_page` from the files in [results/](results/); not to be edited. "
    "[README.md](README.md) says what each benchmark measures and how.", "",
)  # fmt: skip


def results(folder: Path) -> list[Result]:
    """All kept results; UserError naming every file that cannot be shown."""
    found, wrong = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_result(path))
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
    return found


def page(found: Iterable[Result]) -> str:
    by_series = sorted(found, key=lambda result: (result.series, result.environment.date, result.file))
    series = {name: list(group)[::-1] for name, group in groupby(by_series, key=lambda result: result.series)}
    lines = [*_HEAD, *_overview([newest for newest, *_ in series.values()])]
    for name, (newest, *older) in series.items():
        lines += [f"## {escaped(name)}", "", *_whole(newest)]
        if older:
            lines += ["Before:", "", *(f"- {_line(result)}" for result in older), ""]
    return "\n".join(lines).rstrip() + "\n"


def _overview(newest: Sequence[Result]) -> list[str]:
    rows = [(escaped(result.series), *_claim_cells(claim)) for result in newest for claim in result.claims]
    return [*table(("result", *_CLAIM_COLUMNS), rows), ""] if rows else []


def _whole(result: Result) -> Iterator[str]:
    environment = result.environment
    yield f"{_when(environment)}, commit {escaped(environment.commit or 'unknown')}, {_file(result)}. {_hardware(environment)}."
    yield f"Python {escaped(environment.python)}, {escaped(environment.os)}; {_versions(environment)}."
    if result.settings:
        settings = (f"{escaped(name)} = {escaped(_setting(value))}" for name, value in result.settings.items())
        yield f"Settings: {', '.join(settings)}."
    yield from ("", *code(result.command), "")
    if result.claims:
        yield from (*table(_CLAIM_COLUMNS, [_claim_cells(claim) for claim in result.claims]), "")
    for rows in result.tables:
        yield from _table(rows)


def _line(result: Result) -> str:
    said = [claim_line(claim) for claim in result.claims] or [rows.title for rows in result.tables]
    where = f"{_when(result.environment)}, commit {escaped(result.environment.commit or 'unknown')}, {_file(result)}"
    return f"{where}, {_hardware(result.environment)}: {'; '.join(map(escaped, said))}"


def _table(rows: Rows) -> Iterator[str]:
    yield from (f"**{escaped(rows.title)}**", "") if rows.title else ()
    cells = ([escaped(told(value)) for value in row] for row in rows.rows)
    yield from (*table([escaped(column) for column in rows.columns], cells), "")


_CLAIM_COLUMNS = ("what", "measured", "asked", "met", "note")


def _claim_cells(claim: Claim) -> tuple[str, ...]:
    asked = [f"{word} {told(bound)}" for word, bound in (("≥", claim.at_least), ("≤", claim.at_most)) if bound is not None]
    met = {True: "yes", False: "**no**", None: ""}[claim.met]
    measured = f"{told(claim.value)} {claim.unit}".strip()
    return escaped(claim.what), escaped(measured), ", ".join(asked), met, escaped(claim.note)


def _when(environment: Environment) -> str:
    return f"{environment.date.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _file(result: Result) -> str:
    """The name is ours to choose, but a space or a bracket in it would end the link."""
    target = "".join(
        char if re.match(r"[\w.-]", char, re.ASCII) else f"%{char.encode().hex('%').upper()}" for char in result.file
    )
    return f"[{escaped(result.file)}](results/{target})"


def _hardware(environment: Environment) -> str:
    more = (f", {escaped(name)} {escaped(_setting(value))}" for name, value in (environment.model_extra or {}).items() if value)
    cores = f"{environment.cores} core{'s' if environment.cores != 1 else ''}"
    return f"{escaped(environment.cpu)}, {cores}, {environment.ram_gib:g} GiB{''.join(more)}"


def _versions(environment: Environment) -> str:
    return ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in environment.versions.items())


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def code(text: str) -> list[str]:
    """A fenced block that `text` cannot end; what is not to be seen becomes U+FFFD."""
    seen = "".join("\ufffd" if char != "\n" and unicodedata.category(char) in ("Cc", "Cf") else char for char in text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", seen)), default=0))
    return [f"{fence}sh", *seen.split("\n"), fence]


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 when the page is not what the files give"
    )
    given = parser.parse_args(arguments)
    place = folder / "RESULTS.md"
    try:
        made = page(results(folder / "results"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not given.check:
        place.write_text(made, encoding="utf-8")
        return 0
    if place.exists() and place.read_text(encoding="utf-8") == made:
        return 0
    print(
        f"{place} is not what the files in {folder / 'results'} give; run `python -m benchmarks.measuring.results_page`",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
