"""The loop's own series, next to Ray's and vLLM's, on the metrics endpoints of the cluster (`ray_llm2llm_*`).

For watching only: nothing is decided from them, and what a run reports is read from its records.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from ray.util.metrics import Counter, Gauge

from llm2llm_ray.accuracy import unanswered
from llm2llm_ray.types import Iteration, Reply

STAGES = ("engines", "train", "fold", "round", "commit", "exam", "baseline", "done")


@cache
def _gauge(name: str, about: str, *tags: str) -> Gauge:
    return Gauge(f"llm2llm_{name}", about, ("run", *tags))


@cache
def _counter(name: str, about: str, *tags: str) -> Counter:
    return Counter(f"llm2llm_{name}", about, ("run", *tags))


class RunMetrics:
    """What the driver knows: stage, iteration, rows, accuracy. One value per run."""

    def __init__(self, run: str) -> None:
        self._run = {"run": run}

    def stage(self, stage: str, iteration: int) -> None:
        """1 for the stage that runs, 0 for the others; exams of all kinds are one stage, and trainings without a fold are one."""
        now = stage.partition(" ")[0]
        for name in STAGES:
            _gauge("stage", "1 while this stage runs", "stage").set(float(name == now), self._run | {"stage": name})
        _gauge("iteration", "Iteration that runs, from 0").set(iteration, self._run)

    def finished(self, iteration: Iteration, *, new: bool) -> None:
        """Gauges always; counters only when the iteration is told for the first time."""
        tags = self._run | {"iteration": str(iteration.index)}
        round_ = iteration.round
        _gauge("dataset_rows", "Rows of D^i", "iteration").set(iteration.dataset.num_rows, tags)
        if round_.evaluated:
            accuracy = round_.accuracy.value
            _gauge("error_source_accuracy", "Share of the error source's rows answered right", "iteration").set(accuracy, tags)
        _gauge("error_source_unanswered", "Rows of the error source without an answer", "iteration").set(round_.unanswered, tags)
        if not new:
            return
        if round_.accepted:
            _counter("accepted", "Rows that passed all gates").inc(round_.accepted, self._run)
        for reason, count in round_.rejected.items():
            _counter("rejected", "Teacher texts that became no row", "reason").inc(count, self._run | {"reason": reason})

    def examined(self, accuracy: Mapping[str, Mapping[str, Any]]) -> None:
        for who, found in accuracy.items():
            tags = self._run | {"who": who}
            _gauge("test_accuracy", "Accuracy on the test set", "who").set(found["value"], tags)
            _gauge("test_unanswered", "Rows of the test set without an answer", "who").set(unanswered(found), tags)

    def replicas(self, role: str, count: int) -> None:
        _gauge("replicas", "Engine replicas asked for", "role").set(count, self._run | {"role": role})


class RoleMetrics:
    """What one `Asker` knows: requests, replies, tokens. What comes reply by reply is counted here and told by `tell`:
    Ray's metrics would take more of an asker's processor time than storing the replies does."""

    def __init__(self, run_root: str, role: str) -> None:
        self._tags = {"run": PurePath(run_root).name, "role": role}
        self._replies: Counted[str] = Counted()
        self._tokens: Counted[str] = Counted()
        self._replayed = 0

    def answered(self, reply: Reply) -> None:
        self._replies[reply.finish_reason] += 1
        self._tokens["prompt"] += reply.prompt_tokens
        self._tokens["completion"] += reply.completion_tokens

    def replayed(self) -> None:
        self._replayed += 1

    def retried(self) -> None:
        """A request was sent again because a replica or its queue did not take it."""
        _counter("retries", "Requests sent again", "role").inc(1, self._tags)

    def tell(self, *, rows: int, in_flight: int) -> None:
        """What came since the last time, `rows` that passed the role among it, and how many requests are open now."""
        _gauge("requests_in_flight", "Requests open to a model", "role").set(in_flight, self._tags)
        if rows:
            _counter("rows", "Rows that passed a role", "role").inc(rows, self._tags)
        if self._replayed:
            _counter("replayed", "Replies taken from the store instead of asked", "role").inc(self._replayed, self._tags)
        for finish, count in self._replies.items():
            _counter("replies", "Replies of a model", "role", "finish").inc(count, self._tags | {"finish": finish})
        for kind, count in (+self._tokens).items():
            _counter("tokens", "Tokens of answered requests", "role", "kind").inc(count, self._tags | {"kind": kind})
        self._replayed = 0
        self._replies.clear()
        self._tokens.clear()
