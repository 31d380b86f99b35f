"""The cards: README.md of an exported dataset and of an exported student, with what made them and what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from llm2llm_ray.accuracy import unanswered
from llm2llm_ray.augmentation.reasons import meanings
from llm2llm_ray.export.facts import Facts
from llm2llm_ray.export.held_answers import held_answers, held_request
from llm2llm_ray.export.licence import UNKNOWN, hub_id, licence_of, model_name, teacher_name
from llm2llm_ray.export.markdown import escaped, json_block, table
from llm2llm_ray.history.summary import WHO, sentence
from llm2llm_ray.types import Example

PAPER = "[Lee et al., ACL Findings 2024](https://arxiv.org/abs/2403.15042)"
READ_BY = (
    "Written with transformers 5. Tokenizer and positions are also named as transformers 4 reads them; that was tried with a "
    "Llama and 4.57."
)
COLUMNS = {
    "id": "of the row",
    "input": "the text of the task, without the prompt around it",
    "output": "the gold answer as the student is trained to write it",
    "origin": "seed or dev (came with the task) or augmented (written by the teacher)",
    "weight": "how much each token of its loss counted in training beside those of rows of weight 1",
    "seed_id": "the labelled row at the root",
    "parent_id": "the row the student got wrong",
    "iteration": "the i of the student M^i that got it wrong; the row first stands in D^(i+1)",
    "ordinal": "number of this seed's request in the run",
    "attempt": "0 for the first try of that request",
    "wrong_answer": "what the student said, as it said it",
    "prompt_sha": "of what the teacher was asked",
    "teacher": "who wrote the row",
    "sampling_seed": "of the teacher's sampling",
}
"""Columns of a version; from seed_id on they are the lineage, null in rows that were not written by the teacher."""
_ASKING = ("per_wrong", "per_call", "attempts", "show_wrong_answer", "examples_of_confused", "examples_in_prompt")
"""Of `augmentation`; a run of an older version has fewer."""
_MEASURED = ("updates", "tokens", "loss_last", "token_accuracy")


def dataset_card(facts: Facts, rows: Mapping[str, int], samples: list[Example]) -> str:
    """`rows`: split -> number of rows. `samples`: a few rows that the teacher wrote."""
    head = {
        "license": "unknown",
        "pretty_name": f"{facts.record.name}, iteration {facts.index}",
        "tags": ["llm2llm", "synthetic"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in rows]}
        ],
    }
    body = [
        f"# {escaped(facts.record.name)}: the dataset of iteration {facts.index}",
        "",
        f"D^{facts.index} of a run of LLM2LLM ({PAPER}): {facts.version.num_rows} training rows, {facts.check.given} of them "
        f"given and {facts.check.written} written by a teacher model for what a student model got wrong. What the teacher wrote "
        "was checked by the gates below, not by a person.",
        "",
        *table(("split", "rows"), list(rows.items())),
        "",
        "The splits `validation` and `test` are the run's dev and test rows: never trained on." if len(rows) > 1 else
        "Dev and test rows of the run are not part of this folder.",
        "",
        "```python",
        "from datasets import load_dataset",
        'rows = load_dataset("FOLDER")  # this folder',
        "```",
        *_made_by(facts),
        *_licence(facts, "The given rows", UNKNOWN.replace("publishes it", "gave the rows")),
        *_gates(facts),
        *_contamination(facts),
        *_accuracy(facts),
        "", "## Columns", "",
        *table(("column", "what it holds"), [(f"`{name}`", what) for name, what in COLUMNS.items()]),
        *_samples(samples),
    ]  # fmt: skip
    return _card(head, body)


def student_card(facts: Facts) -> str:
    """Raises nothing; `facts.student` must be there."""
    assert facts.student is not None
    student = facts.config["student"]
    base, metrics = str(student["model"]), facts.student["result"]["metrics"]
    head: dict[str, Any] = {
        "license": licence_of(base) or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llm2llm"],
    }
    if hub_id(base):
        head["base_model"] = hub_id(base)
    settings = facts.student["inputs"]["student"] | {name: metrics.get(name) for name in _MEASURED}
    body = [
        f"# {escaped(facts.record.name)}: the student of iteration {facts.index}",
        "",
        f"M^{facts.index} of a run of LLM2LLM ({PAPER}): {escaped(model_name(base))}, fine-tuned on {facts.version.num_rows} "
        f"rows, {facts.check.written} of them written by a teacher model.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")  # this folder',
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
        "```",
        "", READ_BY,
        *held_answers(held_request(facts.record, facts.student["result"]["sha"], facts.version)),
        *_made_by(facts),
        *_licence(facts, f"The model that training began with ({escaped(model_name(base))})", licence_of(base) or UNKNOWN),
        *_accuracy(facts),
        "", "## Training", "",
        *json_block({name: value for name, value in settings.items() if value is not None}),
        "", "The task as it was trained; the prompts are those of the named class in llm2llm_ray:", "",
        *json_block(facts.student["inputs"].get("task", {})),
        *_gates(facts),
        *_contamination(facts),
    ]  # fmt: skip
    return _card(head, body)


def _card(head: Mapping[str, Any], body: list[str]) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=False)
    return f"---\n{front}---\n" + "\n".join(body) + "\n"


def _made_by(facts: Facts) -> list[str]:
    teacher, augmentation = facts.config["teacher"], facts.config["augmentation"]
    settings = {name: teacher[name] for name in ("style", "temperature", "top_p", "max_tokens")}
    settings |= {name: augmentation[name] for name in _ASKING if name in augmentation}
    return [
        "", "## What made it", "",
        *table(
            ("what", "value"),
            [
                ("teacher", escaped(teacher_name(teacher, facts.record.recorded_replies))),
                ("student", escaped(model_name(str(facts.config["student"]["model"])))),
                ("task", escaped(facts.config["task"]["name"])),
                ("errors from", _errors_from(facts.config["evaluation"])),
                ("iteration", f"{facts.index} (of 0 to {facts.config['run']['iterations'] - 1})"),
                ("version", facts.version.id),
                *((f"`{name}`", value) for name, value in settings.items()),
            ],
        ),
    ]  # fmt: skip


def _errors_from(evaluation: Mapping[str, Any]) -> str:
    if evaluation["error_source"] == "cross_fit":
        return f"the seed rows, each as a student answered it that was trained without its fold (of {evaluation['folds']})"
    if evaluation["error_source"] != "early":
        return f"the {evaluation['error_source']} rows"
    return f"the seed rows, as each student answered them after {evaluation['early_at']:.0%} of its updates"


def _licence(facts: Facts, what: str, known: str) -> list[str]:
    teacher = facts.config["teacher"]
    told = facts.record.recorded_replies
    model = (told or {}).get("model", "") if teacher["kind"] == "recorded" else teacher["model"]
    of_teacher = None if teacher["kind"] == "openai" else licence_of(str(model))
    return [
        "", "## Licence", "",
        f"- {what}: {known}.",
        f"- What the teacher wrote ({escaped(teacher_name(teacher, told))}): the model's licence is {of_teacher or UNKNOWN}."
        + ("" if of_teacher else " Its terms may say what its text may be used for."),
    ]  # fmt: skip


def _gates(facts: Facts) -> list[str]:
    """Reasons that only the run's own task knows are told as they stand."""
    known = meanings(facts.config)
    rows = [(f"`{reason}`", meaning, facts.rejected.get(reason, 0)) for reason, meaning in known.items()]
    rows += [(escaped(reason), "the task's own rule", count) for reason, count in facts.rejected.items() if reason not in known]
    return [
        "", "## Gates", "",
        f"{facts.accepted} texts of the teacher passed all of these; {sum(facts.rejected.values())} did not:", "",
        *table(("reason", "turned away is", "times"), rows),
    ]  # fmt: skip


def _contamination(facts: Facts) -> list[str]:
    check, turned_away = facts.check, facts.rejected.get("contaminated", 0)
    if not check.against:
        told = "The run has no dev or test rows, so nothing could be compared."
    else:
        told = (
            f"Repeated for this export: of {check.written} rows written by the teacher, {check.written_near} are equal or near "
            f"(similarity {check.threshold} or more) to one of the {check.against} dev and test rows; of {check.given} given "
            f"rows, {check.given_near} are. The same comparison turned away {turned_away} texts in the run."
        )
    return ["", "## Contamination check", "", told]


def _accuracy(facts: Facts) -> list[str]:
    exams = facts.record.exams
    lines = ["", "## Accuracy", ""]
    if not exams:
        return [*lines, "Not measured: the run read no test set (yet)."]
    rows = [
        (
            WHO.get(who, escaped(who)), f"{a['value']:.3f}", f"{a['low']:.3f} to {a['high']:.3f}", f"{a['hits']}/{a['total']}",
            unanswered(a),
        )
        for who, a in exams["accuracy"].items()
    ]  # fmt: skip
    here = {0: "first student", facts.record.kept: "kept student"}.get(facts.index)
    return [
        *lines,
        f"On the run's test rows. This is iteration {facts.index}: "
        + (f"the {here}." if here else "neither the first nor the kept student, and not examined itself."),
        "",
        *table(("who", "accuracy", "95 % interval", "right", "unanswered"), rows),
        "",
        sentence(exams),
    ]


def _samples(samples: list[Example]) -> list[str]:
    if not samples:
        return []
    texts = [(row.input, row.output, row.lineage.wrong_answer if row.lineage else "") for row in samples]
    rows = [[escaped(text) for text in row] for row in texts]
    told = ["", "## Some rows that the teacher wrote", "", "Not chosen; the first ones.", ""]
    return [*told, *table(("input", "output", "the student's wrong answer"), rows)]
