"""The engines of one run, or of a study's runs: started once, beside the first training where the two share no cores, scaled
while they serve.

Invariant: `ready` returns only when every engine answers; whoever asks an engine calls it first. Nothing starts an engine later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from llm2llm_ray.config import ClusterConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.serving.engines import EngineSpec, identities, scale_engine, start_engines


class RunEngines:
    """`on_up` is called once for each start with the seconds that it took and the identities of its replicas, before `ready`
    returns."""

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        cluster: ClusterConfig,
        *,
        device: str,
        run_folder: str,
        on_up: Callable[[float, list[dict[str, Any]]], None],
    ) -> None:
        self.specs = list(specs)
        self.seconds = 0.0
        self._cluster, self._device, self._run_folder, self._on_up = cluster, device, run_folder, on_up
        self._started: Future[None] | None = None

    def start(self) -> None:
        """Returns at once where training goes on elsewhere meanwhile (GPUs of its own, or nodes of its own by label), else when
        the engines are up: on cores that both share, a training would only slow them, and be slowed."""
        self._begin(self.specs)

    def also(self, specs: Sequence[EngineSpec]) -> None:
        """Start those of `specs` that are not among the engines yet, and return as `start` does; the others stay as they are."""
        there = {spec.app for spec in self.specs}
        fresh = [spec for spec in specs if spec.app not in there]
        self.specs += fresh
        if fresh:
            self._begin(fresh)

    def _begin(self, specs: Sequence[EngineSpec]) -> None:
        before = self._started
        self._started = ThreadPoolExecutor(1, thread_name_prefix="engines").submit(self._start, specs, before)
        apart = bool(self._cluster.labels) or self._device == "gpu"
        if self._cluster.share_gpu or not apart:
            self.ready()

    def ready(self) -> None:
        if self._started is not None:
            self._started.result()

    def _start(self, specs: Sequence[EngineSpec], before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        began = time.time()
        start_engines(specs, self._cluster, device=self._device, run_folder=self._run_folder)
        self.seconds += time.time() - began
        self._on_up(time.time() - began, [{"role": spec.role, **replica} for spec in specs for replica in identities(spec.app)])

    def scale(self, role: str, replicas: int) -> tuple[int, list[dict[str, Any]]]:
        """Bring a running engine to so many replicas (with autoscaling: at least); the number before, and who serves now."""
        spec = next((spec for spec in self.specs if spec.role == role), None)
        if spec is None or self._started is None or not self._started.done():
            raise UserError("the engines of this run are not up yet; try again in a moment")
        before, most = spec.engine.replicas, spec.engine.max_replicas
        wanted = spec.engine.model_copy(update={"replicas": replicas, "max_replicas": most and max(most, replicas)})
        scaled = replace(spec, engine=wanted)
        scale_engine(scaled, self._cluster, device=self._device, run_folder=self._run_folder)
        self.specs = [scaled if s.role == role else s for s in self.specs]
        return before, identities(spec.app)
