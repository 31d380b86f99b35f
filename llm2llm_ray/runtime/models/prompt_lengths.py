"""No prompt may be longer than the context: said with the row's name before any engine starts."""

from __future__ import annotations

from transformers import AutoTokenizer

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import Checked
from llm2llm_ray.runtime.models.tokens import encode, encode_prompt


def check_prompt_lengths(config: Config, checked: Checked, student_model: str) -> None:
    """Seeds must fit training and evaluation; dev and test prompts must fit evaluation. Raises UserError for the first."""
    tokenizer = AutoTokenizer.from_pretrained(student_model)
    task, context = checked.task, config.student.engine.max_model_len
    for name, rows in (("seed", checked.splits.seed), ("dev", checked.splits.dev), ("test", checked.splits.test)):
        for row in rows:
            prompt = len(encode_prompt(tokenizer, task.student_prompt(row.input)))
            if prompt + 1 > context:
                raise UserError(
                    f"{name} row {row.id} ({checked.splits.sources.get(name, name)}): its prompt has {prompt} tokens, which "
                    f"leaves no room for an answer in student.engine.max_model_len={context}; raise it, or shorten the row: "
                    f"{row.input[:60]!r}…"
                )
            if name == "seed":
                whole, _ = encode(tokenizer, task.student_prompt(row.input), task.completion(row.output))
                if len(whole) > config.student.max_length:
                    raise UserError(
                        f"seed row {row.id}: prompt and answer have {len(whole)} tokens, more than student.max_length="
                        f"{config.student.max_length}, so it could not be trained on; raise it, or shorten or remove the row"
                    )
