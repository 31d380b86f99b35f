"""Near-duplicate search as the rows grow: build the index on disk, search, commit 2 % new candidates, grow by what they add.

    python -m benchmarks.similarity.dedup [--rows 10000 31600 100000 316000 1000000] [--json FILE] [--small]

Each size has a process of its own, which reads rows from a dataset version's Parquet parts, as a commit does. Seconds are
the process's CPU seconds (it has one thread), so that a busy machine does not bend the curve; the wall's stand beside
them. Up to --against rows the index that was there before (memory_index.py) does the same, and must decide the same.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring.measurement import Claim, Measurement, Rows
from benchmarks.similarity.memory_index import MemoryIndex
from benchmarks.similarity.question_texts import Questions
from llm2llm_ray.augmentation import similarity
from llm2llm_ray.augmentation.commit import Admitted, Candidate, CommitGates
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.row_index import Part, open_index
from llm2llm_ray.augmentation.similarity import AHEAD, NearDuplicates
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example, Lineage

ROWS = (10_000, 31_600, 100_000, 316_000, 1_000_000)
SHARE = 0.02
SETTINGS = AugmentationConfig()
STEPS = ("build", "open", "search", "held out", "commit", "grow")


class Clock:
    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[name], self.wall[name] = time.process_time() - cpu, time.perf_counter() - wall

    def told(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"cpu_s": self.cpu, "wall_s": self.wall, "peak_rss_gib": peak}


def make(questions: Questions, rows: int, store: VersionStore) -> None:
    store.commit(questions.rows(0, rows), parent=None, iteration=0, about={})


def measure(questions: Questions, rows: int, store: VersionStore, index_folder: Path) -> dict[str, Any]:
    clock, version = Clock(), store.find(0)
    assert version is not None
    threshold, label = SETTINGS.near_duplicate, "label"
    with clock.step("build"):
        open_index(index_folder, _parts(store, version), threshold, str, label)
    size = sum(path.stat().st_size for path in index_folder.rglob("*") if path.is_file())
    with clock.step("open"):
        index = open_index(index_folder, _parts(store, version), threshold, str, label)
    segments = [len(segment) for segment in index.segments()]
    candidates = _candidates(questions, rows)
    with clock.step("search"):
        found = search(index, [candidate.input for candidate in candidates])
    held_out = [Example(id=f"t-{k}", input=text, output="") for k, text in enumerate(questions.held_out())]
    for kept in (similarity._keys, similarity._text_bag):  # the search's texts: a commit's are new to it
        kept.cache_clear()
    with clock.step("held out"):  # the same at all sizes
        gates = CommitGates(index, HeldOut(held_out, SETTINGS.near_test), SETTINGS, str)
    with clock.step("commit"):
        verdicts = list(gates.admit(candidates))
    grown = store.commit((v.example for v in verdicts if isinstance(v, Admitted)), parent=version, iteration=1, about={})
    with clock.step("grow"):
        open_index(index_folder, _parts(store, grown), threshold, str, label)
    reasons = Counter("admitted" if isinstance(v, Admitted) else v.rejected.reason for v in verdicts)
    return {"candidates": len(candidates), "index_bytes": size, "segments": segments, "found": found,
            "verdicts": dict(sorted(reasons.items())), **clock.told()}  # fmt: skip


def search(index: NearDuplicates, texts: Sequence[str]) -> list[Any]:
    """As a commit does."""
    found = []
    for start in range(0, len(texts), AHEAD):
        index.look_ahead(texts[start : start + AHEAD])
        found += [index.find(text) for text in texts[start : start + AHEAD]]
    return found


def measure_before(questions: Questions, rows: int, store: VersionStore) -> dict[str, Any]:
    """The index in memory, which is built anew for each commit."""
    clock, version = Clock(), store.find(0)
    assert version is not None
    candidates = _candidates(questions, rows)
    with clock.step("build"):
        index = MemoryIndex(SETTINGS.near_duplicate)
        for row in store.rows(version):
            index.add(row.id, row.input)
    with clock.step("search"):
        found = [index.find(candidate.input) for candidate in candidates]
    return {"candidates": len(candidates), "found": found, **clock.told()}


def _parts(store: VersionStore, version: DatasetVersion) -> list[Part]:
    def part(path: str) -> Part:
        return Part(name=path.rpartition("/")[2], rows=lambda: store.rows(replace(version, parts=(path,))))

    return [part(path) for path in version.parts]


def _candidates(questions: Questions, rows: int) -> list[Candidate]:
    def candidate(row: Example) -> Candidate:
        line = Lineage(
            seed_id=row.id, parent_id=row.id, iteration=0, ordinal=0, attempt=0, wrong_answer="", prompt_sha="",
            teacher="", sampling_seed=0,
        )  # fmt: skip
        return Candidate(input=row.input, output=row.output, lineage=line, index=0)

    return [candidate(row) for row in questions.rows(rows, math.ceil(rows * SHARE), "c")]


def in_own_process(what: str, rows: int, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    out = work / f"{what}-{rows}.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.similarity.dedup",
        "--step",
        what,
        str(rows),
        str(work),
        str(out),
        "--data",
        str(given.data),
    ]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def run_step(given: argparse.Namespace) -> None:
    what, rows, work, out = given.step[0], int(given.step[1]), Path(given.step[2]), Path(given.step[3])
    questions = Questions(given.data)
    store = VersionStore(Files(str(work / f"rows-{rows}")))
    found: dict[str, Any] = {}
    if what == "make":
        make(questions, rows, store)
    elif what == "ours":
        found = measure(questions, rows, store, work / f"rows-{rows}" / "index")
    else:
        found = measure_before(questions, rows, store)
    out.write_text(json.dumps(found))


def exponent(rows: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms."""
    xs, ys = [math.log(n) for n in rows], [math.log(s) for s in seconds]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def measured(sizes: Sequence[int], ours: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], small: bool) -> Measurement:
    """`before` has the first sizes only."""
    steep = None if small else 1.15
    whole = [sum(run["cpu_s"][step] for step in ("build", "search", "commit")) for run in ours]
    pairs = [(a, b) for run, old in zip(ours, before, strict=False) for a, b in zip(run["found"], old["found"], strict=True)]
    equal = sum(a == b for a, b in pairs) / len(pairs) if pairs else None
    last = ours[-1]
    claims = [
        Claim(what="growth of build + search + commit", value=exponent(sizes, whole), unit="exponent", at_most=steep),
        Claim(
            what=f"growth of a search for {SHARE:.0%} of the rows", unit="exponent", at_most=steep,
            value=exponent(sizes, [run["cpu_s"]["search"] for run in ours]),
        ),
        Claim(what=f"peak memory at {sizes[-1]:,} rows", value=last["peak_rss_gib"], unit="GiB", at_most=4.0),
        Claim(what=f"commit of {last['candidates']:,} candidates", value=last["cpu_s"]["commit"], unit="CPU s",
              note="and {:.3g} s to add what they gave to the index".format(last["cpu_s"]["grow"])),
    ]  # fmt: skip
    if equal is not None:
        old, new = before[-1], ours[len(before) - 1]
        claims += [
            Claim(what="decisions equal to those of the index before", value=equal, unit="of 1", at_least=1.0,
                  note=f"{len(pairs):,} candidates, {sum(b is not None for _, b in pairs):,} of them found"),
            Claim(
                what=f"build + search at {sizes[len(before) - 1]:,} rows: the index before / this one", unit="x",
                value=sum(old["cpu_s"].values()) / (new["cpu_s"]["build"] + new["cpu_s"]["search"]),
            ),
            Claim(
                what=f"second commit at {sizes[len(before) - 1]:,} rows: the index before / this one", unit="x",
                value=sum(old["cpu_s"].values()) / (new["cpu_s"]["open"] + new["cpu_s"]["search"] + new["cpu_s"]["grow"]),
                note="search, with what makes the index ready: rebuilding against opening and growing",
            ),
        ]  # fmt: skip
    tables = [
        _table("the index on disk, CPU seconds", sizes, ours, STEPS),
        _table("the index before (memory, datasketch)", sizes[: len(before)], before, ("build", "search")),
    ]
    raw = [{key: value for key, value in run.items() if key != "found"} | {"rows": n} for n, run in zip(sizes, ours, strict=True)]
    raw_before = [{k: v for k, v in run.items() if k != "found"} | {"rows": n} for n, run in zip(sizes, before, strict=False)]
    return Measurement(
        benchmark="dedup", claims=claims, tables=tables[: 1 + bool(before)], raw={"ours": raw, "before": raw_before},
        settings={"rows": list(sizes), "share": SHARE, "near_duplicate": SETTINGS.near_duplicate,
                  "near_test": SETTINGS.near_test},
        small=small,
    )  # fmt: skip


def _table(title: str, sizes: Sequence[int], runs: Sequence[dict[str, Any]], steps: Sequence[str]) -> Rows:
    rows = [
        [n, run["candidates"], *(run["cpu_s"][step] for step in steps), sum(run["wall_s"][step] for step in steps),
         run["peak_rss_gib"], run.get("index_bytes", 0) / 2**20, len(run.get("segments", ()))]
        for n, run in zip(sizes, runs, strict=True)
    ]  # fmt: skip
    return Rows(title=title, columns=["rows", "candidates", *steps, "wall s", "peak GiB", "disk MiB", "segments"], rows=rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--against", type=int, default=100_000, help="the largest size at which the index before runs too")
    parser.add_argument("--data", type=Path, default=Path("/work/shared/data"), help="folder with trec/ and gsm8k/")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="2k and 8k rows: that all of it runs, and both indexes decide alike")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given)
        return 0
    sizes: Sequence[int] = (2000, 8000) if given.small else sorted(given.rows)
    ours, before = [], []
    with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
        work = Path(folder)
        for rows in sizes:
            in_own_process("make", rows, given, work)
            ours.append(in_own_process("ours", rows, given, work))
            if rows <= given.against:
                before.append(in_own_process("before", rows, given, work))
            print(f"{rows:,} rows: {ours[-1]['cpu_s']} {ours[-1]['verdicts']}", file=sys.stderr, flush=True)
    found = measured(sizes, ours, before, given.small)
    return found.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
