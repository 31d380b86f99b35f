"""Every prompt and every gold is measured with the real tokenizers before any engine starts: what does not fit is told then.

Seeds must fit into training. Rows that are evaluated, and the longest prompts that the teacher can get, must leave the room that
`answer_length` wants, and their golds must fit into it. A service's tokenizer and context are its own: it is asked instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Any

from llm2llm_ray.asking.answer_length import LEAST_ANSWER, answer_room
from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import asking, num_iterations, rows_per_call
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import Checked
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.blind_exam import blind_exam, exam_tokens, shown_blind
from llm2llm_ray.rounds.judging import Judge
from llm2llm_ray.rounds.targeting import needs_all_rows
from llm2llm_ray.runtime.models.tokens import ChatRefused, completion_ids, encode, prompt_ids
from llm2llm_ray.types import Example, Graded, Prompt

_NAMED = 3
_MERGE = "teacher.system_message=merge puts the system message into the user's, where that is what it refuses"
_ALL_PEERS = 10_000
_CALLS = 16
"""About one row whose prompts are compared: later ones say the same in turn (tasks/angles.py)."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row and by how much it does not fit. Example: Misfit("s-3", 1100, "its prompt has 1100 tokens")"""

    row: str
    size: int
    why: str


def check_lengths(config: Config, checked: Checked, *, student: Any, teacher: Any | None, voter: Any | None = None) -> None:
    """`student`, `teacher` and `voter` (of the model that votes on new rows) are tokenizers; None: of no model of ours to serve.
    Raises UserError for all that does not fit."""
    told = [*_training(config, checked, student)]
    if config.evaluation.recorded_answers is None:
        told += _evaluation(config, checked, student)
    if config.evaluation.student_held:
        told += _choices(config, checked, student)
    if config.evaluation.judge_by == "gold_loss":
        told += _weighed(config, checked, student)
    if teacher is not None:
        told += [*_asking(config, checked, teacher), *_teacher_exam(config, checked, teacher)]
    if voter is not None and config.gates.relabel.votes:
        told += _voting(config, checked, voter)
    if told:
        raise UserError("\n".join(told))


def _told(what: str, misfits: list[Misfit], rows: int, remedy: Callable[[int], str], source: str = "") -> Iterator[str]:
    if misfits:
        worst = nlargest(_NAMED, misfits, key=lambda m: m.size)
        named = "; ".join(f"{m.row}: {m.why}" for m in worst)
        more = f"; and {len(misfits) - len(worst)} more" if len(misfits) > len(worst) else ""
        yield f"{what}: {len(misfits)} of {rows} rows{source} do not fit: {named}{more}. {remedy(worst[0].size)}"


def _training(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    task, most, seeds = checked.task, config.student.max_length, checked.splits.seed
    misfits = []
    for row in seeds:
        whole, _ = encode(tokenizer, task.student_prompt(row.input), task.completion(row.output))
        if len(whole) > most:
            misfits.append(Misfit(row.id, len(whole), f"prompt and answer have {len(whole)} tokens"))
    yield from _told(
        f"seeds, student.max_length={most}", misfits, len(seeds),
        lambda size: f"They could not be trained on: set student.max_length={size}, or shorten or remove the rows",
        _from(checked, "seed"),
    )  # fmt: skip


def _evaluation(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    """What the student is asked in rounds and exams."""
    task, most, context = checked.task, config.evaluation.max_tokens, config.student.engine.max_model_len
    for name, rows in _evaluated(config, checked):
        prompts, golds = [], []
        for row in rows:
            prompt = len(prompt_ids(tokenizer, Prompt(text=task.student_prompt(row.input))))
            gold = len(encode(tokenizer, "", task.completion(row.output))[0]) - len(encode(tokenizer, "", "")[0])
            room = answer_room(prompt, max_tokens=most, context=context)
            if gold > most:
                golds.append(Misfit(row.id, gold, f"its right answer has {gold} tokens"))
            elif room is None or gold > room:
                needed = prompt + max(gold, min(LEAST_ANSWER, most))
                why = f"its prompt has {prompt} tokens, its right answer {gold}"
                prompts.append(Misfit(row.id, needed, why))
        source = _from(checked, name)
        yield from _told(
            f"{name}, student.engine.max_model_len={context}", prompts, len(rows),
            lambda size: f"They could not be answered: set student.engine.max_model_len={size}, or shorten or remove the rows",
            source,
        )  # fmt: skip
        yield from _told(
            f"{name}, evaluation.max_tokens={most}", golds, len(rows),
            lambda size: f"Their answers would be cut and could never be right: set evaluation.max_tokens={size}", source,
        )  # fmt: skip


def _weighed(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    """Room for prompt, gold, its end, and the token that an engine always writes, where golds are weighed."""
    task, context = checked.task, config.student.engine.max_model_len
    (name, rows), *_ = _evaluated(config, checked)
    misfits = []
    for row in rows:
        whole, _ = encode(tokenizer, task.student_prompt(row.input), task.completion(row.output))
        if len(whole) >= context:
            misfits.append(Misfit(row.id, len(whole) + 1, f"prompt and right answer have {len(whole)} tokens"))
    yield from _told(
        f"{name}, weighed by evaluation.judge_by=gold_loss, student.engine.max_model_len={context}", misfits, len(rows),
        lambda size: f"Set student.engine.max_model_len={size}, or judge by greedy or pass_rate", _from(checked, name),
    )  # fmt: skip


def _choices(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    """Room for the longest choice and the end of text behind it, where the student is held to choices."""
    task, most, context = checked.task, config.evaluation.max_tokens, config.student.engine.max_model_len
    measured = functools.cache(lambda choice: len(completion_ids(tokenizer, choice)))
    for name, rows in _evaluated(config, checked):
        long, cut = [], []
        for row in rows:
            choices = task.choices(row.input)
            if choices is None:
                continue
            longest = max(choices, key=measured)
            tokens, prompt = measured(longest), len(prompt_ids(tokenizer, Prompt(text=task.student_prompt(row.input))))
            if tokens > most:
                long.append(Misfit(row.id, tokens, f"{longest.strip()!r} and its end have {tokens} tokens"))
            elif prompt + tokens > context:
                cut.append(Misfit(row.id, prompt + tokens, f"its prompt has {prompt} tokens, {longest.strip()!r} {tokens}"))
        source = _from(checked, name)
        yield from _told(
            f"{name}, held to choices (evaluation.structured), evaluation.max_tokens={most}", long, len(rows),
            lambda size: f"The longest choice would be cut: set evaluation.max_tokens={size}", source,
        )  # fmt: skip
        yield from _told(
            f"{name}, held to choices (evaluation.structured), student.engine.max_model_len={context}", cut, len(rows),
            lambda size: f"The longest choice would be cut: set student.engine.max_model_len={size}", source,
        )  # fmt: skip


def _evaluated(config: Config, checked: Checked) -> Iterator[tuple[str, list[Example]]]:
    source = config.evaluation.error_split
    yield source, checked.splits.error_source(source)
    if config.evaluation.test:
        yield "test", checked.splits.test


def _asking(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    """The longest prompt that each row that can be wrong can make: beside the longest examples, with the longest answer shown."""
    most, context, settings = config.teacher.max_tokens, config.teacher.engine.max_model_len, asking(config)
    peers = _Longest(checked.task, checked.splits.seed, checked.folds)
    augment = Augment(checked.task, peers, teacher=config.teacher, settings=settings, iteration=0, run_seed=config.run.seed)
    rounds = max(1, num_iterations(config) - 1)
    calls = min(_CALLS, rounds * len(rows_per_call(settings.per_wrong, settings.per_call)))
    kinds = 2 if needs_all_rows(settings) else 1  # right rows are asked about in other words
    (name, rows), *_ = _evaluated(config, checked)
    mistakes = [*rows, *_grown(config, rows)]
    misfits = []
    for row in mistakes:
        said = " word" * config.evaluation.max_tokens if settings.show_wrong_answer else ""
        fold = checked.folds.get(row.id, checked.folds.get(rows[0].id))  # an augmented row is in its seed's
        target = Graded(example=row, completion=said, answer=None, correct=False, fold=fold)
        targets = [replace(target, correct=right) for right in (False, True)[:kinds]]
        prompts = (augment.request(target, ordinal, 0).prompt for target in targets for ordinal in range(calls))
        prompt = len(_chat_ids(tokenizer, max(prompts, key=_characters), _MERGE))
        if answer_room(prompt, max_tokens=most, context=context) != most:
            misfits.append(Misfit(row.id, prompt + most, f"the teacher's prompt may have {prompt} tokens"))
    yield from _told(
        f"{name} as asked of the teacher, teacher.engine.max_model_len={context} less teacher.max_tokens={most}",
        misfits, len(mistakes),
        lambda size: (
            f"Replies would be cut short: set teacher.engine.max_model_len={size}, lower teacher.max_tokens, or show fewer "
            "examples (augmentation.examples_in_prompt)"
        ),
    )  # fmt: skip


def _grown(config: Config, rows: list[Example]) -> Iterable[Example]:
    """With `augment_augmented` a teacher's row may be asked about: as long as the gates let it be."""
    if config.augmentation.augment_augmented:
        for example in rows[:1]:
            text = "word " * config.augmentation.max_words
            yield Example(id="an augmented row", input=text, output=example.output, origin="augmented")


def _teacher_exam(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    on_test = config.evaluation.test and config.evaluation.teacher_on_test
    rows = [*(checked.splits.dev if config.checks_teacher else ()), *(checked.splits.test if on_test else ())]
    if not rows:
        return
    most, context = exam_tokens(config), config.teacher.engine.max_model_len
    exam = blind_exam(config, checked.task, checked.splits.seed)
    misfits = []
    for row in rows:
        prompt = len(_chat_ids(tokenizer, exam.request(row.id, row.input).prompt, _MERGE))
        if answer_room(prompt, max_tokens=most, context=context) is None:
            misfits.append(Misfit(row.id, prompt + min(LEAST_ANSWER, most), f"an exam's prompt has {prompt} tokens"))
    yield from _told(
        f"dev and test, asked of the teacher, teacher.engine.max_model_len={context}", misfits, len(rows),
        lambda size: (
            f"Set teacher.engine.max_model_len={size}, show fewer examples (gates.relabel.examples), or examine the teacher on "
            "nothing (evaluation.check_teacher, evaluation.teacher_on_test)"
        ),
    )  # fmt: skip


def _voting(config: Config, checked: Checked, tokenizer: Any) -> Iterator[str]:
    """New rows are taken to be as long as the seeds."""
    seeds, relabel, asked = checked.splits.seed, config.gates.relabel, config.voter
    most, context = relabel.max_tokens or asked.max_tokens, asked.engine.max_model_len
    shown = shown_blind(checked.task, seeds, relabel.examples)
    judge = Judge(checked.task, shown, settings=relabel, asked=asked, run_seed=config.run.seed)
    misfits = []
    for row in seeds:
        prompt = len(_chat_ids(tokenizer, judge.request(row.input, 0).prompt, _MERGE))
        gold = len(encode(tokenizer, "", checked.task.completion(row.output))[0]) - len(encode(tokenizer, "", "")[0])
        room = answer_room(prompt, max_tokens=most, context=context)
        if room is None or gold > room:
            misfits.append(Misfit(row.id, prompt + max(gold, min(LEAST_ANSWER, most)), f"a vote's prompt has {prompt} tokens"))
    field = "judge" if config.judge else "teacher"
    yield from _told(
        f"seeds as a new row would be voted on, {field}.engine.max_model_len={context} and {most} tokens for a vote",
        misfits, len(seeds),
        lambda size: (
            f"Set {field}.engine.max_model_len={size}, raise gates.relabel.max_tokens where answers are longer, or show fewer "
            "examples (gates.relabel.examples)"
        ),
    )  # fmt: skip


def _chat_ids(tokenizer: Any, prompt: Prompt, remedy: str) -> list[int]:
    try:
        return prompt_ids(tokenizer, prompt)
    except ChatRefused as refused:
        raise UserError(f"teacher.model: its chat template refuses this task's prompt ({refused}); {remedy}") from None


def _characters(prompt: Prompt) -> int:
    return len(prompt.text) + sum(len(message.content) for message in prompt.messages)


class _Longest(Peers):
    """The longest examples that can stand beside a wrong one, instead of drawn ones; of any group that it may be taken for."""

    def beside(self, mistake: Graded, count: int, draw: str) -> list[Example]:
        return nlargest(count, super().beside(mistake, _ALL_PEERS, draw), key=_size)

    def confused(self, mistake: Graded, count: int, draw: str) -> list[Example]:
        own = self._task.group(mistake.example)
        groups = ((group, rows) for (fold, group), rows in self._groups.items() if fold == mistake.fold)
        others = (nlargest(count, rows, key=_size) for group, rows in groups if group != own)
        return max(others, key=lambda rows: sum(map(_size, rows)), default=[])


def _size(row: Example) -> int:
    return len(row.input) + len(row.output)


def _from(checked: Checked, name: str) -> str:
    source = checked.splits.sources.get(name)
    return f" ({source})" if source else ""
