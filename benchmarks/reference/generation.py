"""How the careful loop computes answers: Hugging Face's forward pass, many prompts together, nothing computed for nothing.

Prompts are read laid end to end, without padding; then all write together, each token's keys and values going into memory
reserved at the start; a row that has ended leaves the batch.
Samples are drawn as vLLM's CPU sampler draws them, from the request's own seed, so that this loop and ours get the same rows as
far as rounding lets them.

    python -m benchmarks.reference.generation --config FILE [--set K=V] --student FOLDER --exam FILE

is the exam of whole_loop.py: the same for every loop's last student, and outside of all timings.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from benchmarks.reference.place import Place, place_of
from benchmarks.reference.stages import arguments, read_inputs, refused, solved
from llm2llm_ray.asking.request import Request
from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.runtime.models.folders import resolve_model
from llm2llm_ray.runtime.models.tokens import encode_prompt
from llm2llm_ray.runtime.training.packed_attention import packed_attention, packed_inputs
from llm2llm_ray.types import Reply

BATCH_ROWS = 64
"""Rows that write together. A step reads all weights once, however many rows there are; more than these only add cache."""
GROUP_TOKENS = 1024
"""Tokens read in one pass: enough for full matrix products, few enough to stay in the processor's caches."""
LIKELIEST = 1024
"""Tokens looked at for top-p; where they do not hold its mass, all are sorted. Sorting a vocabulary takes longer than a step."""


def load_model(folder: str, place: Place) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=place.dtype, attn_implementation="grouped_queries")
    return model.to(place.device).eval()


def end_to_end(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """What a model is called with to read rows one behind the other: no padding, and none of them sees another."""
    ids = torch.tensor([list(itertools.chain.from_iterable(rows))])
    inputs = {"input_ids": ids, **packed_inputs([len(row) for row in rows])}
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def grouped_queries(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *, cu_seq_lens_q: Any = None, **more: Any
) -> Any:
    """Rows laid end to end, as our training attends them. Or one new token per row: query heads of a key head are taken as
    queries, where transformers would copy keys and values for each."""
    if cu_seq_lens_q is not None:
        return packed_attention(module, query, key, value, mask, cu_seq_lens_q=cu_seq_lens_q, **more)
    if query.shape[2] > 1 or mask is None:
        return sdpa_attention_forward(module, query, key, value, mask, **more)
    rows, heads, _, size = query.shape
    grouped = query.view(rows, key.shape[1], -1, size)
    found = torch.nn.functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=more["scaling"])
    return found.reshape(rows, 1, heads, size), None


AttentionInterface.register("grouped_queries", grouped_queries)


class Reserved(DynamicLayer):
    """Keys and values of one layer with room for all that will be written: DynamicLayer copies everything for every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.is_initialized = True
        self.place(keys, values, used)

    def place(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        self.room, self.used = (keys, values), used
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        end = self.used + key_states.shape[2]
        self.room[0][:, :, self.used : end] = key_states
        self.room[1][:, :, self.used : end] = value_states
        self.place(*self.room, end)
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        self.place(self.room[0][rows], self.room[1][rows], self.used)


@dataclass(slots=True)
class Writing:
    """One request on its way."""

    request: Request
    prompt: list[int]
    most: int
    written: list[int] = field(default_factory=list)
    reason: str = ""
    """Why it ended; "" while it goes on."""
    text: str = ""
    noise: torch.Generator | None = None


class Writer:
    """A model that answers requests. `context` is the most tokens of prompt and answer."""

    def __init__(self, model: Any, tokenizer: Any, context: int) -> None:
        self._model, self._tokenizer, self._context = model, tokenizer, context
        ends = model.generation_config.eos_token_id
        self._ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        asked = [(request, prompt_ids(self._tokenizer, request)) for request in requests]
        replies = [refused(request, len(prompt), self._context) for request, prompt in asked]
        writings = {place: self._begun(*asked[place]) for place, reply in enumerate(replies) if reply is None}
        by_length = sorted(writings.values(), key=lambda writing: len(writing.prompt))
        for start in range(0, len(by_length), BATCH_ROWS):
            self._write(by_length[start : start + BATCH_ROWS])
        return [reply or self._reply(writings[place]) for place, reply in enumerate(replies)]

    def _begun(self, request: Request, prompt: list[int]) -> Writing:
        most = min(int(request.sampling["max_tokens"]), self._context - len(prompt))
        seed = request.sampling.get("seed") if request.sampling["temperature"] else None
        noise = None if seed is None else torch.Generator(self._model.device).manual_seed(int(seed))
        return Writing(request=request, prompt=prompt, most=most, noise=noise)

    def _reply(self, writing: Writing) -> Reply:
        text, reasoning = split_reasoning(writing.text)
        return Reply(
            text=text, finish_reason=writing.reason, prompt_tokens=len(writing.prompt),
            completion_tokens=len(writing.written), reasoning=reasoning,
        )  # fmt: skip

    def _write(self, rows: list[Writing]) -> None:
        """All of one batch to their end; `rows` are sorted by the length of their prompts."""
        width, most = len(rows[-1].prompt), max(row.most for row in rows)
        cache, logits = self._read(rows, width, width + most)
        mask = torch.zeros(len(rows), 1, 1, width + most, dtype=self._model.dtype)
        for number, row in enumerate(rows):
            mask[number, :, :, : width - len(row.prompt)] = float("-inf")
        going, device = rows, self._model.device
        mask = mask.to(device)
        while True:
            for row, token in zip(going, self._chosen(logits, going), strict=True):
                if not row.reason:
                    self._take(row, token)
            left = [number for number, row in enumerate(going) if not row.reason]
            if not left:
                return
            if len(left) <= 0.75 * len(going):  # dropping rows copies the cache of the others
                chosen = torch.tensor(left, device=device)
                for layer in cache.layers:
                    layer.keep(chosen)
                going, mask = [going[number] for number in left], mask[chosen]
            tokens = torch.tensor([[row.written[-1]] for row in going], device=device)
            positions = torch.tensor([[len(row.prompt) + len(row.written) - 1] for row in going], device=device)
            seen = cache.layers[0].used + 1
            logits = self._model(
                input_ids=tokens, position_ids=positions, attention_mask=mask[..., :seen], past_key_values=cache, use_cache=True
            ).logits[:, -1]

    def _read(self, rows: list[Writing], width: int, room: int) -> tuple[Cache, torch.Tensor]:
        """Read all prompts; their keys and values end at column `width`, so that what is written next stands side by side."""
        layers: list[Reserved] = []
        last: list[torch.Tensor] = []
        for first, group in groups(rows):
            together = end_to_end([row.prompt for row in group], self._model.device)
            lengths = [len(row.prompt) for row in group]
            read = self._model.model(**together, use_cache=True)
            last.append(read.last_hidden_state[0, together["cu_seq_lens_q"][1:] - 1])
            for number, layer in enumerate(read.past_key_values.layers):
                if number == len(layers):
                    _, heads, _, size = layer.keys.shape
                    empty = [layer.keys.new_zeros(len(rows), heads, room, size) for _ in range(2)]
                    layers.append(Reserved(*empty, width))
                for to, of in zip(layers[number].room, (layer.keys, layer.values), strict=True):
                    for at, part in enumerate(of[0].split(lengths, dim=1), first):
                        to[at, :, width - part.shape[1] : width] = part
        return Cache(layers=layers), self._model.lm_head(torch.cat(last))

    def _chosen(self, logits: torch.Tensor, rows: Sequence[Writing]) -> list[int]:
        sampling = rows[0].request.sampling  # the same for all requests of a role, but for the seed
        if not sampling["temperature"]:
            found: list[int] = logits.argmax(dim=-1).tolist()
            return found
        return sampled(logits.float() / sampling["temperature"], float(sampling["top_p"]), [row.noise for row in rows])

    def _take(self, row: Writing, token: int) -> None:
        row.written.append(token)
        row.text = self._tokenizer.decode(row.written, skip_special_tokens=True)
        cuts = [at for at in (row.text.find(stop) for stop in row.request.prompt.stop) if at >= 0]
        if token in self._ends:
            row.reason = "stop"
        elif cuts:
            row.reason, row.text = "stop", row.text[: min(cuts)]
        elif len(row.written) == row.most:
            row.reason = "length"


def prompt_ids(tokenizer: Any, request: Request) -> list[int]:
    prompt = request.prompt
    if not prompt.messages:
        return encode_prompt(tokenizer, prompt.text)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def groups(rows: Sequence[Writing]) -> Iterator[tuple[int, Sequence[Writing]]]:
    """(number of the first, rows) of each pass over prompts."""
    first = tokens = 0
    for number, row in enumerate(rows):
        if number > first and tokens + len(row.prompt) > GROUP_TOKENS:
            yield first, rows[first:number]
            first, tokens = number, 0
        tokens += len(row.prompt)
    yield first, rows[first:]


def sampled(logits: torch.Tensor, top_p: float, noises: Sequence[torch.Generator | None]) -> list[int]:
    """One token per row: the likeliest after their mass is divided by exponential noise over the whole vocabulary (as vLLM)."""
    share = logits.softmax(dim=-1)
    noise = torch.empty_like(share)
    for row, generator in zip(noise, noises, strict=True):
        row.exponential_(generator=generator)
    if top_p >= 1:
        anything: list[int] = (share / noise).argmax(dim=-1).tolist()
        return anything
    best, places = share.topk(min(LIKELIEST, share.shape[-1]), dim=-1)
    if bool((best.sum(dim=-1) < top_p).any()):
        best, places = share.sort(dim=-1, descending=True)
    best = best.masked_fill(best.cumsum(dim=-1) - best >= top_p, 0.0)
    picked = (best / noise.gather(1, places)).argmax(dim=-1, keepdim=True)
    found: list[int] = places.gather(1, picked).flatten().tolist()
    return found


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--student", required=True, help="a model folder")
    parser.add_argument("--exam", type=Path, required=True, help="write {row id: correct} of the test rows here")
    given = parser.parse_args()
    inputs = read_inputs(given.config, given.overrides)
    folder = resolve_model(given.student)
    model = load_model(folder, place_of(inputs.config))
    writer = Writer(model, AutoTokenizer.from_pretrained(folder), inputs.config.student.engine.max_model_len)
    marks = {row["id"]: bool(row["correct"]) for row in solved(inputs, inputs.splits.test, writer.answer)}
    given.exam.write_text(json.dumps(marks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
