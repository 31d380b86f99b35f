"""What both single-process loops of whole_loop.py share with ours, and with each other: rows, prompts, graders, gates, and the
account they leave.

Invariant: the work is the run's own. What is asked, how an answer is graded and which draft becomes a row is decided by the same
code that `llm2llm run` uses (Solve, Augment, the gates); how models compute the answers is each loop's business. No Ray, no
torch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm2llm_ray.asking.answer_length import answer_room
from llm2llm_ray.asking.request import AskModel, Request
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.solving import Solve
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.splits import Splits, load_splits
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Lineage, Reply

if TYPE_CHECKING:  # the gates bring scipy, which a stage that only trains or evaluates does without
    from llm2llm_ray.augmentation.commit import Candidate, CommitGates

OUTCOME = "outcome.json"
Answerer = Callable[[Sequence[Request]], list[Reply]]
"""Computes the replies to many requests, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    config: Config
    task: Task
    splits: Splits

    @property
    def seeds(self) -> list[Example]:
        return self.splits.seed

    def gates(self, existing: Iterable[Example]) -> CommitGates:
        from llm2llm_ray.augmentation.commit import CommitGates
        from llm2llm_ray.augmentation.held_out import HeldOut

        settings = self.config.augmentation
        held_out = HeldOut([*self.splits.dev, *self.splits.test], settings.near_test, self.seeds)
        return CommitGates(existing, held_out, settings, lambda output: self.task.answer(self.task.completion(output)))


@dataclass(slots=True, kw_only=True)
class Span:
    """Seconds of one kind, with the work done in them."""

    what: str
    """start, load, train, evaluate, augment or gates."""
    iteration: int | None
    seconds: float = 0.0
    rows: int = 0
    """Trained on, answered by the student, or asked of the teacher."""
    updates: int = 0
    tokens: int = 0
    """Trained on, or read and written by an answer that is used; without padding, and without what is cut off."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """One iteration, in numbers that the loops can be compared by.

    Example: Turn(index=0, rows=18, updates=15, evaluated=18, wrong=12, asked=14, accepted=10)
    """

    index: int
    rows: int
    updates: int = 0
    evaluated: int = 0
    """Seeds graded."""
    wrong: int = 0
    asked: int = 0
    accepted: int = 0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one loop came to."""

    spans: list[Span] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    student: str = ""
    """Folder of the last student."""
    last_rows: list[str] = field(default_factory=list)
    """Inputs of the last student's training rows."""

    @contextlib.contextmanager
    def span(self, what: str, iteration: int | None = None) -> Iterator[Span]:
        span, began = Span(what=what, iteration=iteration), time.perf_counter()
        yield span
        span.seconds = time.perf_counter() - began
        self.spans.append(span)

    def started(self, spawned: float) -> None:
        """`spawned`: time.time() when this process was asked for."""
        self.spans.append(Span(what="start", iteration=None, seconds=time.time() - spawned))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Outcome:
        found = json.loads(path.read_text())
        spans, turns = [Span(**span) for span in found["spans"]], [Turn(**turn) for turn in found["turns"]]
        return cls(spans=spans, turns=turns, student=found["student"], last_rows=found["last_rows"])


def arguments(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--folder", type=Path, help="where rows, students and the account are written")
    parser.add_argument("--spawned", type=float, default=time.time(), help="Unix seconds at which this process was asked for")
    return parser


def read_inputs(config_path: Path, overrides: list[str]) -> Inputs:
    config = load_config(config_path, overrides)
    student, settings = config.student, config.augmentation
    others = {
        "student.method": student.method != "full",
        "student.start_from": student.start_from != "base",
        "teacher.kind": config.teacher.kind != "serve",
        "evaluation.error_source": config.evaluation.error_source != "seed",
        "augmentation.one_shot": settings.one_shot,
        "augmentation.augment_augmented": settings.augment_augmented,
    }
    if any(others.values()):
        raise UserError(f"the reference loops run the defaults only of: {', '.join(k for k, other in others.items() if other)}")
    task, splits = load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=config_path.parent)
    return Inputs(config=config, task=task, splits=splits)


def solved(inputs: Inputs, rows: Sequence[Example], answer: Answerer) -> list[dict[str, Any]]:
    """Every row with the student's graded answer."""
    role = Solve(inputs.task, max_tokens=inputs.config.evaluation.max_tokens)
    return in_waves(role, [_stream_row(row) for row in rows], answer)


def augmented(inputs: Inputs, graded: Sequence[dict[str, Any]], iteration: int, answer: Answerer) -> list[dict[str, Any]]:
    """What the teacher was asked and wrote for the wrong ones among the graded seeds."""
    from llm2llm_ray.rounds.augmenting import Augment, Peers

    config = inputs.config
    role = Augment(
        inputs.task, Peers(inputs.task, inputs.seeds), teacher=config.teacher, settings=config.augmentation,
        iteration=iteration, run_seed=config.run.seed,
    )  # fmt: skip
    return in_waves(role, [row for row in graded if wrong(row)], answer)


def refused(request: Request, prompt_tokens: int, context: int) -> Reply | None:
    """What our engines say to a prompt that leaves no room for an answer, and None for one that does."""
    if answer_room(prompt_tokens, max_tokens=int(request.sampling["max_tokens"]), context=context) is not None:
        return None
    return Reply(text="", finish_reason="error", error=f"prompt_too_long: {prompt_tokens} tokens do not fit {context}")


def wrong(row: dict[str, Any]) -> bool:
    return not row["correct"] and not row["error"]


def in_waves(role: Any, rows: Sequence[dict[str, Any]], answer: Answerer) -> list[dict[str, Any]]:
    """Run a role over all rows. Whenever every row that is left waits for a reply, their requests are answered together."""
    return asyncio.run(_in_waves(role, rows, answer))


async def _in_waves(role: Any, rows: Sequence[dict[str, Any]], answer: Answerer) -> list[dict[str, Any]]:
    waiting: list[tuple[Request, asyncio.Future[Reply]]] = []
    loop = asyncio.get_running_loop()

    async def ask(request: Request) -> Reply:
        reply: asyncio.Future[Reply] = loop.create_future()
        waiting.append((request, reply))
        return await reply

    asking: AskModel = ask
    tasks = [loop.create_task(role(row, asking)) for row in rows]
    while True:
        await asyncio.sleep(0)  # every task runs until it ends or asks: roles wait for nothing else
        if not waiting:
            return [task.result() for task in tasks]
        wave = list(waiting)
        waiting.clear()
        for (_, future), reply in zip(wave, answer([request for request, _ in wave]), strict=True):
            future.set_result(reply)


def candidates(rows: Iterable[dict[str, Any]]) -> list[Candidate]:
    """The drafts that passed the stateless gates, in the commit's order."""
    from llm2llm_ray.augmentation.commit import Candidate

    found = (item for row in rows for item in json.loads(row["candidates"]))
    return sorted((Candidate(**(item | {"lineage": Lineage(**item["lineage"])})) for item in found), key=lambda c: c.order)


def admitted(gates: CommitGates, drafts: Iterable[Candidate]) -> list[Example]:
    from llm2llm_ray.augmentation.commit import Admitted

    return [verdict.example for verdict in gates.admit(drafts) if isinstance(verdict, Admitted)]


def write_examples(path: Path, rows: Iterable[Example]) -> None:
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def read_examples(path: Path) -> list[Example]:
    found = (json.loads(line) for line in path.read_text().splitlines())
    return [Example(**(row | {"lineage": row["lineage"] and Lineage(**row["lineage"])})) for row in found]


def _stream_row(row: Example) -> dict[str, Any]:
    return {"id": row.id, "input": row.input, "output": row.output, "origin": row.origin, "seed_id": None}
