"""The entrypoint's side of a run: check, connect, sweep, launch the driver, show progress, release.

Owns the driver actor, so the end of this process is the end of the run on the cluster. SIGTERM and Ctrl-C drain: what is in
flight is stored, this run's applications are deleted, and the same command later goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ray
from transformers import AutoTokenizer

from llm2llm_ray.asking.scripted import script_sha
from llm2llm_ray.config import Config, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.preflight import Checked
from llm2llm_ray.runtime.connection import NAMESPACE, connect, device_of, driver_name
from llm2llm_ray.runtime.driver.driver import Driver
from llm2llm_ray.runtime.driver.following import Termination, followed, put_away
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.leftovers import sweep
from llm2llm_ray.runtime.driver.memory import MemoryWatch
from llm2llm_ray.runtime.driver.recorded_replies import given_replies
from llm2llm_ray.runtime.models.folders import model_sha, resolve_model
from llm2llm_ray.runtime.models.prompt_lengths import check_lengths
from llm2llm_ray.runtime.serving.engines import stop_engines
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.lease import run_lease
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example


def launch(config: Config, checked: Checked, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run to the end and return the report. Raises UserError before anything expensive, Interrupted after a drain."""
    asked = time.time()
    files = Files(config.run_path)
    watch = MemoryWatch(files)
    with run_lease(files.root), Termination() as told_to_stop, watch.explained():
        files.clear_scratch()
        inputs = prepare(config, checked, files, show)
        show({"stage": "starting Ray"})
        ours = connect(config.cluster)
        told_to_stop.listen()
        try:
            removed = sweep(config.run.name, inputs["run_root"])
            events = Events(files)
            address = ray.get_runtime_context().gcs_address
            events.add(
                "started",
                pid=os.getpid(),
                removed=removed,
                ray=ray.__version__,
                config=config_path(config),
                address=address,
                asked=asked,
            )
            if inputs["replies_told"]:
                events.add("recorded_replies", **inputs["replies_told"])
            driver, report = _drive(config, Inputs(**inputs, device=device_of(config.cluster)), show, told_to_stop, watch)
            files.replace("report.json", report_json(report))
            events.add("finished")
            put_away(driver, files, told_to_stop)
            return report
        finally:
            if ray.is_initialized():
                with contextlib.suppress(RuntimeError):  # Serve was never started
                    stop_engines(config.run.name)
                ray.shutdown()
                wait_for_own_ray(ours)


def prepare(
    config: Config, checked: Checked, files: Files, show: Callable[[dict[str, Any]], None] = lambda status: None
) -> dict[str, Any]:
    """Resolve models, and put the rows and the resolved config into the run folder; `Inputs` less device."""
    models = {"stage": "models", "since": time.time()}
    show(models)

    def tell(doing: str) -> None:  # a first download or conversion takes minutes
        show(models | {"doing": doing})

    student = resolve_model(config.student.model, tell)
    folders = {config.student.model: student}
    given = given_replies(config.teacher, files)
    if config.teacher.kind == "recorded":
        assert given is not None
        teacher, teacher_sha = given.path, given.about.sha
    else:
        teacher, teacher_sha = _asked_model(config.teacher, folders, tell)
    judge, judge_sha = _asked_model(config.judge_apart, folders, tell) if config.judge_apart else ("", "")
    check_lengths(
        config,
        checked,
        student=AutoTokenizer.from_pretrained(student),
        teacher=AutoTokenizer.from_pretrained(teacher) if config.teacher.kind == "serve" else None,
        voter=AutoTokenizer.from_pretrained(judge or teacher) if config.voter.kind == "serve" else None,
    )
    resolved = config.model_dump_json(indent=1).encode()
    files.write_once(config_path(config), resolved)
    splits, recorded = checked.splits, config.evaluation.recorded_answers
    about = {"rows": dict(splits.counts), "notices": list(splits.notices)}
    seeds = VersionStore(files).commit(splits.seed, parent=None, iteration=0, about=about)
    return {
        "config": config,
        "task": checked.task,
        "run_root": files.root,
        "student_model": student,
        "student_sha": model_sha(student),
        "teacher_model": teacher,
        "teacher_sha": teacher_sha,
        "judge_model": judge,
        "judge_sha": judge_sha,
        "replies_path": given.path if given and config.teacher.replies else "",
        "replies_sha": given.about.sha if given and config.teacher.replies else "",
        "replies_told": asdict(given.about) if given else {},
        "recorded_sha": script_sha(recorded) if recorded else "",
        "seeds": seeds,
        "folds": checked.folds,
        "dev": _held_out(files, "dev", splits.dev),
        "test": _held_out(files, "test", splits.test),
    }


def _asked_model(asked: TeacherConfig, folders: dict[str, str], tell: Callable[[str], None]) -> tuple[str, str]:
    """Where a teacher or judge lies, or what it is called, and its sha. `folders`: of models resolved before; adds its own."""
    if asked.kind != "serve":
        return asked.model, script_sha(asked.model) if asked.kind in ("scripted", "rows") else ""
    if asked.model not in folders:
        folders[asked.model] = resolve_model(asked.model, tell)
    return folders[asked.model], model_sha(folders[asked.model])


def config_path(config: Config) -> str:
    """Where a run keeps the resolved config of this start."""
    return f"configs/{fingerprint(config.model_dump(mode='json'))[:12]}.json"


def _held_out(files: Files, name: str, rows: list[Example]) -> DatasetVersion | None:
    if not rows:
        return None
    return VersionStore(files, f"inputs/{name}").commit(rows, parent=None, iteration=0, about={"what": name})


def _drive(
    config: Config, inputs: Inputs, show: Callable[[dict[str, Any]], None], told_to_stop: Callable[[], bool], watch: MemoryWatch
) -> tuple[Any, dict[str, Any]]:
    """The driver, which has more to do, and its report."""
    name = driver_name(config.run.name)
    try:
        ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        pass
    else:
        raise UserError(f"run {config.run.name}: another driver of this run is alive on this cluster; stop it or wait for it")
    driver = (
        ray.remote(Driver)
        .options(name=name, namespace=NAMESPACE, num_cpus=0, max_restarts=3, max_task_retries=3, max_concurrency=8)
        .remote(inputs)
    )
    return driver, followed(driver, driver.run.remote(), show, told_to_stop, watch)


def wait_for_own_ray(ours: bool) -> None:
    if ours:
        time.sleep(0.5)  # raylet and GCS are our children: give them a moment to end before the process does


def report_json(report: dict[str, Any]) -> bytes:
    import json

    return json.dumps(report, indent=1, default=str).encode()
