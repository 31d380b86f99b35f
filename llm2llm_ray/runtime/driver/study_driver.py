"""The driver actor of a study: one run after another through the same engines, training workers and asking processes.

Owned by the entrypoint, as a run's driver is. Restarted it starts nothing that still runs, and goes on with the run it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llm2llm_ray.config import Config
from llm2llm_ray.machine import Device
from llm2llm_ray.runtime.driver.driver import Driver
from llm2llm_ray.runtime.driver.evidence import collect
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.resident import Resident
from llm2llm_ray.runtime.priority import stands
from llm2llm_ray.runtime.serving.run_engines import RunEngines
from llm2llm_ray.runtime.training.workers import TrainingWorkers
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events


class StudyDriver:
    """`config`: of any of the runs, for what all have in common. `runs`: how many there are to be."""

    def __init__(self, root: str, config: Config, device: Device, runs: int) -> None:
        files = Files(root)
        self._files, self._events = files, Events(files)
        engines = RunEngines([], config.cluster, device=device, run_folder=files.root, on_up=self._up)
        workers = TrainingWorkers(config, files, device, runs=runs)
        self._resident = Resident(around=files, engines=engines, workers=workers)
        self._run: Driver | None = None

    def run(self, inputs: Inputs, siblings: Sequence[str]) -> dict[str, Any]:
        """The report of one run; see `Driver.run`. `siblings`: folders of the runs before it."""
        self._run = Driver(inputs, replace(self._resident, siblings=siblings))
        return self._run.run()

    def put_away(self) -> None:
        """No more runs: let the training workers go, and collect the evidence of what ran."""
        collect(self._files, self._resident.engines.specs)
        self._resident.workers.close()

    def expect(self, stream: str, rows: int) -> None:
        if self._run is not None:
            self._run.expect(stream, rows)

    def advance(self, stream: str, role: str, rows: int) -> bool:
        return self._run is not None and self._run.advance(stream, role, rows)

    def status(self) -> dict[str, Any]:
        return {"stage": "starting"} if self._run is None else self._run.status()

    def stop(self) -> bool:
        return self._run is not None and self._run.stop()

    def _up(self, seconds: float, replicas: list[dict[str, Any]]) -> None:
        stands()
        roles = sorted({str(replica["role"]) for replica in replicas})
        self._events.add("engines_up", roles=roles, seconds=round(seconds, 1), replicas=replicas)
