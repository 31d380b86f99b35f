"""What of a plan keeps the student from learning, and what to change: told before anything is spent.

Only what is certain, or measured and said with its numbers; token counts are characters / 4 and called "about" (`launch` measures
them with the tokenizer). Nothing here stops a run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from llm2llm_ray.accuracy import proportion
from llm2llm_ray.asking.answer_length import answer_room
from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import asking
from llm2llm_ray.planning.lengths import Lengths, reply_tokens, tokens_of
from llm2llm_ray.preflight import Checked
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

FEW_UPDATES, FEW_PASSES = 40, 15
"""SmolLM2-135M on the demo's 32 seeds, learning rate 5e-5, batches of 8: 0.476 of the test rows right after 18 updates, 0.61
after 60 (15 passes)."""
ENOUGH_UPDATES = 120
"""From here on passes do not count: 120 updates on those seeds gave no more than 60, and larger seed sets were not measured."""
_LEARNT = 60
_SMALL_BATCH = 8
FEW_TEST_ROWS = 30
_NAMED = 8


def advice(config: Config, checked: Checked, *, updates: int, measures: Lengths) -> tuple[str, ...]:
    """One line per thing to change, the gravest first. `updates`: planned for the first student, whatever set them."""
    seeds = checked.splits.seed
    return (
        *_updates(config, len(seeds), updates),
        *_classes(config, checked),
        *_lengths(config, checked, measures),
        *_replies(config, checked),
        *_teacher(config),
        *_test(config, checked),
    )


def _updates(config: Config, seeds: int, updates: int) -> Iterator[str]:
    batch = config.student.global_batch_size
    passes = updates * min(batch, seeds) / seeds
    if updates >= FEW_UPDATES and (passes >= FEW_PASSES or updates >= ENOUGH_UPDATES):
        return
    smaller = batch if 4 * batch <= max(seeds, 4 * _SMALL_BATCH) else _SMALL_BATCH
    wanted = min(ENOUGH_UPDATES, max(_LEARNT, math.ceil(FEW_PASSES * seeds / smaller)))
    both = f"student.global_batch_size={smaller} and " if smaller != batch else ""
    yield (
        f"Too few updates to learn from: the first student takes {updates}, {passes:.1f} passes over its {seeds} seeds. Below "
        f"about {FEW_UPDATES} updates or {FEW_PASSES} passes a student has not learned its seeds (measured on 32: 0.476 of the "
        f"test right after 18 updates, 0.61 after 60). Set {both}student.updates={wanted} or auto."
    )


def _classes(config: Config, checked: Checked) -> Iterator[str]:
    task, splits = checked.task, checked.splits
    if not isinstance(task, Classification):
        return
    seeds = Counter(row.output for row in splits.seed)
    if len(seeds) == 1:
        yield f"All seeds have the label {next(iter(seeds))}: there is nothing to tell apart. Add rows of the other labels."
    missing = [label for label in task.labels if not seeds[label]]
    if missing:
        yield (
            f"No seed has the label {_list(missing)}: the first student never sees it. Add rows of it to the seeds, or take it "
            "out of task.options.labels."
        )
    single = [label for label in task.labels if seeds[label] == 1]
    if single:
        yield f"One seed only has the label {_list(single)}: one text does not show what a class is. Add a few more of it."
    in_folds: dict[str, set[int]] = {}
    for row in splits.seed:
        in_folds.setdefault(row.output, set()).add(checked.folds.get(row.id, 0))
    alone = [label for label, found in in_folds.items() if checked.folds and len(found) == 1]
    if alone:
        yield (
            f"All seeds of the label {_list(alone)} are in one fold: the student that is asked about them was trained on none, "
            "and gets them wrong. Add seeds of it, or set evaluation.error_source=early."
        )
    if config.evaluation.error_source == "dev":
        dev = {row.output for row in splits.dev}
        unseen = [label for label in seeds if label not in dev]
        if unseen:
            yield (
                f"No dev row has the label {_list(unseen)}: errors come from dev, so no row of it will be asked for. Add dev "
                "rows of it, or set evaluation.error_source=seed."
            )


def _list(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _lengths(config: Config, checked: Checked, measures: Lengths) -> Iterator[str]:
    task, splits, most = checked.task, checked.splits, config.student.max_length
    trained = [tokens_of(task.student_prompt(row.input)) + tokens_of(task.completion(row.output)) + 1 for row in splits.seed]
    longer = [size for size in trained if size > most]
    if longer:
        yield (
            f"About {len(longer)} of {len(trained)} seeds are longer than student.max_length={most} tokens and could not be "
            f"trained on. Set student.max_length={_rounded_up(max(longer))}, or shorten the rows."
        )
    asked = [*splits.error_source(config.evaluation.error_source), *(splits.test if config.evaluation.test else ())]
    context = config.student.engine.max_model_len
    prompts = _too_long(task, asked, max_tokens=config.evaluation.max_tokens, context=context)
    if prompts and config.evaluation.recorded_answers is None:
        size = _rounded_up(max(prompts) + config.evaluation.max_tokens)
        yield (
            f"About {len(prompts)} of {len(asked)} rows leave no room for an answer in student.engine.max_model_len={context} "
            f"tokens. Set student.engine.max_model_len={size}, or shorten the rows."
        )
    context, wanted = config.teacher.engine.max_model_len, measures.asked + config.teacher.max_tokens
    if config.teacher.kind == "serve" and wanted > context:
        yield (
            f"A teacher prompt and its reply take about {wanted:.0f} tokens, more than teacher.engine.max_model_len={context}. "
            f"Set teacher.engine.max_model_len={_rounded_up(wanted)}, or lower teacher.max_tokens."
        )


def _replies(config: Config, checked: Checked) -> Iterator[str]:
    """A reply of several rows, each as long as the seeds."""
    count, most, needed = asking(config).per_call, config.teacher.max_tokens, reply_tokens(config, checked)
    if count > 1 and needed > most:
        yield (
            f"A teacher reply of {count} rows takes about {needed:.0f} tokens, more than teacher.max_tokens={most}: its last "
            f"rows would be cut off. Set teacher.max_tokens={_rounded_up(needed)}, or a smaller augmentation.per_call."
        )


def _too_long(task: Task, rows: Sequence[Example], *, max_tokens: int, context: int) -> list[int]:
    sizes = [math.ceil(tokens_of(task.student_prompt(row.input))) for row in rows]
    return [size for size in sizes if answer_room(size, max_tokens=max_tokens, context=context) is None]


def _rounded_up(tokens: float) -> int:
    """With a quarter to spare, since it is an estimate."""
    return 64 * math.ceil(1.25 * tokens / 64)


def _teacher(config: Config) -> Iterator[str]:
    if config.teacher.kind == "serve" and config.teacher.model == config.student.model:
        yield (
            f"The teacher is the student's own model ({config.teacher.model}): what it writes made the demo's student no better "
            "(0.389 of the test right, against 0.476 with the seeds alone). Name a stronger one in teacher."
        )


def _test(config: Config, checked: Checked) -> Iterator[str]:
    rows = len(checked.splits.test)
    if config.evaluation.test and rows < FEW_TEST_ROWS:
        half = proportion(rows // 2, rows)
        yield (
            f"The test set has {rows} rows: an accuracy near a half is known to within {50 * (half.high - half.low):.0f} points "
            "either way, so most gains cannot be seen. Give more test rows."
        )
