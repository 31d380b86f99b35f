"""A teacher whose replies are recorded: what a file lacks, what a run gives away, and a live teacher beside a file."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from finished_run import Writer, config
from openai_server import answer, serving
from stream_rows import SCHEMA, Stream, augmented, solved
from test_asking import GOOD, SEEDS, TASK, Teacher, ask, failed, reasons, said

from llm2llm_ray.asking.answerer import teacher as teacher_answerer
from llm2llm_ray.asking.recorded import RecordedReplies, place_of, read_recorded, written_line, written_prompt
from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import AugmentationConfig, BudgetConfig, Config, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.export.replies import export_replies
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import replies_sentence
from llm2llm_ray.preflight import check
from llm2llm_ray.rounds.augmenting import ASKED, Augment, Peers, lineage_teacher
from llm2llm_ray.rounds.first_requests import first_of_every_row
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.recorded_replies import came_of, given_replies
from llm2llm_ray.runtime.streaming.stream_role import RecordedSource, RoleSpec, StreamRole
from llm2llm_ray.runtime.streaming.transports import ServiceRoute
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.splits import load_splits
from llm2llm_ray.types import Prompt, Reply

MISSING = failed("not_recorded: replies.jsonl has no reply to this prompt at ordinal 0, attempt 0")
ANSWER = answer('{"examples": [{"text": "Can I pay this by bank transfer?", "label": "billing"}]}')


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-of-the-test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# What a file lacks.


def test_after_what_is_not_recorded_no_further_attempt_is_made_and_the_next_example_is_asked_for() -> None:
    teacher = Teacher(MISSING, said(GOOD))
    row = ask(teacher, attempts=3, per_wrong=2)
    assert teacher.places == [(0, 0), (1, 0)]
    assert reasons(row) == ["not_recorded"] and len(row["candidates"]) == 1
    assert row["teacher_error"] == "not_recorded", "of the example that it got none for"


def test_a_reply_that_no_gate_passed_was_one_although_the_next_attempt_is_not_recorded() -> None:
    teacher = Teacher(said(""), MISSING)
    row = ask(teacher, attempts=3)
    assert teacher.places == [(0, 0), (0, 1)] and reasons(row) == ["empty", "not_recorded"] and row["teacher_error"] == ""


def rows(recorded: int, missing: int) -> Sequence[dict[str, Any]]:
    detail = MISSING.error
    lacking = [{"reason": "not_recorded", "detail": detail, "text": "", "ordinal": 0, "attempt": 0}]
    return [
        *(augmented(f"there-{n}") for n in range(recorded)),
        *(augmented(f"missing-{n}", teacher_error="not_recorded") | {"rejected": json.dumps(lacking)} for n in range(missing)),
    ]


def versions(folder: Path) -> RecordedVersions:
    return RecordedVersions(Files(str(folder)), TASK, lambda: SEEDS, lambda: (), (), AugmentationConfig())


def test_what_a_file_lacks_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    result = versions(tmp_path).drained(Stream(Files(str(tmp_path)), rows(1, 19)))["result"]
    assert (result["asked"], result["rejected"]["not_recorded"], result["teacher_errors"]) == (20, 19, {"not_recorded": 19})


def test_a_round_in_which_nothing_is_recorded_stops_the_run_and_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as stopped:
        versions(tmp_path).drained(Stream(Files(str(tmp_path)), rows(0, 3), iteration=1))
    message = str(stopped.value)
    assert message.startswith(
        "iteration 2, round: none of the 3 requests to the teacher is recorded (replies.jsonl has no reply to this prompt at "
    )
    assert "set run.iterations" in message and "teacher.replies" in message


def test_an_exam_that_is_not_recorded_holds_nothing_up(tmp_path: Path) -> None:
    """It is left out of the report, as one that was not paid for is (test_exams)."""
    unanswered = [solved(f"t-{n}", correct=False, error="not_recorded") for n in range(4)]
    record = versions(tmp_path).drained(Stream(Files(str(tmp_path)), unanswered), "exam", "exam (teacher)")
    assert record["result"]["errors"] == {"not_recorded": 4}


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"missing": 0, "asked": 9}, "Teacher: recorded replies of m, f.jsonl."),
        (
            {"missing": 2, "asked": 9},
            "Teacher: recorded replies of m, f.jsonl; 2 of the 9 requests of the rounds are not in it (not_recorded).",
        ),
        (
            {"missing": 0, "asked": 9, "given": 3, "stored": 9},
            "Teacher: 3 of its 9 replies are recorded replies of m, f.jsonl; they cost nothing.",
        ),
    ],
)
def test_the_end_of_a_run_says_whose_replies_they_were(told: dict[str, Any], sentence: str) -> None:
    assert replies_sentence({"model": "m", "file": "f.jsonl", **told}) == sentence


# Before a run.


def a_config(folder: Path, **sections: Any) -> Config:
    for name, texts in (("seed", ["Where is my card?", "Reset it, please"]), ("test", ["Where do I log in?"])):
        lines = [json.dumps({"text": text, "label": "login" if "log" in text or "Reset" in text else "card"}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    given: dict[str, Any] = {
        "task": {"name": "classification", "data": str(folder)}, "student": {"model": "m"}, "run": {"name": "demo"},
        "teacher": {"kind": "recorded", "model": str(folder / "replies.jsonl")},
    }  # fmt: skip
    return Config.model_validate(
        {"recipe": "paper"} | {name: {**given.get(name, {}), **sections.get(name, {})} for name in {**given, **sections}}
    )


def first_asked(config: Config, folder: Path) -> list[Request]:
    task, splits = load_splits(config.task, load_task(config.task.name, config.task.options), base_dir=folder)
    return list(first_of_every_row(config, task, splits))


def record(path: Path, *requests: Request) -> None:
    lines = [
        written_line(
            written_prompt(asked.prompt), ordinal=asked.ordinal, attempt=asked.attempt, sampling={},
            reply=Reply(text="x", finish_reason="stop"), model="m",
        )
        for asked in requests
    ]  # fmt: skip
    path.write_text("".join(f"{line}\n" for line in lines))


def test_a_file_for_this_run_is_found_to_be_one_whatever_the_runs_seed(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    record(tmp_path / "replies.jsonl", first_asked(config, tmp_path)[-1])
    found = check(a_config(tmp_path, run={"name": "demo", "seed": 77}), tmp_path).recorded
    assert found is not None and (found.model, found.replies) == ("m", 1)


def test_a_file_for_another_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    record(tmp_path / "replies.jsonl", *first_asked(config, tmp_path))
    other = a_config(tmp_path, augmentation={"examples_in_prompt": 0}, teacher={"style": "completion"})
    with pytest.raises(UserError, match=r"replies\.jsonl \(2 replies\) has none to what is asked first about any of the 2 rows"):
        check(other, tmp_path)
    shown = a_config(tmp_path, augmentation={"show_wrong_answer": True})
    assert check(shown, tmp_path).recorded is not None, "what is asked is not known before students have answered"
    alone = a_config(tmp_path, augmentation={"examples_in_prompt": 0}, run={"name": "demo", "iterations": 1})
    assert check(alone, tmp_path).recorded is not None, "nothing is asked"


def test_a_live_teachers_file_is_read_before_a_run_too(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text("{}")
    config = a_config(tmp_path, teacher={"kind": "serve", "model": "m", "replies": str(tmp_path / "replies.jsonl")})
    with pytest.raises(UserError, match=r"replies\.jsonl:1: prompt: required, but missing"):
        check(config, tmp_path)


@pytest.mark.parametrize("kind", ["recorded", "scripted"])
def test_who_is_not_asked_for_the_rest_has_no_file_beside_him(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"teacher\.replies is for a teacher that is asked for the rest .*, not for {kind}"):
        a_config(tmp_path, teacher={"kind": kind, "replies": "more.jsonl"})


def test_the_run_keeps_a_copy_that_goes_by_its_content(tmp_path: Path) -> None:
    config, file = a_config(tmp_path), tmp_path / "replies.jsonl"
    record(file, *first_asked(config, tmp_path))
    files = Files(str(tmp_path / "run"))
    given = given_replies(config.teacher, files)
    assert given is not None and Path(given.path).read_bytes() == file.read_bytes() and str(tmp_path / "run") in given.path
    file.write_text(file.read_text() + "\n")
    again = given_replies(config.teacher, files)
    assert again is not None and again.path != given.path and again.about.sha != given.about.sha
    assert given_replies(TeacherConfig(model="m"), files) is None


# What a run gives away, and a live teacher beside it.

LIVE = TeacherConfig(kind="openai", model="big", base_url="http://127.0.0.1:1/v1", api_key_env="TEACHER_KEY", max_retries=0)


def taught(
    folder: Path, teacher: TeacherConfig, wrong: int, *, recorded: Path | None = None, run_seed: int = 7
) -> tuple[list[dict[str, Any]], StreamRole]:
    """What the teacher's role makes of so many wrong rows, with its replies in the run at `folder`."""
    role = Augment(TASK, Peers(TASK, SEEDS), teacher=teacher, settings=AugmentationConfig(), iteration=0, run_seed=run_seed)
    spec = RoleSpec(
        name="teacher", role=role, adds=ASKED, route=ServiceRoute(teacher=teacher), answerer=teacher_answerer(teacher, ""),
        run_root=str(folder), replies="replies/teacher-000", in_flight=1, asker=None, asked_of=lineage_teacher(teacher, ""),
        budget=teacher.budget, budget_replies=("replies/teacher-000",),
        recorded=RecordedSource(path=str(recorded), file="mine.jsonl", model=teacher.model, weights_sha="") if recorded else None,
    )  # fmt: skip
    schema = pa.schema([column for column in SCHEMA if column.name not in ASKED])
    block = [{name: solved(f"r-{n:02d}", correct=False)[name] for name in schema.names} for n in range(wrong)]

    async def go() -> tuple[list[dict[str, Any]], StreamRole]:
        stream = StreamRole(spec)
        try:
            return (await stream.answer(pa.Table.from_pylist(block, schema=schema))).to_pylist(), stream
        finally:
            stream.close()

    return asyncio.run(go())


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The replies file of a run that asked about three rows, and what became of those."""
    folder = tmp_path / "first"
    with serving(ANSWER) as service:
        teacher = replace_url(service.url)
        Writer(folder, config("first", teacher=teacher.model_dump(mode="json"))).start()
        rows, _ = taught(folder, teacher, 3)
    export_replies(RunRecord.open(str(folder)), tmp_path / "mine.jsonl")
    return tmp_path / "mine.jsonl", rows


def replace_url(url: str, **changes: Any) -> TeacherConfig:
    return LIVE.model_copy(update={"base_url": url, **changes})


def test_what_a_run_exports_is_what_it_was_told_under_what_it_asked(exported: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = exported
    replies = read_recorded(str(path))
    assert (replies.about.model, replies.about.replies) == ("big", 3) and "in run first, " in replies.about.made
    lineages = [json.loads(row["candidates"])[0]["lineage"] for row in rows]
    for lineage in lineages:
        found = replies.find((lineage["prompt_sha"], lineage["ordinal"], lineage["attempt"]), {"seed": lineage["sampling_seed"]})
        assert "Can I pay this by bank transfer?" in found.text and found.completion_tokens > 0
        recorded = TeacherConfig(kind="recorded", model=str(path))
        assert lineage_teacher(recorded, found.model) == lineage["teacher"] == "big", "a repeated run has the first one's ids"


def test_a_run_exports_the_same_bytes_again_packed_or_not_and_writes_over_nothing(
    exported: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path, _ = exported
    run = RunRecord.open(str(tmp_path / "first"))
    export_replies(run, tmp_path / "again.jsonl")
    export_replies(run, tmp_path / "again.jsonl.gz")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert gzip.decompress((tmp_path / "again.jsonl.gz").read_bytes()) == path.read_bytes()
    with pytest.raises(UserError, match=r"mine\.jsonl: is there already; name another file with --replies"):
        export_replies(run, path)


def test_a_run_without_a_teachers_reply_has_none_to_give(tmp_path: Path) -> None:
    Writer(tmp_path / "run").start()
    with pytest.raises(UserError, match="no reply of a teacher is stored there"):
        export_replies(RunRecord.open(str(tmp_path / "run")), tmp_path / "mine.jsonl")
    assert not (tmp_path / "mine.jsonl").exists()


def stored(folder: Path) -> list[dict[str, Any]]:
    return list(read_replies(Files(str(folder)), "replies/teacher-000"))


def test_a_live_teacher_is_asked_only_for_what_the_file_lacks_and_only_that_is_paid_for(
    exported: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path, first = exported
    with serving(ANSWER) as service:
        teacher = replace_url(service.url, budget=BudgetConfig(calls=1))
        rows, role = taught(tmp_path / "second", teacher, 4, recorded=path)
        assert len(service.requests) == 1
        assert role.line.budget is not None and role.line.budget.calls == 1
        again, role = taught(tmp_path / "second", teacher, 4, recorded=path)
        assert len(service.requests) == 1
        assert role.line.budget is not None and role.line.budget.calls == 1, "a run that goes on has paid for one"
    assert [row["candidates"] for row in rows[:3]] == [row["candidates"] for row in first]
    assert [row["candidates"] for row in again] == [row["candidates"] for row in rows]
    assert not any(row["budget_stop"] for row in rows)
    marks = {record["request"]["row_id"]: record["request"].get("recorded") for record in stored(tmp_path / "second")}
    assert marks == {"r-00": "mine.jsonl", "r-01": "mine.jsonl", "r-02": "mine.jsonl", "r-03": None}
    told = came_of({"file": "mine.jsonl"}, teacher.model_copy(update={"replies": "m"}), [], Files(str(tmp_path / "second")))
    assert (told["given"], told["stored"]) == (3, 4)


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 99}, {"model": "bigger"}, {"seed": 8}])
def test_what_was_sampled_otherwise_or_by_another_model_is_asked_for(
    exported: tuple[Path, list[dict[str, Any]]], tmp_path: Path, change: dict[str, Any]
) -> None:
    run_seed = change.pop("seed", 7)
    with serving(ANSWER) as service:
        taught(tmp_path / "second", replace_url(service.url, **change), 3, recorded=exported[0], run_seed=run_seed)
        assert len(service.requests) == 3


def test_a_prompt_stored_by_an_earlier_version_is_exported_where_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    with serving(ANSWER) as service:
        teacher = replace_url(service.url)
        Writer(folder, config("first", teacher=teacher.model_dump(mode="json"))).start()
        taught(folder, teacher, 2)
    for segment in folder.glob("replies/teacher-000/*.jsonl"):
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        for entry in lines:
            messages = entry["request"]["prompt"]["messages"]
            entry["request"]["prompt"] = [f"{message['role']}: {message['content']}" for message in messages]
            del entry["request"]["asked_of"]
        lines[1]["request"]["prompt"][0] += " and more"
        segment.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    done = export_replies(RunRecord.open(str(folder)), tmp_path / "mine.jsonl")
    assert (done.replies, done.left_out) == (1, 1)
    assert RecordedReplies("mine", (tmp_path / "mine.jsonl").read_bytes()).about.model == "big"


def test_a_request_is_placed_by_what_it_asks_only() -> None:
    asked = Request(row_id="a", prompt=Prompt(text="Write one."), sampling={"seed": 1})
    assert place_of(asked) == place_of(replace(asked, row_id="b", sampling={"seed": 2}))
