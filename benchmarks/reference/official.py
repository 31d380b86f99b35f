"""The official-style baseline of whole_loop.py: each stage a fresh process that reads a model, as the released scripts are run.

Like the released code (SqueezeAILab/LLM2LLM): Hugging Face's Trainer, rows padded to the longest of their batch, all logits;
`generate` over all of D^i in batches of 64 in file order, 100 new tokens for each whatever it says, and what is no seed is thrown
away afterwards; ten teacher requests at a time; a new process pool for every candidate, to score it by ROUGE-L against the step's
questions. Kinder than it: no test exam in each step, three processes a step instead of six, as many pool workers as cores (64
there), greedy answers and one prompt in training and evaluation, so that accuracies can be compared. The same tasks, gates,
attempts and optimizer settings as ours. An answer is graded up to its end-of-text token and `evaluation.max_tokens`.

The released code lets a batch end early once all its rows have ended: `--stop-early` does, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reference.stages import (
    OUTCOME,
    Inputs,
    Outcome,
    Turn,
    admitted,
    arguments,
    augmented,
    candidates,
    read_examples,
    read_inputs,
    solved,
    write_examples,
    wrong,
)
from llm2llm_ray.asking.request import Request
from llm2llm_ray.types import Reply

if TYPE_CHECKING:
    from llm2llm_ray.augmentation.commit import Candidate

NEW_TOKENS = 100
EVALUATION_BATCH = 64
TEACHER_BATCH = 10
SAME_QUESTION = 0.95
STAGES = ("train", "evaluate", "generate")


class Folder:
    """The files by which the stages know of each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def dataset(self, iteration: int) -> Path:
        return self.folder / f"d{iteration}.jsonl"

    def graded(self, iteration: int) -> Path:
        return self.folder / f"graded{iteration}.json"

    def student(self, iteration: int) -> Path:
        return self.folder / f"student{iteration}"

    def account(self, stage: str, iteration: int) -> Path:
        return self.folder / f"{stage}{iteration}.json"


def train(inputs: Inputs, folder: Folder, outcome: Outcome, turn: Turn) -> None:
    """M^i on all of D^i, by Hugging Face's Trainer."""
    with outcome.span("start", turn.index):
        # Installed for ours: where the Trainer finds them it imports them, which takes seconds, and uses none of them here.
        sys.modules.update(dict.fromkeys(("deepspeed", "peft", "datasets")))  # type: ignore[arg-type]
        from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

        from benchmarks.reference.place import place_of
        from llm2llm_ray.config.schedule import fixed_updates, total_updates
        from llm2llm_ray.runtime.models.folders import resolve_model
        from llm2llm_ray.runtime.models.tokens import encode_rows
    settings, task = inputs.config.student, inputs.task
    with outcome.span("load", turn.index):
        place = place_of(inputs.config)
        base = resolve_model(settings.model)
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
        model.config.use_cache = False
    dataset = read_examples(folder.dataset(turn.index))
    pairs = [(task.student_prompt(row.input), task.completion(row.output)) for row in dataset]
    rows, _ = encode_rows(tokenizer, pairs, settings.max_length)
    micro = min(settings.micro_batch_size, settings.global_batch_size)
    updates = fixed_updates(
        settings.updates, seeds=len(inputs.seeds), rows=len(dataset), global_batch_size=settings.global_batch_size
    )
    total = total_updates(len(rows), settings.global_batch_size, settings.epochs, updates)
    told = TrainingArguments(
        output_dir=str(folder.folder / "trainer"), per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.global_batch_size // micro, max_steps=total, learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule, warmup_steps=settings.warmup_ratio, weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clipping, seed=settings.seed, use_cpu=not place.gpu, bf16=place.bf16,
        save_strategy="no", report_to=[], logging_strategy="no", logging_nan_inf_filter=False, disable_tqdm=True,
        remove_unused_columns=False, optim="adamw_torch_fused", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model=model, args=told, train_dataset=rows, data_collator=partial(padded, pad=tokenizer.pad_token_id or 0))
    with outcome.span("train", turn.index) as span:
        trainer.train()
    turn.updates = span.updates = trainer.state.global_step
    span.rows, span.tokens = len(rows), round(sum(len(row.ids) for row in rows) * total * settings.global_batch_size / len(rows))
    with outcome.span("save", turn.index):
        model.config.use_cache = True  # for the stage that evaluates it
        trainer.save_model(str(folder.student(turn.index)))
        tokenizer.save_pretrained(folder.student(turn.index))


def padded(rows: Sequence[Any], pad: int) -> dict[str, Any]:
    import torch

    width = max(len(row.ids) for row in rows)
    blank = [[pad] * (width - len(row.ids)) for row in rows]
    ids = [[*row.ids, *more] for row, more in zip(rows, blank, strict=True)]
    mask = [[1] * len(row.ids) + [0] * len(more) for row, more in zip(rows, blank, strict=True)]
    labels = [
        [-100] * row.n_prompt + list(row.ids[row.n_prompt :]) + [-100] * len(more) for row, more in zip(rows, blank, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


def evaluate(inputs: Inputs, folder: Folder, outcome: Outcome, turn: Turn, *, stop_early: bool) -> None:
    """M^i on all of D^i; then the seeds are kept."""
    with outcome.span("start", turn.index):
        from benchmarks.reference.pipeline import Pipeline
        from benchmarks.reference.place import place_of
    with outcome.span("load", turn.index):
        context = inputs.config.student.engine.max_model_len
        model = Pipeline(str(folder.student(turn.index)), context, place_of(inputs.config))

    def answer(requests: Sequence[Request]) -> list[Reply]:
        new = max(NEW_TOKENS, inputs.config.evaluation.max_tokens)
        return model.answer(requests, batch=EVALUATION_BATCH, new_tokens=new, stop_early=stop_early)

    dataset = read_examples(folder.dataset(turn.index))
    with outcome.span("evaluate", turn.index) as span:
        graded = solved(inputs, dataset, answer)
    span.rows, span.tokens = len(graded), sum(row["prompt_tokens"] + row["completion_tokens"] for row in graded)
    seeds = [row for row in graded if row["origin"] == "seed"]
    turn.evaluated, turn.wrong = len(seeds), sum(map(wrong, seeds))
    folder.graded(turn.index).write_text(json.dumps(seeds))


def generate(inputs: Inputs, folder: Folder, outcome: Outcome, turn: Turn) -> None:
    """A^i, and D^{i+1}."""
    with outcome.span("start", turn.index):
        import llm2llm_ray.rounds.augmenting  # noqa: F401  (here, so that its seconds count as start)
        from benchmarks.reference.pipeline import Pipeline
        from benchmarks.reference.place import place_of
        from llm2llm_ray.runtime.models.folders import resolve_model

    with outcome.span("load", turn.index):
        context = inputs.config.teacher.engine.max_model_len
        model = Pipeline(resolve_model(inputs.config.teacher.model), context, place_of(inputs.config))

    def answer(requests: Sequence[Request]) -> list[Reply]:
        return model.answer(requests, batch=TEACHER_BATCH, new_tokens=inputs.config.teacher.max_tokens, stop_early=True)

    graded = json.loads(folder.graded(turn.index).read_text())
    with outcome.span("augment", turn.index) as span:
        rows = augmented(inputs, graded, turn.index, answer)
        span.rows = turn.asked = sum(row["asked"] for row in rows)
        span.tokens = sum(row["teacher_prompt_tokens"] + row["teacher_completion_tokens"] for row in rows)
    dataset = read_examples(folder.dataset(turn.index))
    with outcome.span("gates", turn.index):
        drafts = unlike([row["input"] for row in graded if wrong(row)], candidates(rows))
        new = admitted(inputs.gates(dataset), drafts)
    turn.accepted = len(new)
    write_examples(folder.dataset(turn.index + 1), [*dataset, *new])


def unlike(questions: Iterable[str], drafts: Iterable[Candidate]) -> list[Candidate]:
    """The drafts that are no near copy, by ROUGE-L, of the step's wrong questions and of the drafts before them."""
    known, kept = [rouge_words(question) for question in questions], []
    for draft in drafts:
        words = rouge_words(draft.input)
        with Pool(os.cpu_count()) as pool:
            scores = pool.map(partial(rouge_l, words), known)
        if max(scores) <= SAME_QUESTION:
            known.append(words)
            kept.append(draft)
    return kept


def rouge_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(one: list[str], other: list[str]) -> float:
    """F1 of the longest common subsequence, as the rouge-score package computes it."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, theirs in enumerate(other, 1):
            before, lengths[at] = lengths[at], before + 1 if word == theirs else max(lengths[at], lengths[at - 1])
    common = lengths[-1]
    return 2 * common / (len(one) + len(other)) if common else 0.0


def run_stage(given: argparse.Namespace) -> None:
    outcome = Outcome()
    inputs, folder = read_inputs(given.config, given.overrides), Folder(given.folder)
    outcome.started(given.spawned)
    turn = Turn(index=given.iteration, rows=len(read_examples(folder.dataset(given.iteration))))
    if given.stage == "train":
        train(inputs, folder, outcome, turn)
    elif given.stage == "evaluate":
        evaluate(inputs, folder, outcome, turn, stop_early=given.stop_early)
    else:
        generate(inputs, folder, outcome, turn)
    outcome.turns.append(turn)
    outcome.write(folder.account(given.stage, given.iteration))


def run_all(given: argparse.Namespace) -> None:
    """The released run_all.sh: every stage of every step, one after the other."""
    outcome = Outcome()
    inputs, folder = read_inputs(given.config, given.overrides), Folder(given.folder)
    outcome.started(given.spawned)
    write_examples(folder.dataset(0), inputs.seeds)
    last = inputs.config.run.iterations - 1
    for i in range(last + 1):
        turn = stage_turns(given, folder, outcome, i, STAGES if i < last else STAGES[:2])
        if not turn.wrong:
            break
    outcome.last_rows = [row.input for row in read_examples(folder.dataset(turn.index))]
    outcome.student = str(folder.student(turn.index))
    outcome.write(given.folder / OUTCOME)


def stage_turns(given: argparse.Namespace, folder: Folder, outcome: Outcome, i: int, stages: Sequence[str]) -> Turn:
    turn = Turn(index=i, rows=0)
    for stage in stages:
        if stage == "generate" and not turn.wrong:
            break
        line = [
            sys.executable,
            "-m",
            "benchmarks.reference.official",
            *sys.argv[1:],
            "--stage",
            stage,
            "--iteration",
            str(i),
            "--spawned",
            str(time.time()),
        ]
        subprocess.run(line, check=True)
        found = Outcome.read(folder.account(stage, i))
        outcome.spans += found.spans
        (told,) = found.turns
        turn.rows = told.rows
        for name in ("updates", "evaluated", "wrong", "asked", "accepted"):
            setattr(turn, name, getattr(turn, name) + getattr(told, name))
    outcome.turns.append(turn)
    return turn


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--stop-early", action="store_true", help="let a batch end once all of its rows have ended")
    parser.add_argument("--stage", choices=STAGES, help="run this one alone, as the loop does")
    parser.add_argument("--iteration", type=int, default=0)
    given = parser.parse_args()
    (run_stage if given.stage else run_all)(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
