"""One training of updates.py: its seeds and test rows, its updates as the training worker does them, and the looks in between."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.measuring.environment import REPOSITORY
from benchmarks.training.label_scores import labels_given
from benchmarks.training.trajectories import Trajectory
from llm2llm_ray.config import StudentConfig, TaskConfig
from llm2llm_ray.config.file import load_config
from llm2llm_ray.runtime.models.tokens import encode_prompt, encode_rows
from llm2llm_ray.runtime.training import batching
from llm2llm_ray.runtime.training.engine import Progress, release_memory, start_engine
from llm2llm_ray.runtime.training.packed_attention import packs, use_packing
from llm2llm_ray.runtime.training.update import NotFinite, Training, run_update
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.splits import load_splits
from llm2llm_ray.types import Example

JOBS = {"support": "demo", "trec": "trec_smollm2", "sst2": "sst2_smollm2"}
"""Task -> the job in jobs/ whose task section it is."""
SEEDS_PER_CLASS = {"support": 4, "trec": 6, "sst2": 10}
"""32, 36 and 20 seeds."""
BATCH, MAX_LENGTH = 8, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    folder: str
    """Of the model that students start from."""
    data: Path
    """Folder with trec/ and sst2/."""
    out: Path
    """For files of our own."""
    device: torch.device


def run(one: Trajectory, place: Place, say: Callable[[str], None]) -> dict[str, Any]:
    """Train it, and return its line. `say` is told every look."""
    began = time.monotonic()
    task, seeds, test = rows_of(one.task, one.draw, one.test_rows, place.data, place.out)
    training, exam, skipped = prepared(one, place, task, seeds, test)
    looks: list[dict[str, Any]] = []
    not_finite = None
    seconds = cpu = look_seconds = 0.0
    batches = batching.global_batches(len(training.rows), BATCH, one.draw)
    for number, batch in enumerate(itertools.islice(batches, one.total)):
        wall, used = time.monotonic(), time.process_time()
        try:
            loss = update(training, number, batch)
        except NotFinite as what:
            not_finite = f"update {number + 1}: {what}"
            break
        seconds, cpu = seconds + time.monotonic() - wall, cpu + time.process_time() - used
        if number + 1 in one.looks:
            wall = time.monotonic()
            look = exam.look(training)
            look_seconds += time.monotonic() - wall
            timing = {"batch_loss": loss, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
            looks.append({"updates": number + 1, **look, **timing})
            say(f"  after {number + 1}: {json.dumps(looks[-1])}, looks {look_seconds:.1f} s")
    n_seeds = len(training.rows)
    del training
    release_memory()
    return {
        "trajectory": asdict(one), "seeds": n_seeds, "skipped_too_long": skipped, "test": len(test), "looks": looks,
        "not_finite": not_finite, "look_seconds": round(look_seconds, 1), "seconds": round(time.monotonic() - began, 1),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def prepared(
    one: Trajectory, place: Place, task: Classification, seeds: Sequence[Example], test: Sequence[Example]
) -> tuple[Training, Exam, int]:
    """The training before its first update, its exam, and how many seeds are too long for it."""
    tokenizer = AutoTokenizer.from_pretrained(place.folder)
    pairs = [(task.student_prompt(row.input), task.completion(row.output)) for row in seeds]
    rows, skipped = encode_rows(tokenizer, pairs, MAX_LENGTH)
    settings: dict[str, Any] = {
        "model": one.model, "method": one.method, "learning_rate": one.rate, "schedule": one.schedule, "updates": one.total,
        "global_batch_size": BATCH, "micro_batch_size": BATCH, "max_length": MAX_LENGTH, "seed": one.draw,
    }  # fmt: skip
    student = StudentConfig(**settings)
    engine = start_engine(place.folder, student, device="cpu", workers=1, micro=BATCH)
    if reason := use_packing(engine, max(len(row.ids) for row in rows)):
        raise SystemExit(f"not packed: {reason}")
    training = Training(
        student=student, engine=engine, rows=rows, pad_id=0, micro=BATCH, rank=0, workers=1, device=place.device,
        total=one.total, progress=Progress(),
    )  # fmt: skip
    end = tokenizer.eos_token_id
    exam = Exam(
        prompts=[encode_prompt(tokenizer, task.student_prompt(row.input)) for row in test],
        labels=[[*tokenizer(task.completion(label), add_special_tokens=False)["input_ids"], end] for label in task.labels],
        gold=[task.labels.index(row.output) for row in test],
    )
    return training, exam, skipped


def update(training: Training, number: int, batch: list[int]) -> float:
    """Update `number` (from 0) as training_worker does it; its mean loss. Raises NotFinite."""
    student = training.student
    torch.manual_seed(student.seed + 1_000_003 * number)
    rate = batching.learning_rate(
        number, training.total, peak=student.learning_rate, warmup_ratio=student.warmup_ratio, schedule=student.schedule
    )
    for group in training.engine.optimizer.param_groups:
        group["lr"] = rate
    return run_update(training, batch, training.lengths)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    prompts: list[list[int]]
    labels: list[list[int]]
    """Token ids of each label, with end-of-text."""
    gold: list[int]
    """Of each prompt, a place in `labels`."""

    def look(self, training: Training) -> dict[str, float]:
        """What the student as it is now says of the test rows and of its seeds; the training can go on after it."""
        engine = training.engine
        engine.eval()
        given = labels_given(engine.module, self.prompts, self.labels)
        loss, right = _on_seeds(training)
        engine.train()
        pairs = list(zip(given, self.gold, strict=True))
        return {
            "accuracy": sum(one.likeliest == gold for one, gold in pairs) / len(pairs),
            "greedy_accuracy": sum(one.greedy == gold for one, gold in pairs) / len(pairs),
            "token_accuracy": right,
            "loss": loss,
        }


@torch.no_grad()  # type: ignore[untyped-decorator]
def _on_seeds(training: Training) -> tuple[float, float]:
    """Loss and accuracy, means over the seeds' completion tokens."""
    assert packs(training.engine)
    loss, right, tokens = 0.0, 0, 0
    for start in range(0, len(training.rows), BATCH):
        part = batching.pack(training.rows[start : start + BATCH], training.pad_id)
        logits = training.engine.module(**part.inputs, use_cache=False).logits
        loss += float(batching.loss_sum(logits, part.labels))
        right += int((logits.argmax(-1) == part.labels).sum())
        tokens += int((part.labels != batching.IGNORED).sum())
    return loss / tokens, right / tokens


@functools.lru_cache(maxsize=32)
def rows_of(name: str, draw: int, test_rows: int, data: Path, out: Path) -> tuple[Classification, list[Example], list[Example]]:
    """The task, this draw of its seeds, and the test rows, which are the same for every draw.

    The seeds of `support` are drawn from its seed and dev rows together, of which a draw takes half.
    """
    section = load_config(REPOSITORY / "jobs" / f"{JOBS[name]}.yaml").task
    changes: dict[str, Any] = {"seeds_per_class": SEEDS_PER_CLASS[name], "test_rows": test_rows}
    if name == "support":
        support = REPOSITORY / "jobs" / "data" / "support"
        pool = out / "support_seeds.jsonl"
        pool.write_bytes((support / "seed.jsonl").read_bytes() + (support / "dev.jsonl").read_bytes())
        changes |= {"data": None, "seed": str(pool), "test": str(support / "test.jsonl")}
    else:
        changes |= {"data": str(data / name)}
    settings = TaskConfig(**{**section.model_dump(), **changes, "sample_seed": draw})
    first = settings.model_copy(update={"sample_seed": 0})  # which also chooses the test rows
    task = load_task(section.name, section.options)
    task, mine = load_splits(settings, task, base_dir=out)
    test = mine.test if draw == 0 else load_splits(first, task, base_dir=out)[1].test
    assert isinstance(task, Classification)
    return task, mine.seed, test
