"""How much memory a conversion from GGUF takes beside the weights that it writes, in a process of its own, imports included.

    python -m benchmarks.models.gguf_memory            # Qwen2's shape at 1.5B, 3.1 GB as bfloat16 and 6.2 GB as float32
    python -m benchmarks.models.gguf_memory --small

The file is made here: blocks of Q4_1 whose values mean nothing, since neither time nor memory depends on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from benchmarks.measuring.measurement import Claim, Measurement, Rows

_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
_Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("quants", "u1", 16)])
"""A block of 32 values: scale * q + minimum; the low halves of the bytes are the first 16 q, the high halves the others."""
MOST = 1.3
"""Times the weights written."""
_MEASURE = """
import resource, sys, time
from pathlib import Path
from gguf import GGUFReader, dequantize
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM
from llm2llm_ray.runtime.models.gguf import convert_gguf
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, began = peak(), time.monotonic()
convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
print(before, peak(), time.monotonic() - began)
"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a Qwen2 whose head is its input embedding."""

    vocabulary: int
    hidden: int
    between: int
    layers: int
    heads: int
    kv_heads: int


QWEN_1_5B = Shape(vocabulary=151936, hidden=1536, between=8960, layers=28, heads=12, kv_heads=2)
SMALL = Shape(vocabulary=2048, hidden=1024, between=8192, layers=4, heads=8, kv_heads=2)
"""117M weights."""


def write_qwen2(path: Path, shape: Shape) -> None:
    """The matrices in blocks of Q4_1, norms and biases in float32, as llama.cpp has them."""
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(1024)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.between)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    tokens = ["<|end|>", *map(chr, range(97, 123)), "ab"]
    tokens += [f"<{n}>" for n in range(len(tokens), shape.vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (shape.vocabulary - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template(_TEMPLATE)
    kv = shape.hidden // shape.heads * shape.kv_heads
    matrices = {"token_embd": (shape.vocabulary, shape.hidden)}
    vectors = {"output_norm.weight": shape.hidden}
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        matrices |= {at + "attn_q": (shape.hidden,) * 2, at + "attn_k": (kv, shape.hidden), at + "attn_v": (kv, shape.hidden)}
        matrices |= {at + "attn_output": (shape.hidden,) * 2, at + "ffn_down": (shape.hidden, shape.between)}
        matrices |= {at + name: (shape.between, shape.hidden) for name in ("ffn_gate", "ffn_up")}
        vectors |= {at + f"{name}_norm.weight": shape.hidden for name in ("attn", "ffn")}
        vectors |= {at + "attn_q.bias": shape.hidden, at + "attn_k.bias": kv, at + "attn_v.bias": kv}
    for number, (name, (rows, columns)) in enumerate(matrices.items()):
        writer.add_tensor(f"{name}.weight", _blocks(rows, columns, number), raw_dtype=GGMLQuantizationType.Q4_1)
    for name, size in vectors.items():
        writer.add_tensor(name, np.linspace(0.5, 1.5, size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(rows: int, columns: int, seed: int) -> Any:
    """A few rows of random blocks, again and again."""
    random = np.random.default_rng(seed)
    made = np.zeros((min(rows, 64), columns // 32), _Q4_1)
    made["scale"], made["minimum"] = random.normal(0, 0.01, made.shape), random.normal(0, 0.02, made.shape)
    made["quants"] = random.integers(0, 256, (*made.shape, 16))
    return np.resize(made, (rows, columns // 32)).view(np.uint8)


def measure(source: Path, target: Path, dtype: str) -> dict[str, Any]:
    """Converts `source` into the new folder `target`."""
    target.mkdir()
    code = [sys.executable, "-c", _MEASURE, str(source), str(target), dtype]
    done = subprocess.run(code, check=True, stdout=subprocess.PIPE, text=True)
    before, peak, seconds = map(float, done.stdout.split()[-3:])
    written = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    return {"dtype": dtype, "written_bytes": written, "imports_bytes": before, "peak_bytes": peak, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="117M weights, where imports are most of it")
    parser.add_argument("--folder", help="where the files are made (10 GB), instead of the system's temporary folder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = SMALL if given.small else QWEN_1_5B
    runs = []
    with tempfile.TemporaryDirectory(prefix="gguf-", dir=given.folder) as folder:
        source = Path(folder) / "model.gguf"
        write_qwen2(source, shape)
        for dtype in ("bfloat16", "float32"):
            runs.append(measure(source, Path(folder) / dtype, dtype))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    what = ("written_bytes", "imports_bytes", "peak_bytes")
    rows = [[run["dtype"], *(run[key] / 1e9 for key in what), run["seconds"]] for run in runs]
    claims = [
        Claim(what=f"{run['dtype']}: peak / weights written", value=run["peak_bytes"] / run["written_bytes"], unit="x",
              at_most=None if given.small else MOST)
        for run in runs
    ]  # fmt: skip
    found = Measurement(
        benchmark="gguf_memory", claims=claims, raw=runs, settings=asdict(shape), small=given.small,
        tables=[Rows(title="Conversion from GGUF", columns=["as", "written GB", "imports GB", "peak GB", "seconds"], rows=rows)],
    )  # fmt: skip
    return found.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
