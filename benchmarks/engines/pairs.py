"""Our engines beside bare vLLM, for evaluation.py and teacher.py: the same requests, in turns, both warm, both caches empty.

Ours goes the way of a run: rows of a dataset version -> `drain` of the stream that `Parts` builds -> Ray Data, Asker, Serve, vLLM
-> a fresh reply store. The requests are told by the very roles that ask them, and the baseline gets their token ids. Both engines
stay up; the one that waits sleeps, and its processor seconds are told.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import ray

from benchmarks.engines.bare_vllm import BareVLLM
from benchmarks.engines.our_engine import Ours, request_name
from benchmarks.measuring.environment import REPOSITORY, stolen_seconds
from benchmarks.measuring.process_use import ProcessUse
from llm2llm_ray.config import Config
from llm2llm_ray.preflight import Checked, check
from llm2llm_ray.runtime.connection import connect, device_of
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.launch import prepare
from llm2llm_ray.runtime.serving.engines import stop_engines
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies

_WARM_UP_ROWS = 64
_GROUPS = (
    ("VLLM::EngineCore", "engine core"),
    ("VLLM::Worker", "engine worker (the model)"),
    ("ray::ServeReplica", "replica (vLLM's client)"),
    ("ray::Asker", "askers"),
    ("ray::MapWorker", "Ray Data: Ask"),
    ("ray::Ours", "driver (Ray Data's executor)"),
    ("ray::ServeController|ray::Proxy", "Serve's controller"),
    ("ray::", "Ray's other workers"),
    ("raylet/raylet |gcs_server", "raylet and GCS"),
    ("agent|dashboard|log_monitor", "Ray's agents and logs"),
)
_THREADS = re.compile("OMP_|KMP_|MKL_|VLLM_CPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One timed pass of one side; times are Unix seconds."""

    side: Literal["ours", "bare"]
    first: float
    """First submission."""
    last: float
    """Last answer."""
    answers: Mapping[str, Sequence[Any]]
    """Request -> text, prompt tokens, generated tokens."""
    cpu: Mapping[str, float]
    """Processor seconds between the two, by group."""
    stolen: float | None
    more: Mapping[str, float]

    @property
    def seconds(self) -> float:
        return self.last - self.first

    @property
    def prompt_tokens(self) -> int:
        return sum(prompt for _, prompt, _ in self.answers.values())

    @property
    def generated(self) -> int:
        return sum(tokens for _, _, tokens in self.answers.values())

    @property
    def rate(self) -> float:
        """Generated tokens per second: the same as answers per second while both sides generate the same tokens."""
        return self.generated / self.seconds


class Pairs:
    """Both sides, up and warm. `base_dir`: where the config's relative paths begin."""

    def __init__(
        self, role: Literal["student", "teacher"], config: Config, base_dir: Path, work: Path, bare_in_flight: int | None
    ) -> None:
        self._config, self._work, self._bare_in_flight = config, work, bare_in_flight
        self._checked = check(config, base_dir)
        self._passes = 0
        self._ours = ray.remote(Ours).options(num_cpus=0, max_concurrency=8).remote(role, self._inputs(self._checked))
        arguments = ray.get(self._ours.arguments.remote())
        self._bare = BareVLLM(arguments, work / "bare_vllm.log")
        try:
            if device_of(config.cluster) == "gpu":  # engines that share a GPU measure its free memory when they start
                self._bare.wait_until_ready()
            replicas = ray.get(self._ours.start.remote())
            if device_of(config.cluster) == "cpu":
                self._bare.wait_until_ready()
            told = {name: value for name, value in arguments.kwargs.items() if name != "model"}  # a path of this machine
            self.engine = {"arguments": told, "environment": self._environments(replicas[0]["pid"])}
            splits = self._checked.splits
            few = replace(splits, seed=splits.seed[:_WARM_UP_ROWS], test=splits.test[:_WARM_UP_ROWS])
            warm_up = self._inputs(replace(self._checked, splits=few))
            self._bare_pass(self._asks(warm_up)[1], None)
            ray.get(self._ours.drain.remote(warm_up))
        except BaseException:
            self._bare.close()
            raise

    def run(self, pairs: int, tell: Callable[[Pass], None]) -> list[tuple[Pass, Pass]]:
        found = []
        with ProcessUse(self._group) as processes:
            for _ in range(pairs):
                ours = self._ours_pass(processes)
                bare = self._bare_pass(self._asks(self._inputs(self._checked))[1], processes)
                _same_requests(ours, bare)
                tell(ours)
                tell(bare)
                found.append((ours, bare))
        return found

    def close(self) -> None:
        self._bare.close()
        stop_engines(self._config.run.name)

    def _inputs(self, checked: Checked) -> Inputs:
        """Of a run folder in which nothing was ever asked."""
        self._passes += 1
        files = Files(str(self._work / f"run-{self._passes}"))
        return Inputs(**prepare(self._config, checked, files), device=device_of(self._config.cluster))

    def _asks(self, inputs: Inputs) -> tuple[str, list[dict[str, Any]]]:
        found: tuple[str, list[dict[str, Any]]] = ray.get(self._ours.asks.remote(inputs))
        return found

    def _ours_pass(self, processes: ProcessUse) -> Pass:
        inputs = self._inputs(self._checked)
        folder, questions = self._asks(inputs)
        stolen = stolen_seconds()
        began, ended = ray.get(self._ours.drain.remote(inputs))
        stolen = _since(stolen)
        records = list(read_replies(Files(inputs.run_root), folder))
        failed = [record["reply"]["error"] for record in records if record["reply"]["error"]]
        if failed or len(records) != len(questions):
            raise SystemExit(f"ours: {len(records)} of {len(questions)} requests answered, {len(failed)} errors: {failed[:1]}")
        sent = [(record["request"]["sent"], record["request"]["seconds"]) for record in records]
        first, last = min(start for start, _ in sent), max(start + took for start, took in sent)
        answers = {
            request_name(record["request"]): [
                record["reply"]["text"], record["reply"]["prompt_tokens"], record["reply"]["completion_tokens"]
            ]
            for record in records
        }  # fmt: skip
        time.sleep(1.5)  # for the next look at the processes
        more = {
            "pipeline_start_s": first - began,
            "drain_s": ended - began,
            "stored_s": max(record["time"] for record in records) - first,
            "mean_in_flight": sum(took for _, took in sent) / (last - first),
        }
        used = processes.cpu_s_between(first, last)
        return Pass(side="ours", first=first, last=last, answers=answers, cpu=used, stolen=stolen, more=more)

    def _bare_pass(self, questions: Sequence[Mapping[str, Any]], processes: ProcessUse | None) -> Pass:
        stolen = stolen_seconds()
        found = self._bare.answer(questions, self._bare_in_flight)
        stolen = _since(stolen)
        time.sleep(1.5)
        used = {} if processes is None else processes.cpu_s_between(found["first"], found["last"])
        return Pass(side="bare", **found, cpu=used, stolen=stolen, more={})

    def _group(self, command: Sequence[str], line: frozenset[int]) -> str:
        if self._bare.pid not in line and len(line) == 1:
            return "the benchmark itself"
        side, title = "bare" if self._bare.pid in line else "ours", " ".join(command)
        name = next((name for pattern, name in _GROUPS if re.search(pattern, title)), "client" if side == "bare" else "others")
        return f"{side}: {name}"

    def _environments(self, replica: int) -> dict[str, str]:
        """The thread settings that the engines' processes were started with, which must agree.

        A process that names itself writes its title over the record of its environment, so the nearest legible one is taken.
        """
        found = []
        for above in (replica, self._bare.pid):
            root = psutil.Process(above)
            records = [process.environ() for process in (*root.children(recursive=True)[::-1], root)]
            legible = next((record for record in records if "VLLM_CPU_OMP_THREADS_BIND" in record), {})
            found.append({name: value for name, value in legible.items() if _THREADS.match(name)})
        if found[0] != found[1]:
            raise SystemExit(f"the engines' environments differ: ours {found[0]}, bare {found[1]}")
        return found[0]


def _since(stolen: float | None) -> float | None:
    now = stolen_seconds()
    return None if now is None or stolen is None else round(now - stolen, 2)


def _same_requests(ours: Pass, bare: Pass) -> None:
    if {name: answer[1] for name, answer in ours.answers.items()} != {name: answer[1] for name, answer in bare.answers.items()}:
        raise SystemExit("the two sides were not asked the same: prompt lengths differ")


@contextmanager
def own_ray(config: Config) -> Iterator[None]:
    """As `llm2llm run` starts it. Actors find our modules by PYTHONPATH."""
    connect(config.cluster, env={"PYTHONPATH": str(REPOSITORY)})
    try:
        yield
    finally:
        ray.shutdown()
