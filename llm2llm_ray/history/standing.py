"""Where a run stands: the stage it is in, how fast it goes, and its last sign of life. From storage alone, so also of a dead run.

Progress of a stage counts from its first start, speed from its last one; a stage that goes on repeats nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.history.progress import answered, trained
from llm2llm_ray.history.record import RunRecord, State
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.storage.training_log import TrainingLog, fold_label, log_stem
from llm2llm_ray.storage.versions import VersionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    state: State
    stage: str
    """train, fold, baseline, round, commit, exam; or starting, between stages, done."""
    iteration: int | None
    """Of the stage, from 0."""
    since: float | None
    """Unix seconds of the stage's last start."""
    progress: tuple[str, ...]
    """What is known of the work inside the stage. Example: ("update 12/18", "loss 0.412", "2.9 s each", "0:17 left")"""
    iterations_done: int
    iterations: int
    rows: int
    """In the newest dataset version."""
    seeds: int
    accuracy: Mapping[str, Any] | None
    """Of the kept student on the test set; None before the end."""
    last_sign: float | None
    """Unix seconds of the newest event, reply or training line."""


def standing(record: RunRecord, now: float | None = None) -> Standing:
    now = time.time() if now is None else now
    stage = _open_stage(record)
    progress, sign = _progress(record, stage, now) if stage else ((), None)
    seen = [event["time"] for event in record.events] + ([sign] if sign is not None else [])
    version_rows = {version.iteration: version.num_rows for version in record.versions()}
    return Standing(
        state=record.state,
        stage=str(stage["stage"]) if stage else _between(record),
        iteration=stage["iteration"] if stage else None,
        since=stage["time"] if stage else None,
        progress=progress,
        iterations_done=len(record.iterations),
        iterations=record.config["run"]["iterations"],
        rows=_newest_rows(record, version_rows),
        seeds=version_rows.get(0, 0),
        accuracy=record.exams["accuracy"].get("kept") if record.exams else None,
        last_sign=max(seen, default=None),
    )


def _newest_rows(record: RunRecord, by_iteration: Mapping[int, int]) -> int:
    """Of what the last finished iteration grew: other settings may have left versions of later iterations in the folder."""
    if record.iterations:
        last = record.iterations[-1]
        return int((last["grown"] or last["dataset"])["num_rows"])
    return by_iteration.get(0, 0)


def _since_start(record: RunRecord) -> Sequence[Mapping[str, Any]]:
    """The events of the last start."""
    starts = [index for index, event in enumerate(record.events) if event["event"] == "started"]
    return record.events[starts[-1] :] if starts else record.events


def _open_stage(record: RunRecord) -> Mapping[str, Any] | None:
    """The event of the stage that was started last and has no record."""
    recorded = {stage["key"] for stage in record.stages}
    event: Mapping[str, Any]
    for event in reversed(_since_start(record)):
        if event["event"] == "stage_started" and event["key"] not in recorded:
            return event
        if event["event"] in ("stage_finished", "finished"):
            return None
    return None


def _between(record: RunRecord) -> str:
    names = {event["event"] for event in _since_start(record)}
    if "finished" in names:
        return "done"
    return "between stages" if "engines_up" in names else "starting"


def _progress(record: RunRecord, stage: Mapping[str, Any], now: float) -> tuple[tuple[str, ...], float | None]:
    if stage["stage"] in ("train", "fold", "baseline"):
        return _training(record, stage)
    if stage["stage"] in ("round", "exam"):
        return _stream(record, stage, now)
    return (), None


def _training(record: RunRecord, stage: Mapping[str, Any]) -> tuple[tuple[str, ...], float | None]:
    labels = {"baseline": "baseline", "fold": fold_label(stage["iteration"], stage.get("fold", 0))}
    label = labels.get(stage["stage"], f"{stage['iteration']:03d}")
    lines = list(TrainingLog(record.files, log_stem(label, stage["key"])).read())
    line = next((line for line in reversed(lines) if "loss" in line), None)
    return (tuple(trained(line)), float(line["time"])) if line else (("no update yet",), None)


def _stream(record: RunRecord, stage: Mapping[str, Any], now: float) -> tuple[tuple[str, ...], float | None]:
    began = min(event["time"] for event in record.events if event.get("key") == stage["key"])
    until = now if record.state == "running" else None
    total = _rows_to_answer(record, stage)
    told: list[str] = []
    newest: float | None = None
    for role in ("student", "teacher", "judge"):
        times = _answered(record, role, began)
        if not times:
            continue
        newest = max(times.values()) if newest is None else max(newest, *times.values())
        recent = [t for t in times.values() if t >= stage["time"]]
        speed = len(recent) / max((until or newest) - stage["time"], 1e-9)
        told.append(answered(role, len(times), total if role == "student" else None, speed))
    return tuple(told) or ("no answer yet",), newest


def _answered(record: RunRecord, role: str, began: float) -> dict[str, float]:
    """Row -> when its newest reply was stored, of the replies since `began`."""
    folders = {path.split("/")[1] for path in record.files.list("replies")}
    found: dict[str, float] = {}
    for folder in sorted(name for name in folders if name.startswith(f"{role}-")):
        if _touched_since(record, f"replies/{folder}", began):
            for item in read_replies(record.files, f"replies/{folder}"):
                if item["time"] >= began:
                    row = str(item.get("request", {}).get("row_id", item["key"]))
                    found[row] = max(item["time"], found.get(row, 0.0))
    return found


def _touched_since(record: RunRecord, folder: str, then: float) -> bool:
    """A folder that nobody wrote into since then need not be read; where files have no times here, it is read."""
    root = record.files.local_root
    return root is None or any((root / path).stat().st_mtime >= then for path in record.files.list(folder))


def _rows_to_answer(record: RunRecord, stage: Mapping[str, Any]) -> int | None:
    config = record.config
    if stage["stage"] == "exam":
        folder = "inputs/test"
    elif config["evaluation"]["error_source"] == "dev":
        folder = "inputs/dev"
    elif config["augmentation"]["augment_augmented"]:
        return None
    else:
        folder = "versions"
    found = [version.num_rows for version in VersionStore(record.files, folder).all() if version.iteration == 0]
    return found[-1] if found else None
