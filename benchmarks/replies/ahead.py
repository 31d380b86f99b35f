"""The prompts that a run may ask its teacher, whichever rows its student gets wrong: JSON lines, to be answered by somebody.

    python -m benchmarks.replies.ahead teacher jobs/demo.yaml --calls 4 > prompts.jsonl
    python -m benchmarks.replies.ahead judge jobs/demo.yaml --replies answered.jsonl > votes.jsonl
    python -m benchmarks.replies.ahead check jobs/demo.yaml > check.jsonl

`teacher`: a line for each seed row and call. `judge`: one for each text in the teacher's replies that the stateless gates let
pass, in an order that says nothing about the label asked for. `check`: the teacher's own exam on the dev rows
(evaluation.check_teacher). A prompt is known ahead only where no student's answer stands in it, so
`augmentation.show_wrong_answer` is refused. Whoever answers adds `reply` to each line; `joined.py` makes a file of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm2llm_ray.asking.request import Request
from llm2llm_ray.augmentation.gates import check as gate
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.config.schedule import asking, rows_per_call
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.blind_exam import blind_exam, shown_blind
from llm2llm_ray.rounds.folds import folds_for
from llm2llm_ray.rounds.judging import Judge
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.splits import Splits, load_splits
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Draft, Example, Graded


class Ahead:
    """A config's rows and the roles that ask about them."""

    def __init__(self, config: Config, folder: Path) -> None:
        if config.augmentation.show_wrong_answer:
            raise UserError("augmentation.show_wrong_answer: what a student will say is not known ahead; turn it off")
        self.config = config
        self.task, self.splits = _rows(config, folder)
        self._folds = folds_for(config, self.task, self.splits.seed)
        self._peers = Peers(self.task, self.splits.seed, self._folds)

    def teacher(self, calls: int) -> Iterator[Request]:
        """The first attempt of each row's calls, as many in all as `calls` says."""
        settings = asking(self.config)
        each = len(rows_per_call(settings.per_wrong, settings.per_call))
        for row in self.splits.seed:
            for ordinal in range(calls):
                yield self._augment(ordinal // each).request(self._unanswered(row), ordinal, 0)

    def texts(self, replies: Iterable[Mapping[str, Any]]) -> list[str]:
        """Texts that the stateless gates let pass, each once, in an order drawn from the texts."""
        by_id = {row.id: row for row in self.splits.seed}
        found = set()
        for line in replies:
            parent = self._unanswered(by_id[line["row_id"]])
            count = self.config.augmentation.per_call
            for item in self.task.parse(line["reply"], parent, style=self.config.teacher.style, count=count, cut=False):
                if isinstance(item, Draft) and gate(item, parent, self.task, self.config.augmentation) is None:
                    found.add(item.input)
        return sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())

    def judge(self, texts: Iterable[str]) -> Iterator[Request]:
        """All votes on these texts."""
        judge = self._judge()
        for text in texts:
            yield from (judge.request(text, number) for number in range(self.config.gates.relabel.votes))

    def check(self) -> Iterator[Request]:
        """The teacher's exam on the dev rows."""
        role = blind_exam(self.config, self.task, self.splits.seed)
        yield from (role.request(row.id, row.input) for row in self.splits.dev)

    def _judge(self) -> Judge:
        config = self.config
        shown = shown_blind(self.task, self.splits.seed, config.gates.relabel.examples)
        return Judge(self.task, shown, settings=config.gates.relabel, asked=config.voter, run_seed=config.run.seed)

    def _unanswered(self, row: Example) -> Graded:
        return Graded(example=row, completion="", answer=None, correct=False, fold=self._folds.get(row.id))

    def _augment(self, iteration: int) -> Augment:
        config = self.config
        return Augment(
            self.task, self._peers, teacher=config.teacher, settings=config.augmentation, iteration=iteration,
            run_seed=config.run.seed,
        )  # fmt: skip


def _rows(config: Config, folder: Path) -> tuple[Task, Splits]:
    return load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("teacher", "judge", "check"))
    parser.add_argument("config", type=Path)
    parser.add_argument("--calls", type=int, default=1, help="calls per row, over all iterations")
    parser.add_argument("--replies", type=Path, help="judge: the answered lines of `teacher`")
    given = parser.parse_args()
    ahead = Ahead(load_config(given.config), given.config.parent)
    match given.what:
        case "teacher":
            requests = ahead.teacher(given.calls)
        case "judge":
            if given.replies is None:
                parser.error("judge needs --replies: the texts to vote on stand in the teacher's replies")
            requests = ahead.judge(ahead.texts(map(json.loads, given.replies.open(encoding="utf-8"))))
        case _:
            requests = ahead.check()
    for request in requests:
        print(json.dumps(asdict(request), ensure_ascii=False))


if __name__ == "__main__":
    main()
