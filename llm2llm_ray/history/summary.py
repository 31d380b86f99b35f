"""A finished run in a terminal: a table per iteration, the test accuracies, and one plain sentence on whether it helped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from llm2llm_ray.accuracy import KNOWN, unanswered
from llm2llm_ray.asking.no_answer import NOT_RECORDED
from llm2llm_ray.config import Config
from llm2llm_ray.terminal_text import shown

WHO = {
    "untrained": "untrained student",
    "teacher": "teacher itself",
    "first": "first student (seeds)",
    "kept": "kept student (LLM2LLM)",
    "baseline": "baseline: seeds alone, as many updates as the kept one",
}


def render(report: Mapping[str, Any], config: Config, console: Console) -> None:
    console.print(iteration_table(report))
    exams = report.get("exams")
    if told := not_known(report["iterations"]):
        console.print(told)
    if exams:
        console.print(accuracy_table(exams))
        console.print(sentence(exams))
    for line in asking_sentences(report.get("asking") or {}):
        console.print(line, markup=False)
    if "recorded_replies" in report:
        console.print(replies_sentence(report["recorded_replies"]), markup=False, soft_wrap=True)
    console.print(f"Engines up in {report['engine_seconds']:.0f} s. Everything the run did: {config.run_path}/")


def asked_about(round_: Mapping[str, Any]) -> str:
    """The rows that the teacher was asked about, where some of them were right; "" where it was the wrong ones, as usual.

    Example: asked_about({"rows_asked": 12, "right_asked": 7}) == "12 rows, 5 of them wrong"
    """
    rows, right = round_.get("rows_asked", 0), round_.get("right_asked", 0)
    return f"{rows} rows, {rows - right} of them wrong" if right else ""


def asking_sentences(asking: Mapping[str, Any]) -> list[str]:
    """What the teacher's check found, before it was asked for rows, and why asking ended before the last iteration."""
    found, check = [], asking.get("teacher_check")
    if check and check["teacher"] is None:
        found.append("Whether the teacher is better than the student is not known: its file lacks some of the dev rows.")
    elif check:
        teacher, student = (f"{check[who]['hits']} of {check[who]['total']}" for who in ("teacher", "student"))
        right = f"it had {teacher} dev rows right itself, the first student {student}"
        better = f"Before the teacher was asked for rows, {right}."
        found.append(better if check["better"] else f"The teacher is not better than the student: {right}. Take a better one.")
    if asking.get("stopped"):
        found.append(f"No more rows were asked for: {shown(asking['stopped'])}.")
    return found


def iteration_table(report: Mapping[str, Any]) -> Table:
    table = Table(title=f"run {report['run']}")
    for name in (
        "iteration",
        "rows in D^i",
        "updates",
        "wrong",
        "unanswered",
        "asked",
        "accepted",
        "rejected",
        "train s",
        "round s",
        "commit s",
    ):
        table.add_column(name, justify="left" if name == "rejected" else "right")
    for item in report["iterations"]:
        round_, seconds = item["round"], item["seconds"]
        rejected = ", ".join(f"{reason} {n}" for reason, n in round_["rejected"].items()) or "-"
        table.add_row(
            str(item["index"]),
            str(item["dataset"]["num_rows"]),
            str(item["student"]["metrics"].get("updates", "-")),
            f"{round_['wrong']}/{round_['evaluated']}",
            str(unanswered(round_)),
            str(round_["asked"]),
            str(round_["accepted"]),
            rejected,
            *(f"{seconds[name]:.1f}" if name in seconds else "-" for name in ("train", "round", "commit")),
        )
    return table


def not_known(iterations: Sequence[Mapping[str, Any]]) -> str:
    """Which students, as `iterations` tell of them, do not know their training rows, and what helps; "" when all do."""
    found = {item["index"]: item["student"]["metrics"].get("token_accuracy", 1.0) for item in iterations}
    few = {index: share for index, share in found.items() if share < KNOWN}
    if not few:
        return ""
    which = f"iteration{'s' if len(few) > 1 else ''} {', '.join(map(str, few))}"
    shares = ", ".join(f"{share:.2f}" for share in few.values())
    return f"{which}: the student does not know its training rows yet (token accuracy {shares}): raise student.updates"


def accuracy_table(exams: Mapping[str, Any]) -> Table:
    table = Table(title="test set, read once")
    for name in ("who", "updates", "accuracy", "95 % interval", "right", "unanswered", "truncated"):
        table.add_column(name, justify="left" if name == "who" else "right")
    for who, label in WHO.items():
        if who in exams["accuracy"]:
            found = exams["accuracy"][who]
            table.add_row(
                label,
                str(found.get("updates", "-")),
                f"{found['value']:.3f}",
                f"{found['low']:.3f} to {found['high']:.3f}",
                f"{found['hits']}/{found['total']}",
                str(unanswered(found)),
                str(found["truncated"]),
            )
    return table


def replies_sentence(told: Mapping[str, Any]) -> str:
    """What a file of recorded replies was, and what it lacked or spared."""
    of = f"recorded replies of {told['model'] or 'an unnamed model'}, {told['file']}"
    if "given" in told:
        return shown(f"Teacher: {told['given']} of its {told['stored']} replies are {of}; they cost nothing.")
    lacked = f"{told['missing']} of the {told['asked']} requests of the rounds are not in it" if told["missing"] else ""
    return shown(f"Teacher: {of}{f'; {lacked} ({NOT_RECORDED})' if lacked else ''}.")


def sentence(exams: Mapping[str, Any]) -> str:
    """Whether it helped, against the baseline that took the same number of updates; and who could not be examined, and why."""
    left_out = [f" Left out: {WHO[who]} ({why})." for who, why in exams.get("left_out", {}).items()]
    return _verdict(exams) + "".join(left_out)


def _verdict(exams: Mapping[str, Any]) -> str:
    found = exams["differences"].get("kept - baseline")
    if found is None:
        return "No matched baseline was trained (evaluation.matched_baseline), so this run cannot say whether the loop helped."
    points, low, high = (100 * found[name] for name in ("value", "low", "high"))
    between = (
        f"{points:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}) against the seeds alone at the same number of updates"
        f"{_matched(exams)}"
    )
    verdict = {
        "better": f"It helped: {between}.",
        "worse": f"It did not help, it hurt: {between}.",
        "not shown to differ": f"It is not shown to have helped: {between}, which one run of this size cannot tell from nothing.",
    }[found["verdict"]]
    return f"{verdict} One run; the spread between runs with other seeds comes on top."


def _matched(exams: Mapping[str, Any]) -> str:
    """By what the baseline was matched. Examples: " (36, of all 3 trainings that the kept student went through)", " (60; the
    first student is the baseline)"."""
    matched = exams.get("matched")
    if matched is None:  # a run of an earlier version
        return ""
    of = f", of all {matched['trainings']} trainings that the kept student went through" if matched["trainings"] > 1 else ""
    first = "; the first student is the baseline" if matched.get("first_is_baseline") else ""
    return f" ({matched['updates']}{of}{first})"


def render_exam(told: Mapping[str, Any], console: Console) -> None:
    console.print(
        f"{told['model']}: {told['value']:.3f} ({told['hits']}/{told['total']}; 95 % interval "
        f"{told['low']:.3f} to {told['high']:.3f}),"
        f" {unanswered(told)} unanswered, {told['truncated']} truncated. Rows: {told['rows']}"
    )
