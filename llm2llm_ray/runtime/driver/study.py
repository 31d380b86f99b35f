"""The entrypoint's side of a study: its cells, one after the other, in one Ray session whose engines, training workers and asking
processes stay up between them.

Each cell is a run folder of its own below the study's, finished when its report stands; the same command runs the others. Cells
run one at a time: side by side, on clusters that hold several, is not built.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from llm2llm_ray.config import Config
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.runtime.connection import NAMESPACE, connect, device_of, driver_name
from llm2llm_ray.runtime.driver.following import Termination, followed, put_away
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.launch import config_path, prepare, report_json, wait_for_own_ray
from llm2llm_ray.runtime.driver.leftovers import sweep
from llm2llm_ray.runtime.driver.memory import MemoryWatch
from llm2llm_ray.runtime.driver.study_driver import StudyDriver
from llm2llm_ray.runtime.serving.engines import stop_engines
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.lease import run_lease
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.study.cells import CELLS, Cell, reference_of
from llm2llm_ray.study.plan import PlannedStudy
from llm2llm_ray.study.results import CellResult, result_of

Show = Callable[[dict[str, Any]], None]


def run_study(planned: PlannedStudy, show: Show) -> None:
    """Run every cell that is not finished. Raises UserError before anything expensive, Interrupted after a drain."""
    files = Files(planned.spec.path)
    watch = MemoryWatch(files)
    with run_lease(files.root), Termination() as told_to_stop, watch.explained():
        files.clear_scratch()
        session = _Session(planned, files, show, told_to_stop, watch)
        try:
            for number, cell in enumerate(planned.cells, start=1):
                session.run(cell, number)
            session.put_away()
        finally:
            session.end()


def finished(planned: PlannedStudy, cell: Cell) -> RunRecord | None:
    """The cell's run, where it is finished with the settings that it has now."""
    config = cell_as_it_is(planned, cell)
    if config is None or not any(Files(config.run_path).list("configs")):
        return None
    run = RunRecord.open(config.run_path)
    started = [event["config"] for event in run.events if event["event"] == "started"]
    return run if run.report is not None and started and started[-1] == config_path(config) else None


def results(planned: PlannedStudy) -> list[tuple[Cell, RunRecord, CellResult]]:
    """Of the finished cells, in their order."""
    runs = [(cell, run) for cell in planned.cells if (run := finished(planned, cell)) is not None]
    return [(cell, run, found) for cell, run in runs if (found := result_of(run, cell)) is not None]


def cell_as_it_is(planned: PlannedStudy, cell: Cell) -> Config | None:
    """The cell's config; None while its reference is not finished. Writes the file of its rows, where no model writes them."""
    rows = _rows_of_reference(planned, cell)
    if rows is None and reference_of(planned.spec, cell) is not None:
        return None
    if planned.spec.method(cell.label).given is None:
        return planned.config(cell, rows=rows)
    config = planned.config(cell, rows=rows)
    content = planned.given_rows(cell, config, None if rows is None else sum(rows))
    path = f"rows/{cell.name}-{fingerprint(content.decode())[:12]}.jsonl"
    files = Files(planned.spec.path)
    files.write_once(path, content)
    return planned.config(cell, rows=rows, given=files.absolute(path))


def _rows_of_reference(planned: PlannedStudy, cell: Cell) -> Sequence[int] | None:
    """New rows of each round of the cell whose number this one is held to."""
    reference = reference_of(planned.spec, cell)
    run = None if reference is None else finished(planned, reference)
    found = None if run is None or reference is None else result_of(run, reference)
    return None if found is None else found.accepted


@dataclass
class _Session:
    """Ray is started for the first cell that has something to do, and for none if there is none."""

    planned: PlannedStudy
    files: Files
    show: Show
    told_to_stop: Termination
    watch: MemoryWatch
    driver: Any = None
    ours: bool = False
    done: list[str] = field(default_factory=list)
    """Folders of the cells before, finished or not: what their stages came to can be taken."""

    def run(self, cell: Cell, number: int) -> None:
        own = f"{CELLS}/{cell.name}"
        if finished(self.planned, cell) is None:
            config = cell_as_it_is(self.planned, cell)
            assert config is not None, "cells stand behind those that they refer to"
            self._run(cell, config, f"cell {number}/{len(self.planned.cells)} {cell.name}")
        self.done.append(own)

    def _run(self, cell: Cell, config: Config, told: str) -> None:
        asked = time.time()
        files = Files(config.run_path)

        def show(status: dict[str, Any]) -> None:
            self.show({**status, "cell": told, "iterations": config.run.iterations})

        with run_lease(files.root):
            files.clear_scratch()
            prepared = prepare(config, self.planned.checked(config), files, show)
            removed = self._open(config)
            events, study = Events(files), Events(self.files)
            events.add(
                "started", pid=os.getpid(), removed=removed, ray=ray.__version__, config=config_path(config), asked=asked,
                address=ray.get_runtime_context().gcs_address, study=self.planned.spec.name,
            )  # fmt: skip
            if prepared["replies_told"]:
                events.add("recorded_replies", **prepared["replies_told"])
            study.add("cell_started", cell=cell.name)
            inputs = Inputs(**prepared, device=device_of(config.cluster), app=self._app)
            running = self.driver.run.remote(inputs, tuple(self.done))
            report = followed(self.driver, running, show, self.told_to_stop, self.watch)
            files.replace("report.json", report_json(report))
            events.add("finished")
            study.add("cell_finished", cell=cell.name, seconds=round(time.time() - asked, 1))

    @property
    def _app(self) -> str:
        return f"study-{self.planned.spec.name}"

    def _open(self, config: Config) -> dict[str, list[str]]:
        """What was left behind by a session that died and is gone now; nothing where the session is open."""
        if self.driver is not None:
            return {"apps": [], "processes": []}
        self.show({"stage": "starting Ray"})
        self.ours = connect(config.cluster)
        self.told_to_stop.listen()
        removed = sweep(self._app, self.files.root)
        events = Events(self.files)
        events.add("started", pid=os.getpid(), removed=removed, ray=ray.__version__)
        self.driver = (
            ray.remote(StudyDriver)
            .options(
                name=driver_name(self._app),
                namespace=NAMESPACE,
                num_cpus=0,
                max_restarts=3,
                max_task_retries=3,
                max_concurrency=8,
            )
            .remote(self.files.root, config, device_of(config.cluster), len(self.planned.cells))
        )
        return removed

    def put_away(self) -> None:
        if self.driver is not None:
            put_away(self.driver, self.files, self.told_to_stop)
            Events(self.files).add("finished")

    def end(self) -> None:
        if ray.is_initialized():
            with contextlib.suppress(RuntimeError):  # Serve was never started
                stop_engines(self._app)
            ray.shutdown()
            wait_for_own_ray(self.ours)
