"""How fast things went where they were measured: the one place for numbers that a plan's seconds come from, with their source.

Invariant: a number here was measured. For a device or a model size without one there are no rates, and no seconds are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.planning.model_size import parameters
from llm2llm_ray.timing.phases import ENGINES, REPORT, STARTING
from llm2llm_ray.timing.timeline import Activity, Flight, Timeline, timeline
from llm2llm_ray.timing.work import Update, Work

SAME_SIZE = 1.5
"""Rates hold for a model with at most this many times the parameters of the measured one, or as many times fewer."""
_PLAUSIBLE = 2.0
"""A prompt token and a generated one each cost at most this many times the mean, or as many times less: a fit through a few
noisy stages that says otherwise is noise."""
_NEWEST_RUNS = 3
"""Runs beside this one that are looked into: reading one takes a tenth of a second and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one engine while it answers. A request's seconds are prompt / prompt_tokens_per_s + generated / generated_tokens_per_s,
    summed over requests: many are in flight, so this is the engine's throughput, not a request's latency."""

    parameters: int
    prompt_tokens_per_s: float
    generated_tokens_per_s: float

    def seconds(self, prompt_tokens: float, generated_tokens: float) -> float:
        return prompt_tokens / self.prompt_tokens_per_s + generated_tokens / self.generated_tokens_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """One measurement of everything that takes time in a run. Seconds, and tokens per second."""

    source: str
    """Which run, when, on what."""
    device: str
    starting_s: float
    """Ray and the driver, from the `started` event."""
    engines_s: float
    train_start_s: float
    """From the beginning of a training to its first update: worker processes, imports, model, DeepSpeed; and by how much the
    first update takes longer than the others, since it touches all memory first."""
    update_s: float
    """Of each update, beside its tokens: the optimizer step."""
    train_tokens_per_s: float
    train_end_s: float
    """From the last update to the stage's end: export, sha of the weights."""
    pipeline_start_s: float
    """Of a round or exam, beside its requests: loading weights, Ray Data's actors, writing."""
    commit_s: float
    report_s: float
    student: Speed
    teacher: Speed | None
    """None when the teacher was not an engine of ours."""


_SMOLLM2 = Speed(parameters=134_515_008, prompt_tokens_per_s=491.3, generated_tokens_per_s=491.3)
KNOWN: tuple[Rates, ...] = (
    # `measured` on the run, rounded: in it prompt and generated tokens could not be told apart.
    Rates(
        source="measured on 2026-11-23 in one run of jobs/demo.yaml (SmolLM2-135M, float32) on 2 cores of an Intel Xeon "
        "with AVX-512 and without bfloat16 (model 207, 2.3 GHz), 24 GB, virtual; the start includes making the model's folder",
        device="cpu",
        starting_s=30.6,
        engines_s=46.8,
        train_start_s=5.3,
        update_s=0.86,
        train_tokens_per_s=209.3,
        train_end_s=1.7,
        pipeline_start_s=3.6,
        commit_s=0.05,
        report_s=4.2,
        student=_SMOLLM2,
        teacher=_SMOLLM2,
    ),
)


def rates_for(config: Config, device: str) -> Rates | None:
    """Measured in this run before, else in a run beside it with the same models, else a known measurement; else None."""
    for found in _measurements(config):
        if found.device == device:
            return found
    return known(config, device)


def known(config: Config, device: str) -> Rates | None:
    """The entry of KNOWN for this device and models of this size; full fine-tuning in KNOWN's precision only."""
    if config.student.method != "full" or config.student.precision == "bf16":
        return None
    for rates in KNOWN:
        served = config.teacher.kind == "serve"
        fits = not served or (rates.teacher is not None and _same_size(config.teacher.model, rates.teacher))
        if rates.device == device and fits and _same_size(config.student.model, rates.student):
            return rates
    return None


def voter_speed(config: Config, rates: Rates) -> Speed | None:
    """Of the engine that votes on new rows: the teacher's, or that of an engine with a model of the same size as the judge."""
    if config.judge_apart is None:
        return rates.teacher
    return next(
        (speed for speed in (rates.teacher, rates.student) if speed and _same_size(config.judge_apart.model, speed)), None
    )


def _same_size(model: str, speed: Speed) -> bool:
    count = parameters(model)
    return count is not None and 1 / SAME_SIZE <= count / speed.parameters <= SAME_SIZE


def _measurements(config: Config) -> Iterator[Rates]:
    """Of this run, then of the newest others in its folder that trained the same student and asked the same teacher."""
    if "://" in config.run.folder:
        return
    mine, looked = Path(config.run_path), 0
    for path in [mine, *_others(mine)]:
        if looked == _NEWEST_RUNS:
            return
        try:
            record = _alike(path, config)
            found = measured(record) if record is not None else None
        except (ValueError, KeyError, OSError):
            if path == mine:
                raise
            continue  # a damaged run of somebody's, or one that is being deleted
        looked += record is not None
        if found is not None:
            yield found


def _others(mine: Path) -> list[Path]:
    """The runs beside this one, the newest first."""
    found = []
    for path in mine.parent.glob("*"):
        with suppress(OSError):  # no run, or gone meanwhile
            found.append(((path / "events.jsonl").stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True) if path != mine]


def _alike(path: Path, config: Config) -> RunRecord | None:
    """The run kept there, where its measurements hold for this config."""
    try:
        record = RunRecord.open(str(path))
    except UserError:
        return None
    wanted = _models(config.model_dump(mode="json"))
    return record if _models(record.config) == wanted and record.stages else None


def _models(config: dict[str, dict[str, object]]) -> list[object]:
    student, teacher = config["student"], config["teacher"]
    return [
        student["model"], student["method"], student["precision"], student["workers"], teacher["kind"], teacher["model"],
        config["cluster"]["device"], config["cluster"]["threads"],
    ]  # fmt: skip


def measured(record: RunRecord) -> Rates | None:
    """Rates of a run that trained and evaluated at least once; None for one that did not."""
    found = timeline(record)
    trainings = [a for a in found.activities if a.phase.finished and a.updates]
    streams = [a for a in found.activities if a.phase.finished and a.timed and a.phase.name in ("round", "exam")]
    streams = [a for a in streams if a.student.requests or a.teacher.requests]
    student, teacher = _speeds(record, streams)
    if not trainings or student is None:
        return None
    updates = [Work(record).updates(a.phase.key or "") for a in trainings]
    update_s, per_token = _update_line(updates)
    first = median(u[0].ended - u[0].started - update_s - u[0].tokens * per_token for u in updates)
    return Rates(
        source=_source(record, found),
        device=_device(record),
        starting_s=_seconds(found, STARTING),
        engines_s=_seconds(found, ENGINES),
        train_start_s=median(a.first_work_s or 0.0 for a in trainings) + max(0.0, first),
        update_s=update_s,
        train_tokens_per_s=1 / per_token,
        train_end_s=median(a.last_work_s or 0.0 for a in trainings),
        pipeline_start_s=median((a.first_work_s or 0.0) + (a.last_work_s or 0.0) for a in streams),
        commit_s=_seconds(found, "commit"),
        report_s=_seconds(found, REPORT),
        student=student,
        teacher=teacher,
    )


def _seconds(found: Timeline, name: str) -> float:
    """Median of the finished phases of this name; 0 where none finished."""
    return median([a.phase.seconds for a in found.activities if a.phase.name == name and a.phase.finished] or [0.0])


def _update_line(trainings: Sequence[Sequence[Update]]) -> tuple[float, float]:
    """Seconds of an update and of a token in it: the least-squares line through all but each training's first update, or the
    mean per token where the line makes no sense."""
    later = [update for updates in trainings for update in updates[1:]] or [updates[0] for updates in trainings]
    points = [(float(update.tokens), update.ended - update.started) for update in later]
    tokens, seconds = sum(t for t, _ in points), sum(s for _, s in points)
    mean_t, mean_s = tokens / len(points), seconds / len(points)
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    slope = sum((t - mean_t) * (s - mean_s) for t, s in points) / spread if spread else 0.0
    offset = mean_s - slope * mean_t
    return (offset, slope) if slope > 0 and offset > 0 else (0.0, seconds / tokens)


def _speeds(record: RunRecord, streams: Sequence[Activity]) -> tuple[Speed | None, Speed | None]:
    """Of student and teacher; one for both where they are the same model. The teacher's exam is left out: nearly all of its
    prompts are the same worked examples, which the prefix cache computes once."""
    student = [a.student for a in streams if a.student.requests]
    teacher = [a.teacher for a in streams if a.phase.name == "round" and a.teacher.requests]
    config = record.config
    if config["teacher"]["kind"] != "serve":
        return _speed(record, str(config["student"]["model"]), student), None
    if config["teacher"]["model"] == config["student"]["model"]:
        both = _speed(record, str(config["student"]["model"]), [*student, *teacher])
        return both, both
    return _speed(record, str(config["student"]["model"]), student), _speed(record, str(config["teacher"]["model"]), teacher)


def _speed(record: RunRecord, model: str, flights: Iterable[Flight]) -> Speed | None:
    """Least squares of busy seconds over prompt and generated tokens; the mean for both where the two come out implausible."""
    points = [(float(f.prompt_tokens), float(f.generated_tokens), f.seconds) for f in flights if f.seconds and f.tokens]
    count = parameters(model) or _exported(record)
    if not points or count is None:
        return None
    mean = sum(p + g for p, g, _ in points) / sum(s for _, _, s in points)
    pp, gg, pg = (sum(p[i] * p[j] for p in points) for i, j in ((0, 0), (1, 1), (0, 1)))
    ps, gs = (sum(p[i] * p[2] for p in points) for i in (0, 1))
    determinant = pp * gg - pg * pg
    if determinant > 1e-3 * pp * gg:
        per_prompt, per_generated = (ps * gg - gs * pg) / determinant, (gs * pp - ps * pg) / determinant
        if all(1 / _PLAUSIBLE <= each * mean <= _PLAUSIBLE for each in (per_prompt, per_generated)):
            return Speed(parameters=count, prompt_tokens_per_s=1 / per_prompt, generated_tokens_per_s=1 / per_generated)
    return Speed(parameters=count, prompt_tokens_per_s=mean, generated_tokens_per_s=mean)


def _exported(record: RunRecord) -> int | None:
    """Parameters of the first student that lies in the run folder."""
    folders = [stage["result"]["path"] for stage in record.stages if stage["name"] == "train"]
    return parameters(record.files.absolute(folders[0])) if folders and "://" not in record.files.root else None


def _device(record: RunRecord) -> str:
    """What training ran on: Ray Train's backend is gloo on CPU and nccl on GPU."""
    for stage in record.stages:
        if stage["name"] == "train":
            return "gpu" if stage["result"]["metrics"]["engine_report"]["backend"] == "nccl" else "cpu"
    return "cpu"


def _source(record: RunRecord, found: Timeline) -> str:
    day = datetime.fromtimestamp(found.sessions[0][0], UTC).date().isoformat()
    return f"measured in {record.files.root} on {day}"
