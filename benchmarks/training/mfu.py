"""Training tokens per second and MFU of Llama shapes with random weights: our update path on one device, one process a case.

    python -m benchmarks.training.mfu --device cpu --shape tiny --zero 0 2 3 --sequence 128 --per-pass 2 [--json FILE]
    python -m benchmarks.training.mfu --device gpu --shape 1b 7b --zero 2 3 --method full lora --peak-tflops 989     # not run

A pass lays rows of an eighth to three eighths of --sequence tokens end to end, --per-pass x --sequence tokens in the mean; half
of each row is completion. MFU is model FLOPs over --peak-tflops (dense, of the precision trained in: 989 for bfloat16 on an
H200): per token 6 FLOPs for each weight of the layers (4 with LoRA, whose base weights get no gradient), the same for the head's
weights at completion tokens only, and 12 x layers x width x half the row's length for attention (Chowdhery et al. 2022,
appendix B; causal).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring.measurement import Claim, Measurement, Rows

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 128, "vocab_size": 512, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
           "intermediate_size": 11_008, "vocab_size": 32_000, "tie_word_embeddings": False},
}  # fmt: skip
"""Of Llama 3.2 1B and Llama 2 7B."""
WARM_UP = 3
ANSWER = "answer: "


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["tiny"])
    parser.add_argument("--zero", nargs="+", type=int, choices=(0, 1, 2, 3), default=[2, 3])
    parser.add_argument("--method", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--sequence", type=int, default=1024)
    parser.add_argument("--per-pass", type=int, default=8, help="sequences' worth of tokens in a pass; an update is one pass")
    parser.add_argument("--updates", type=int, default=10, help=f"timed one by one, after {WARM_UP} more")
    parser.add_argument("--peak-tflops", type=float, help="of the device; without it no MFU is told")
    parser.add_argument("--small", action="store_true", help="two cases of a tiny model on CPU: that all of it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.small:
        given.device, given.shape, given.zero, given.peak_tflops = "cpu", ["tiny"], [2], 1.0
        given.sequence, given.per_pass, given.updates = 64, 1, 2
    return given


def make_model(shape: str, folder: Path, longest: int) -> None:
    """A model folder of this shape, with random weights in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=max(2048, longest), dtype="bfloat16")
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def drawn_rows(given: argparse.Namespace, vocabulary: int) -> list[Any]:
    """Rows for one update; four to a sequence."""
    from llm2llm_ray.runtime.models.tokens import Row

    rng = random.Random(0)
    lengths = [rng.randint(given.sequence // 8, 3 * given.sequence // 8) for _ in range(4 * given.per_pass)]
    return [Row(tuple(rng.randrange(3, vocabulary) for _ in range(length)), length // 2) for length in lengths]


def flops(shape: dict[str, Any], rows: list[Any], method: str) -> float:
    """Model FLOPs of one update over these rows; see the module."""
    width, layers, head = shape["hidden_size"], shape["num_hidden_layers"], shape["hidden_size"] // shape["num_attention_heads"]
    attention = 2 * width * width + 2 * width * head * shape["num_key_value_heads"]
    weights = layers * (attention + 3 * width * shape["intermediate_size"])
    each, total = (6 if method == "full" else 4), 0.0
    for row in rows:
        length = len(row.ids)
        total += each * (weights * length + shape["vocab_size"] * width * row.n_completion)
        total += 12 * layers * width * (length / 2) * length
    return total


def prepared(device: str) -> Any:
    """The torch device, inside a process group of one rank."""
    import torch

    from benchmarks.training.one_rank import start_group
    from llm2llm_ray.runtime.training.engine import prepare_process

    start_group("nccl" if device == "gpu" else "gloo")
    if device == "cpu":
        return prepare_process("cpu", None)
    torch.cuda.set_device(0)  # what Ray Train's worker does; there is none here
    return torch.device("cuda", 0)


def run_case(given: argparse.Namespace) -> dict[str, Any]:
    """One shape, stage and method, in this process."""
    import torch

    from llm2llm_ray.config import StudentConfig
    from llm2llm_ray.runtime.training.engine import Progress, engine_report, start_engine
    from llm2llm_ray.runtime.training.packed_attention import use_packing
    from llm2llm_ray.runtime.training.update import Training, run_update

    case = json.loads(given.case)
    rows = drawn_rows(given, SHAPES[case["shape"]]["vocab_size"])
    device = prepared(given.device)
    student = StudentConfig(
        model=case["model"], method=case["method"], zero_stage=case["zero"], learning_rate=1e-5,
        global_batch_size=len(rows), micro_batch_size=len(rows), max_length=given.sequence,
    )  # fmt: skip
    engine = start_engine(case["model"], student, device=given.device, workers=1, micro=len(rows))
    padded = use_packing(engine, max(len(row.ids) for row in rows))
    training = Training(
        student=student, engine=engine, rows=rows, pad_id=0, micro=len(rows), rank=0, workers=1, device=device,
        total=WARM_UP + given.updates, progress=Progress(),
    )  # fmt: skip
    seconds = []
    for _ in range(training.total):
        began = time.perf_counter()
        done = run_update(training, list(range(len(rows))), training.lengths)  # has the loss: the device is done
        seconds.append(time.perf_counter() - began)
    gpu = given.device == "gpu"
    return {
        **case, "seconds": seconds[WARM_UP:], "tokens": done.tokens, "loss": done.loss, "padded_because": padded,
        "flops": flops(SHAPES[case["shape"]], rows, case["method"]), "engine": engine_report(engine),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if gpu else None,
    }  # fmt: skip


def in_own_process(given: argparse.Namespace, case: dict[str, Any]) -> dict[str, Any]:
    line = [
        sys.executable,
        "-m",
        "benchmarks.training.mfu",
        "--case",
        json.dumps(case),
        "--device",
        given.device,
        "--sequence",
        str(given.sequence),
    ]
    line += ["--per-pass", str(given.per_pass), "--updates", str(given.updates)]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    answers = [told for told in done.stdout.splitlines() if told.startswith(ANSWER)]
    if done.returncode or not answers:
        raise SystemExit(f"{case}: exit code {done.returncode}\n{done.stdout[-3000:]}")
    return dict(json.loads(answers[-1].removeprefix(ANSWER)))


def main() -> int:
    given = options()
    if given.case:
        print(f"{ANSWER}{json.dumps(run_case(given))}", flush=True)
        return 0
    found = []
    for shape in given.shape:
        with tempfile.TemporaryDirectory(prefix="llm2llm-mfu-") as folder:
            make_model(shape, Path(folder), given.sequence)
            cases = [(zero, method) for method in given.method for zero in given.zero]
            found += [
                in_own_process(given, {"shape": shape, "zero": zero, "method": method, "model": folder}) for zero, method in cases
            ]
    claims, lines = [], []
    for case in found:
        del case["model"]
        median = statistics.median(case["seconds"])
        mfu = case["flops"] / median / (given.peak_tflops * 1e12) if given.peak_tflops else None
        lines.append(
            [case["shape"], case["method"], case["engine"]["zero_stage"], case["engine"]["dtype"], case["tokens"],
             median, case["tokens"] / median, mfu, case["peak_gib"], case["padded_because"]]
        )  # fmt: skip
        if mfu is not None:
            asked = 0.45 if case["method"] == "full" and case["shape"] != "tiny" else None
            claims.append(
                Claim(what=f"{case['shape']}, {case['method']}, ZeRO {case['zero']}: MFU", value=mfu, unit="", at_least=asked)
            )
    columns = ["shape", "method", "ZeRO stage", "dtype", "tokens an update", "s an update", "tokens/s", "MFU", "peak GiB"]
    table = Rows(title=f"training on one {given.device} (medians)", columns=[*columns, "padded because"], rows=lines)
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "case", "small")}
    measured = Measurement(benchmark="mfu", claims=claims, tables=[table], raw=found, settings=settings, small=given.small)
    return measured.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
