"""How weak a student is on a row, and what counts as wrong: `evaluation.judge_by`. Only in rounds; exams are always greedy.

- `greedy` (`Solve`): one greedy answer; weakness 0 where it is right, 1 where it is wrong.
- `pass_rate`: `evaluation.samples` sampled answers; weakness is the share of wrong ones, and a row of which fewer than
  `evaluation.weak_below` are right is wrong. No greedy answer is asked.
- `gold_loss`: the greedy answer says right or wrong; weakness is the mean loss of the gold completion's tokens (its end among
  them) in nats, so that rows can be ranked among the right ones too.

A row for which any of its requests has no answer is unanswered, and has no weakness.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from llm2llm_ray.accuracy import grade
from llm2llm_ray.asking.request import AskModel, Request, sampling_seed
from llm2llm_ray.asking.scores import score_request, scores_of
from llm2llm_ray.config import Config
from llm2llm_ray.rounds.solving import Solve
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Prompt


class PassRate:
    """The student's role where weakness is the share of sampled answers that are wrong."""

    def __init__(self, solve: Solve, *, samples: int, temperature: float, weak_below: float, run_seed: int) -> None:
        self._solve, self._samples, self._temperature = solve, samples, temperature
        self._weak_below, self._run_seed = weak_below, run_seed

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        """The row shows the commonest of the answers that are as right or wrong as the row is; of equals, the first."""
        started = time.time()
        replies = await asyncio.gather(*[ask(self._request(row, number)) for number in range(self._samples)])
        found = [self._solve.graded(row, reply, started) for reply in replies]
        tokens = {name: sum(one[name] for one in found) for name in ("prompt_tokens", "completion_tokens")}
        unanswered = next((one for one in found if one["error"]), None)
        if unanswered is not None:
            return unanswered | tokens
        right = [grade(one) == "right" for one in found]
        rate = fmean(right)
        alike = [one for one, is_right in zip(found, right, strict=True) if is_right == (rate >= self._weak_below)]
        (said, _), *_ = Counter(one["completion"] for one in alike).most_common()
        shown = next(one for one in alike if one["completion"] == said)
        return shown | tokens | {"weakness": 1 - rate}

    def _request(self, row: Mapping[str, Any], number: int) -> Request:
        greedy = self._solve.request(row["id"], row["input"])
        seed = sampling_seed(self._run_seed, row["id"], 0, number)
        sampling = {**greedy.sampling, "temperature": self._temperature, "seed": seed}
        return Request(row_id=row["id"], prompt=greedy.prompt, sampling=sampling, attempt=number)


class GoldLoss:
    """The student's role where weakness is the loss of the gold completion."""

    def __init__(self, solve: Solve, task: Task) -> None:
        self._solve, self._task = solve, task

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        started = time.time()
        gold = [self._task.completion(row["output"])]
        prompt = Prompt(text=self._task.student_prompt(row["input"]))
        asking = ask(score_request(row["id"], prompt, gold))
        solved: dict[str, Any]
        solved, scored = await asyncio.gather(self._solve(row, ask), asking)
        if solved["error"]:
            return solved
        if scored.error:
            return self._solve.graded(row, scored, started)
        (score,) = scores_of(scored)
        return solved | {"weakness": score.loss, "prompt_tokens": solved["prompt_tokens"] + scored.prompt_tokens}


def student_role(config: Config, task: Task, *, in_round: bool) -> Solve | PassRate | GoldLoss:
    """The student's part of a stream; an exam's is always greedy."""
    evaluation = config.evaluation
    solve = Solve(task, max_tokens=evaluation.max_tokens, structured=evaluation.student_held)
    if not in_round or evaluation.judge_by == "greedy":
        return solve
    if evaluation.judge_by == "gold_loss":
        return GoldLoss(solve, task)
    return PassRate(
        solve, samples=evaluation.samples, temperature=evaluation.sample_temperature, weak_below=evaluation.weak_below,
        run_seed=config.run.seed,
    )  # fmt: skip
