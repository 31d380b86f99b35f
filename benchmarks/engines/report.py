"""What evaluation.py and teacher.py have in common besides the engines: their options, tables and claims."""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks.engines.pairs import Pairs, Pass, own_ray
from benchmarks.measuring.environment import REPOSITORY
from benchmarks.measuring.measurement import Claim, Measurement, Rows, median_ratio
from llm2llm_ray.config import Config

ASKED = 0.90
_SMALL_PROMPTS = 16
_SMALL_TOKENS = 16
_DATA = REPOSITORY.parent / "shared/data/trec"


def options(about: str, prompts: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "jobs/trec_smollm2.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the config")
    parser.add_argument("--data", type=Path, default=_DATA, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--prompts", type=int, default=prompts)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny random model, few prompts, one pair: that all of it runs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.small:
        given.config, given.prompts, given.pairs = REPOSITORY / "benchmarks/two_engines.yaml", _SMALL_PROMPTS, 1
    return given


def overrides(given: argparse.Namespace, work: Path, name: str) -> list[str]:
    """What both benchmarks set: a run of their own and, in small mode, the smallest model there is."""
    found = [f"run.name=benchmark-{name}", f"run.folder={work}"]
    if given.small:
        from tests.integration.tiny import make_tiny_model

        tiny = make_tiny_model(work / "tiny")
        found += [
            f"student.model={tiny}",
            f"teacher.model={tiny}",
            "student.max_length=256",
            f"evaluation.max_tokens={_SMALL_TOKENS}",
            f"teacher.max_tokens={_SMALL_TOKENS}",
            "teacher.engine.max_model_len=1024",  # its tokenizer makes two tokens of what others make one of
            "evaluation.teacher_on_test=false",  # nobody asks for its exam, whose prompts are longer still
        ]
    else:
        found += [f"task.data={given.data.resolve()}"]
    return [*found, *given.set]


def work_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="llm2llm-benchmark-"))


def compare(
    name: str,
    role: Literal["student", "teacher"],
    given: argparse.Namespace,
    config: Config,
    work: Path,
    bare_in_flight: int | None,
) -> int:
    """Run the pairs, show and write them; the exit code."""
    with own_ray(config):
        pairs = Pairs(role, config, given.config.parent, work, bare_in_flight)
        try:
            found = pairs.run(given.pairs, _tell)
        finally:
            pairs.close()
    shutil.rmtree(work)
    return _measurement(name, given, config, role, pairs.engine, found).finish(given.json)


def _tell(done: Pass) -> None:
    print(f"{done.side}: {done.seconds:.1f} s, {done.rate:.0f} generated tokens/s", flush=True)


def _measurement(
    name: str, given: argparse.Namespace, config: Config, role: str, engine: Any, pairs: Sequence[tuple[Pass, Pass]]
) -> Measurement:
    ours, bare = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    settings = config.student.engine if role == "student" else config.teacher.engine
    sampling = f"{config.evaluation.max_tokens} tokens, greedy" if role == "student" else f"{config.teacher.max_tokens} tokens"
    model = config.student.model if role == "student" else config.teacher.model
    return Measurement(
        benchmark=name,
        claims=_claims(name, ours, bare, greedy=role == "student", small=given.small),
        tables=[_passes(pairs), _around_it(ours), _processors(ours, bare)],
        raw={"engine": engine, "passes": [_raw(item) for pair in pairs for item in pair]},
        settings={
            "prompts": len(ours[0].answers),
            "pairs": len(pairs),
            "model": "tiny random Llama" if given.small else model,
            "answers": sampling,
            "max_num_seqs": settings.max_num_seqs,
            "set": given.set,
        },
        small=given.small,
    )


def _raw(done: Pass) -> dict[str, Any]:
    """Without the texts: what was asked and answered, in sums."""
    told = asdict(done)
    del told["answers"]
    return told | {"requests": len(done.answers), "prompt_tokens": done.prompt_tokens, "generated": done.generated}


def _claims(name: str, ours: Sequence[Pass], bare: Sequence[Pass], *, greedy: bool, small: bool) -> list[Claim]:
    ratio = median_ratio([done.rate for done in ours], [done.rate for done in bare])
    times = median_ratio([done.seconds for done in bare], [done.seconds for done in ours])
    tokens = median_ratio([done.generated for done in ours], [done.generated for done in bare])
    equal = statistics.median(_equal(a, b) for a, b in zip(ours, bare, strict=True))
    itself = _equal(bare[0], bare[-1])
    around = statistics.median(_around(done) for done in ours)
    return [
        Claim(
            what=f"{name}: ours / bare vLLM, generated tokens per second",
            value=ratio,
            unit="x",
            at_least=None if small else ASKED,
            note=f"by time alone {times:.3f}; tokens generated, ours / bare {tokens:.4f}",
        ),
        Claim(
            what=f"{name}: share of answers that are the same, {'greedy' if greedy else 'sampled with seeds'}",
            value=equal,
            unit="",
            at_least=0.95 if greedy and not small else None,
            note=f"bare vLLM with itself {itself:.3f}" if len(bare) > 1 else "",
        ),
        Claim(what=f"{name}: processor time around the engine, ours", value=1000 * around, unit="ms per request"),
        Claim(
            what=f"{name}: processor use of the side that waits, at most",
            value=_idle(ours, bare),
            unit="of a core",
            at_most=None if small else 0.15,
        ),
    ]


def _equal(one: Pass, other: Pass) -> float:
    return sum(answer[0] == other.answers[name][0] for name, answer in one.answers.items()) / len(one.answers)


def _around(done: Pass) -> float:
    """Processor seconds per request outside of the engine's own two processes."""
    outside = {name: s for name, s in done.cpu.items() if name.startswith(done.side) and ": engine" not in name}
    return sum(outside.values()) / len(done.answers)


def _idle(ours: Sequence[Pass], bare: Sequence[Pass]) -> float:
    """The engine's two processes and their client; Ray's own upkeep is in the table."""
    engine = (": engine", ": replica", ": client")
    shares = [
        sum(s for name, s in done.cpu.items() if not name.startswith(done.side) and any(part in name for part in engine))
        / done.seconds
        for done in (*ours, *bare)
    ]
    return max(shares)


def _passes(pairs: Sequence[tuple[Pass, Pass]]) -> Rows:
    rows = [
        [number, ours.seconds, bare.seconds, ours.rate, bare.rate, ours.rate / bare.rate, ours.stolen, bare.stolen]
        for number, (ours, bare) in enumerate(pairs, 1)
    ]
    columns = ["pair", "ours s", "bare s", "ours tok/s", "bare tok/s", "ratio", "stolen s (ours)", "(bare)"]
    return Rows(title="First submission to last answer", columns=columns, rows=rows)


def _around_it(ours: Sequence[Pass]) -> Rows:
    names = ("mean_in_flight", "pipeline_start_s", "stored_s", "drain_s")
    columns = [
        "pair",
        "mean in flight",
        "start to first submission s",
        "to last reply durable s",
        "whole drain s",
    ]
    rows = [[number, *[done.more[name] for name in names]] for number, done in enumerate(ours, 1)]
    return Rows(title="Ours, and the pipeline around it", columns=columns, rows=rows)


def _processors(ours: Sequence[Pass], bare: Sequence[Pass]) -> Rows:
    """Medians over the passes."""
    names = {name for done in (*ours, *bare) for name in done.cpu}
    rows = [[name, _median(ours, name), _median(bare, name)] for name in names]
    rows.sort(key=lambda row: (str(row[0]).partition(":")[0], -max(row[1:])))
    rows.append(["all", *[statistics.median(sum(done.cpu.values()) for done in side) for side in (ours, bare)]])
    return Rows(title="Processor seconds in that time", columns=["processes", "while ours works", "while bare works"], rows=rows)


def _median(passes: Sequence[Pass], name: str) -> float:
    return statistics.median(done.cpu.get(name, 0.0) for done in passes)
