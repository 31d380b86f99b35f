"""The careful baseline of whole_loop.py: LLM2LLM in one process, as a good engineer would write it with Hugging Face.

Models are read once; the base weights stay in memory and are copied back before each training. Rows of a pass are laid end to
end, without padding, and attended as in our training; logits are computed where the loss is; AdamW is the fused one and scales
gradients as it reads them (optimizer.py). Only seeds are evaluated. The same rows make the same updates as in our run.
How answers are computed: generation.py. No Ray, no vLLM, no DeepSpeed.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from transformers import AutoTokenizer

import llm2llm_ray.rounds.augmenting  # noqa: F401  (here, so that its seconds count as start)
from benchmarks.reference.generation import Writer, end_to_end, load_model
from benchmarks.reference.optimizer import Optimizer
from benchmarks.reference.place import place_of
from benchmarks.reference.stages import (
    OUTCOME,
    Inputs,
    Outcome,
    Turn,
    admitted,
    arguments,
    augmented,
    candidates,
    read_inputs,
    solved,
    wrong,
)
from llm2llm_ray.config.schedule import fixed_updates, total_updates
from llm2llm_ray.runtime.models.folders import resolve_model
from llm2llm_ray.runtime.models.tokens import Row, encode_rows
from llm2llm_ray.runtime.training.batching import global_batches, learning_rate
from llm2llm_ray.types import Example


class Student:
    """The model that is trained anew in each iteration."""

    def __init__(self, model: Any, base: Sequence[torch.Tensor], tokenizer: Any, inputs: Inputs) -> None:
        self.model, self._base, self._tokenizer, self._inputs = model, base, tokenizer, inputs
        if model.device.type == "cpu" and model.dtype == torch.float32:
            # Otherwise a second gradient of the vocabulary's size, nearly all zeros, is filled and added in every pass. The
            # head's comes first in a backward pass and is dense, and so is their sum.
            model.get_input_embeddings().sparse = model.config.tie_word_embeddings

    def train(self, dataset: Sequence[Example]) -> tuple[int, int]:
        """From the base weights, on all rows; returns updates and tokens."""
        settings, task = self._inputs.config.student, self._inputs.task
        pairs = [(task.student_prompt(row.input), task.completion(row.output)) for row in dataset]
        rows, _ = encode_rows(self._tokenizer, pairs, settings.max_length)
        updates = fixed_updates(
            settings.updates, seeds=len(self._inputs.seeds), rows=len(dataset), global_batch_size=settings.global_batch_size
        )
        total = total_updates(len(rows), settings.global_batch_size, settings.epochs, updates)
        parameters = list(self.model.parameters())
        with torch.no_grad():
            torch._foreach_copy_(parameters, list(self._base))
        optimizer = Optimizer(parameters, settings)
        tokens = 0
        self.model.train()
        batches = global_batches(len(rows), settings.global_batch_size, settings.seed)
        for update, numbers in enumerate(itertools.islice(batches, total)):
            batch = [rows[number] for number in numbers]
            scored = sum(row.n_completion for row in batch)
            for start in range(0, len(batch), settings.micro_batch_size):
                (self.loss(batch[start : start + settings.micro_batch_size]) / scored).backward()
                optimizer.after_pass()
            rate = learning_rate(
                update, total, peak=settings.learning_rate, warmup_ratio=settings.warmup_ratio, schedule=settings.schedule
            )
            optimizer.step(rate)
            tokens += sum(len(row.ids) for row in batch)
        self.model.eval()
        return total, tokens

    def loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """Sum over the completion tokens."""
        together = end_to_end([row.ids for row in rows], self.model.device)
        ends = itertools.accumulate(len(row.ids) for row in rows)
        scored = torch.cat([torch.arange(end - row.n_completion, end) for end, row in zip(ends, rows, strict=True)])
        scored = scored.to(self.model.device)
        hidden = self.model.model(**together, use_cache=False).last_hidden_state[0, scored - 1]
        logits = self.model.lm_head(hidden).float()
        return torch.nn.functional.cross_entropy(logits, together["input_ids"][0, scored], reduction="sum")


def save(model: Any, folder: Path) -> None:
    """As a model folder; `save_pretrained` would import deepspeed first, where it is installed."""
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})


def loop(inputs: Inputs, outcome: Outcome, student: Student, answers: Writer, teacher: Writer) -> None:
    """Algorithm 1."""
    dataset, last = list(inputs.seeds), inputs.config.run.iterations - 1
    with outcome.span("gates"):
        gates = inputs.gates(dataset)  # each admitted row counts as one of the existing at once
    for i in range(last + 1):
        turn = Turn(index=i, rows=len(dataset))
        outcome.turns.append(turn)
        with outcome.span("train", i) as span:
            turn.updates, span.tokens = student.train(dataset)
            span.rows, span.updates = len(dataset), turn.updates
        with outcome.span("evaluate", i) as span:
            graded = solved(inputs, inputs.seeds, answers.answer)
            span.rows, span.tokens = len(graded), sum(row["prompt_tokens"] + row["completion_tokens"] for row in graded)
        turn.evaluated, turn.wrong = len(graded), sum(map(wrong, graded))
        if i == last or not turn.wrong:
            break
        with outcome.span("augment", i) as span:
            rows = augmented(inputs, graded, i, teacher.answer)
            span.rows = turn.asked = sum(row["asked"] for row in rows)
            span.tokens = sum(row["teacher_prompt_tokens"] + row["teacher_completion_tokens"] for row in rows)
        with outcome.span("gates", i):
            new = admitted(gates, candidates(rows))
            dataset += new
        turn.accepted = len(new)
    outcome.last_rows = [row.input for row in dataset]


def main() -> int:
    given = arguments(__doc__ or "").parse_args()
    outcome = Outcome()
    torch.set_flush_denormal(True)  # squares of tiny gradients, in Adam's state; threads that start later inherit it
    inputs = read_inputs(given.config, given.overrides)
    outcome.started(given.spawned)
    config = inputs.config
    with outcome.span("load"):
        place = place_of(config)
        folder, teachers = resolve_model(config.student.model), resolve_model(config.teacher.model)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        teacher = load_model(teachers, place)
        base = teacher if teachers == folder else load_model(folder, place)
        trained = copy.deepcopy(base)
    for parameter in [*base.parameters(), *teacher.parameters()]:
        parameter.requires_grad_(False)
    student = Student(trained, list(base.parameters()), tokenizer, inputs)
    written = Writer(
        teacher, tokenizer if teachers == folder else AutoTokenizer.from_pretrained(teachers), config.teacher.engine.max_model_len
    )
    loop(inputs, outcome, student, Writer(trained, tokenizer, config.student.engine.max_model_len), written)
    with outcome.span("save"):
        save(trained, given.folder / "student")
        tokenizer.save_pretrained(given.folder / "student")
    outcome.student = str(given.folder / "student")
    outcome.write(given.folder / OUTCOME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
