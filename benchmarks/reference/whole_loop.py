"""The whole loop against two loops of our own making without Ray: same models, rows, seeds, settings, prompts, graders, gates.

    python -m benchmarks.reference.whole_loop [--rounds 3] [--official-rounds 1] [--set K=V ...] [--json FILE]

`ours` is `llm2llm run`, cold, with Ray, engines and all that keeps a run safe. `careful` (careful.py) is one Hugging
Face process made as fast as we could; `official` (official.py) works as the released scripts do. Each is a command
timed from outside, one after the other, `--rounds` times. Exams are left out of all three; the last students sit the same exam
afterwards.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measuring.environment import REPOSITORY
from benchmarks.measuring.measurement import Claim, Measurement, Rows, median_ratio
from benchmarks.reference.laps import SIDES, Lap, Side, Track
from llm2llm_ray.accuracy import paired_difference, proportion

ASKED: Mapping[Side, tuple[float, float]] = {"careful": (1.0, 1.0), "official": (3.0, 10.0)}
"""Times as long as ours, at least; on CPU and on a GPU."""
KINDS = ("start", "load", "train", "evaluate", "augment", "gates", "save")
_COMPUTED = {"train": "trained", "evaluate": "student", "augment": "teacher"}
SMALL = (
    "run.iterations=2", "task.seeds_per_class=1", "task.test_rows=8", "student.updates=3", "student.max_length=256",
    "student.engine.kv_cache_gib=0.1", "teacher.engine.kv_cache_gib=0.1", "teacher.max_tokens=16", "augmentation.attempts=2",
)  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "jobs/trec_smollm2.yaml")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/trec", help="train.jsonl and test.jsonl")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="K=V", help="a field, for all three")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--official-rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="leave some out, to try the others")
    parser.add_argument(
        "--official-stops", action="store_true", help="the official loop ends a batch when all its rows have ended"
    )
    parser.add_argument("--small", action="store_true", help="a tiny random model, one round: that all do the same work")
    parser.add_argument("--keep", type=Path, help="leave logs, rows and students here")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.small:
        given.config, given.rounds, given.official_rounds = REPOSITORY / "benchmarks/two_engines.yaml", 1, 1
    return given


def overrides(given: argparse.Namespace, work: Path) -> tuple[str, ...]:
    if not given.small:
        return f"task.data={given.data.resolve()}", f"run.iterations={given.iterations}", *given.overrides
    from tests.integration.tiny import make_tiny_model

    tiny = make_tiny_model(work / "tiny")
    return f"student.model={tiny}", f"teacher.model={tiny}", *SMALL, *given.overrides


def run_laps(given: argparse.Namespace, track: Track) -> list[Lap]:
    """ABCABC, so that what changes on the machine meanwhile meets all of them."""
    laps: list[Lap] = []
    for number in range(given.rounds):
        for side in given.sides:
            if side == "official" and number >= given.official_rounds:
                continue
            lap = track.lap(side, number)
            print(f"round {number}: {side} {lap.seconds:.1f} s", file=sys.stderr, flush=True)
            laps.append(lap)
            if number:  # half a gigabyte for each student
                shutil.rmtree(track.work / f"{side}-{number - 1}")
    return laps


def newest(laps: Sequence[Lap]) -> dict[Side, Lap]:
    return {lap.side: lap for lap in laps}


def time_table(laps: Sequence[Lap]) -> Rows:
    rows = []
    for side in newest(laps):
        mine = [lap for lap in laps if lap.side == side]
        kinds = [statistics.median(lap.of(kind) for lap in mine) for kind in KINDS]
        rest = statistics.median(lap.rest for lap in mine)
        rows.append([side, len(mine), statistics.median(lap.seconds for lap in mine), *kinds, rest])
    title = (
        "where the time goes, seconds (medians; ours: load has engines, training workers and export, else has Ray Data's start)"
    )
    return Rows(title=title, columns=["loop", "laps", "wall", "start, imports", *KINDS[1:], "else"], rows=rows)


def work_table(laps: Sequence[Lap]) -> Rows:
    rows = []
    for side, lap in newest(laps).items():
        for turn in lap.outcome.turns:
            spans = [span for span in lap.outcome.spans if span.iteration == turn.index]
            tokens = [sum(span.tokens for span in spans if span.what == what) for what in _COMPUTED]
            answered = sum(span.rows for span in spans if span.what == "evaluate")
            counts = [turn.rows, turn.updates, answered, turn.evaluated, turn.wrong, turn.asked, turn.accepted]
            rows.append([side, turn.index, *counts, *tokens])
    columns = ["loop", "iteration", "rows", "updates", "answered", "seeds graded", "wrong", "teacher asked", "accepted"]
    title = "the work of the last lap (tokens without padding and without what is cut off)"
    return Rows(title=title, columns=[*columns, *(f"{name} tokens" for name in _COMPUTED.values())], rows=rows)


def student_table(laps: Mapping[Side, Lap], marks: Mapping[Side, Mapping[str, bool]]) -> Rows:
    rows = []
    for side, lap in laps.items():
        found, ours = proportion(sum(marks[side].values()), len(marks[side])), laps.get("ours")
        shared = None if ours is None else len(set(lap.outcome.last_rows) & set(ours.outcome.last_rows))
        accuracy = [found.hits, found.total, found.value, found.low, found.high]
        rows.append([side, *accuracy, len(lap.outcome.last_rows), shared])
    columns = ["loop", "right", "of", "accuracy", "95 % low", "high", "rows trained on", "of them in ours"]
    return Rows(title="the last students on the test rows", columns=columns, rows=rows)


def claims(laps: Sequence[Lap], marks: Mapping[Side, Mapping[str, bool]], *, small: bool, gpu: bool) -> list[Claim]:
    found = []
    last = newest(laps)
    for side, asked in ((side, bounds[gpu]) for side, bounds in ASKED.items()):
        theirs = {lap.round: lap for lap in laps if lap.side == side}
        pairs = [(lap, theirs[lap.round]) for lap in laps if lap.side == "ours" and lap.round in theirs]
        if not pairs:
            continue
        updates = [sum(turn.updates for turn in last[who].outcome.turns) for who in ("ours", side)]
        ratio = median_ratio([lap.seconds for _, lap in pairs], [lap.seconds for lap, _ in pairs])
        note = f"median of {len(pairs)} pair(s); updates {updates[0]} and {updates[1]}"
        found.append(Claim(what=f"time of {side} / ours", value=ratio, unit="x", at_least=None if small else asked, note=note))
        difference = paired_difference(marks["ours"], marks[side])
        noise = difference.high - difference.value
        told = f"95 % interval {difference.low:.3f} to {difference.high:.3f}: {difference.verdict}"
        found.append(
            Claim(
                what=f"accuracy of ours - {side}", value=difference.value, unit="", at_least=None if small else -noise, note=told
            )
        )
    return found


def same_work(laps: Mapping[Side, Lap]) -> bool:
    """Whether all loops made as many updates and graded as many seeds in each iteration."""
    counts = [[(turn.updates, turn.evaluated) for turn in lap.outcome.turns] for lap in laps.values()]
    return all(count == counts[0] and all(all(pair) for pair in count) for count in counts)


def main() -> int:
    given = options()
    work = given.keep or Path(tempfile.mkdtemp(prefix="llm2llm-reference-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        track = Track(config=given.config, overrides=overrides(given, work), work=work.resolve(), stop_early=given.official_stops)
        laps = run_laps(given, track)
        last = newest(laps)
        marks = {side: track.exam(lap) for side, lap in last.items()}
    finally:
        if not given.keep:
            shutil.rmtree(work, ignore_errors=True)
    measured = Measurement(
        benchmark="reference", claims=claims(laps, marks, small=given.small, gpu=track.gpu),
        tables=[time_table(laps), work_table(laps), student_table(last, marks)],
        raw={"laps": [_raw(lap) for lap in laps]},
        settings={
            "iterations": given.iterations, "rounds": given.rounds, "official_rounds": given.official_rounds,
            "set": given.overrides, "official_stops": given.official_stops,
        },
        small=given.small,
    )  # fmt: skip
    code = measured.finish(given.json)
    if given.small and not same_work(last):
        print("the loops did not do the same work", file=sys.stderr)
        return 1
    return code


def _raw(lap: Lap) -> dict[str, Any]:
    """Without the student's folder and texts of rows: a machine's paths and data stay out of a result."""
    told = asdict(lap)
    del told["outcome"]["student"], told["outcome"]["last_rows"]
    return told


if __name__ == "__main__":
    sys.exit(main())
