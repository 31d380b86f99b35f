"""One side of throughput.py in a process of its own: loads a student, warms up, then does as many updates as it is told to.

python -m benchmarks.training.sides SIDE PLAN: SIDE as in SIDES, PLAN a `Plan` as JSON. Every line on stdin is a number of
updates; the answer is a line on stdout that starts with ANSWER. Nothing is computed while it waits.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ANSWER = "answer: "
SIDES = {
    "ours": "ours: packed",
    "ours padded": "ours, padded",
    "dynamic": "Trainer, dynamic padding",
    "by length": "Trainer, group_by_length",
    "flattened": "Trainer, DataCollatorWithFlattening",
    "256": "Trainer, padded to 256",
}
FULL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    model: str
    rows: list[tuple[list[int], int]]
    """(ids, length of the prompt), update after update."""
    batch: int
    """Examples per update."""
    micro: int
    """Examples per pass."""
    updates: int
    """Most updates that will be asked for, warm-up among them."""
    warm_up: int
    threads: int
    zero_stage: int | None
    """None: the project's default."""
    learning_rate: float = 2e-5
    clipping: float = 1.0


class Rounds:
    """Answers on stdout and waits on stdin, between updates."""

    def __init__(self, plan: Plan, model: torch.nn.Module) -> None:
        self._plan, self._model = plan, model
        self._due, self._done = plan.warm_up, 0
        self._clock = (time.perf_counter(), time.process_time())

    def after_update(self, number: int, tokens: list[int], computed: list[int]) -> bool:
        """`tokens` and `computed` (with padding) of each update so far or further. False: no more are wanted."""
        if number < self._due:
            return True
        seconds, cpu = time.perf_counter() - self._clock[0], time.process_time() - self._clock[1]
        answer = {
            "updates": number - self._done,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "tokens": sum(tokens[self._done : number]),
            "computed": sum(computed[self._done : number]),
            "loss": self._loss(),
        }
        print(f"{ANSWER}{json.dumps(answer)}", flush=True)
        line = sys.stdin.readline()
        if not line:
            return False
        self._done, self._due = number, number + int(line)
        self._clock = (time.perf_counter(), time.process_time())
        return True

    @torch.no_grad()
    def _loss(self) -> float:
        """Of the first batch, now: two sides that did the same updates have the same."""
        from llm2llm_ray.runtime.models.tokens import Row
        from llm2llm_ray.runtime.training import batching

        rows = [Row(tuple(ids), n_prompt) for ids, n_prompt in self._plan.rows[: self._plan.batch]]
        total = 0.0
        for row in rows:
            part = batching.collate([row], 0)
            total += float(batching.loss_sum(self._model(**part.inputs, use_cache=False).logits, part.labels, part.weights))
        return total / sum(row.n_completion for row in rows)


def ours(plan: Plan, packed: bool) -> None:
    """The update path of `training_worker`: DeepSpeed's engine and `run_update`, on one worker, without Ray Train around it."""
    from benchmarks.training.one_rank import start_group
    from llm2llm_ray.config import StudentConfig
    from llm2llm_ray.runtime.models.tokens import Row
    from llm2llm_ray.runtime.training.engine import Progress, prepare_process, start_engine
    from llm2llm_ray.runtime.training.packed_attention import use_packing
    from llm2llm_ray.runtime.training.update import Training, run_update

    start_group("gloo")
    settings: dict[str, Any] = {} if plan.zero_stage is None else {"zero_stage": plan.zero_stage}
    student = StudentConfig(
        model=plan.model,
        global_batch_size=plan.batch,
        micro_batch_size=plan.micro,
        learning_rate=plan.learning_rate,
        gradient_clipping=plan.clipping,
        **settings,
    )
    device = prepare_process("cpu", plan.threads)
    rows = [Row(tuple(ids), n_prompt) for ids, n_prompt in plan.rows]
    engine = start_engine(plan.model, student, device="cpu", workers=1, micro=plan.micro)
    training = Training(
        student=student, engine=engine, rows=rows, pad_id=0, micro=plan.micro, rank=0, workers=1, device=device,
        total=plan.updates, progress=Progress(),
    )  # fmt: skip
    lengths = training.lengths
    if packed and (reason := use_packing(engine, max(lengths))):
        raise SystemExit(f"not packed: {reason}")
    rounds = Rounds(plan, engine.module)
    tokens: list[int] = []
    computed: list[int] = []
    for number in range(plan.updates):
        torch.manual_seed(number)
        batch = list(range(number * plan.batch, (number + 1) * plan.batch))
        _, real, padded, *_ = run_update(training, batch, lengths)
        tokens.append(real)
        computed.append(padded)
        if not rounds.after_update(number + 1, tokens, computed):
            break


def hugging_face(plan: Plan, side: str) -> None:
    """A Trainer with nothing on but training: fused AdamW, no logging, saving or evaluation, batches made in this process."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(plan.threads)
    model = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32)
    model.config.use_cache = False
    collator = Counted(AutoTokenizer.from_pretrained(plan.model), side)
    rounds = Rounds(plan, model)
    passes = plan.batch // plan.micro

    class Stops(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tokens, computed = (
                [sum(each[i : i + passes]) for i in range(0, len(each), passes)] for each in (collator.tokens, collator.computed)
            )
            control.should_training_stop = not rounds.after_update(state.global_step, tokens, computed)

    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * n_prompt + ids[n_prompt:]}
        for ids, n_prompt in plan.rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=True, max_steps=plan.updates,
            per_device_train_batch_size=plan.micro, gradient_accumulation_steps=passes,
            train_sampling_strategy="group_by_length" if side == "by length" else "sequential",
            optim="adamw_torch_fused", learning_rate=plan.learning_rate, lr_scheduler_type="constant",
            weight_decay=0.0, max_grad_norm=plan.clipping,
            logging_strategy="no", logging_nan_inf_filter=False, save_strategy="no", eval_strategy="no", report_to=[],
            disable_tqdm=True, dataloader_num_workers=0, dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Stops()]).train()


class Counted:
    """transformers' own collator for the side, and how many tokens each pass had without and with padding."""

    def __init__(self, tokenizer: Any, side: str) -> None:
        from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening

        self.tokens: list[int] = []
        self.computed: list[int] = []
        tokenizer.padding_side = "right"
        if side == "flattened":
            self._collate: Any = DataCollatorWithFlattening()
        elif side == "256":
            self._collate = DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=FULL)
        else:
            self._collate = DataCollatorForSeq2Seq(tokenizer, padding=True)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collate([dict(row) for row in rows])
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        self.computed.append(batch["input_ids"].numel())
        return batch


def equality(plan: Plan) -> dict[str, float]:
    """Loss and gradient of the first batches, packed against padded."""
    from transformers import AutoModelForCausalLM

    from llm2llm_ray.runtime.models.tokens import Row
    from llm2llm_ray.runtime.training import batching
    from llm2llm_ray.runtime.training.packed_attention import install

    torch.set_num_threads(plan.threads)
    model = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32).train()
    found: dict[str, list[tuple[float, torch.Tensor]]] = {"padded": [], "packed": []}
    for way, join in (("padded", batching.collate), ("packed", batching.pack)):
        if way == "packed":
            install(model)
        for start in range(0, 3 * plan.batch, plan.batch):
            rows = [Row(tuple(ids), n_prompt) for ids, n_prompt in plan.rows[start : start + plan.batch]]
            part = join(rows, 0)
            model.zero_grad()
            scores = model(**part.inputs, use_cache=False).logits
            loss = batching.loss_sum(scores, part.labels, part.weights) / sum(row.n_completion for row in rows)
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            found[way].append((float(loss.detach()), gradient))
    pairs = list(zip(found["packed"], found["padded"], strict=True))
    return {
        "loss": max(abs(a[0] - b[0]) for a, b in pairs),
        "gradient": max(float((a[1] - b[1]).norm() / b[1].norm()) for a, b in pairs),
    }


def main() -> None:
    side, plan = sys.argv[1], Plan(**json.loads(Path(sys.argv[2]).read_text()))
    if side == "equality":
        print(f"{ANSWER}{json.dumps(equality(plan))}", flush=True)
    elif side.startswith("ours"):
        ours(plan, packed=side == "ours")
    else:
        hugging_face(plan, side)


def written(plan: Plan, path: Path) -> Path:
    path.write_text(json.dumps(asdict(plan)))
    return path


if __name__ == "__main__":
    main()
