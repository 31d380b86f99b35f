"""The commands over existing runs, called as a person calls them: arguments in, text and exit code out."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from finished_run import Writer

from llm2llm_ray.cli import main, result_commands, stop_command, watch_commands
from llm2llm_ray.errors import TemporaryFailure
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import ReplyLog
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.storage.training_log import TrainingLog
from llm2llm_ray.types import Reply

REPOSITORY = Path(__file__).parents[2]
Told = tuple[int, str, str]
Call = Callable[..., Told]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """In a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["llm2llm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return called


def test_a_run_goes_by_its_folder_or_by_its_name(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write("started")
    for name in ("toy", "runs/toy", "runs/toy/", str(tmp_path / "runs" / "toy")):
        assert call("status", name)[0] == 0
    assert call("status", "runs/tooy") == (
        2, "", "error: runs/tooy: no run folder, and no run of that name in runs/; did you mean toy?\n"
    )  # fmt: skip
    assert "did you mean toy?" in call("status", "ty")[2]
    assert "runs there: toy" in call("status", "qqqqqq")[2]
    assert call("status", "elsewhere/x")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "x"),
        ("logs", "x"),
        ("stop", "x"),
        ("report", "x"),
        ("compare", "x", "y"),
        ("export", "x"),
        ("gc", "x"),
        ("ls", "x"),
    ],
)
def test_a_wrong_name_is_the_users_mistake(call: Call, arguments: tuple[str, ...]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: x: ")


def test_status_of_a_finished_run(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write()
    code, out, _ = call("status", "toy")
    assert code == 0
    assert out.splitlines()[0] == "toy: finished"
    assert re.search(r"stage +done\n", out)
    assert re.search(r"iterations +2 of 2 done", out)
    assert re.search(r"rows +4: 2 seeds, 2 written by the teacher", out)
    assert "0.750 (95 % interval 0.531 to 0.888)" in out


@pytest.mark.parametrize(("stage", "label"), [({"stage": "train"}, "001"), ({"stage": "fold", "fold": 2}, "001-fold-2")])
def test_status_of_a_training_shows_its_last_whole_line(stage: dict[str, object], label: str, call: Call, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "runs" / "toy")
    writer.write("first iteration")
    writer.events.add("stage_started", iteration=1, key="c" * 64, **stage)
    log = TrainingLog(writer.files, f"train/{label}-{'c' * 12}")
    for update in (1, 2, 3):
        log.write(update=update, total=10, loss=2.0 / update, seconds=2.0)
    with writer.files.open_append(log.path) as stream:
        stream.write(b'{"time": 1, "upda')
    _, out, _ = call("status", "toy")
    assert f"iteration 2/2 · {stage['stage']} · update 3/10 · loss 0.667 · 2.0 s each · 0:14 left" in out
    assert "broken off" in out and "The same `llm2llm run` goes on from here." in out


def answer(files: Files, folder: str, rows: list[str]) -> None:
    async def put() -> None:
        log = ReplyLog(files, folder)
        for row in rows:
            await log.put(f"{folder}-{row}-{time.time()}", Reply(text="billing", finish_reason="stop"), {"row_id": row})
        log.close()

    asyncio.run(put())


def test_status_of_a_round_counts_rows_since_it_first_began(call: Call, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "runs" / "toy")
    writer.write("second training")
    answer(writer.files, "replies/student-old", ["s-1", "s-2"])
    time.sleep(0.02)
    writer.events.add("stage_started", stage="round", iteration=1, key="d" * 64)
    answer(writer.files, "replies/student-new", ["s-1"])
    writer.events.add("started", pid=2)
    writer.events.add("stage_started", stage="round", iteration=1, key="d" * 64)
    assert "round · student 1/2 rows, 0.0/s" in call("status", "toy")[1]
    answer(writer.files, "replies/teacher-001", ["s-1", "s-1"])
    assert re.search(r"round · student 1/2 rows, 0\.0/s · teacher 1 rows, [1-9][\d.]*/s", call("status", "toy")[1])


def test_ls_lists_every_run_also_a_damaged_one(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "done").write()
    Writer(tmp_path / "runs" / "young").write("first iteration")
    Writer(tmp_path / "runs" / "torn").write("started")
    next((tmp_path / "runs" / "torn" / "configs").iterdir()).write_text("{")
    (tmp_path / "runs" / "no-run").mkdir()
    code, out, err = call("ls")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and list(rows) == ["run", "done", "torn", "young"]
    assert re.search(r"finished +2/2 +4 +0\.750 .* (KiB|MiB)$", rows["done"])
    assert re.search(r"broken off +1/2 +4 +- ", rows["young"])
    assert re.search(r"unreadable +- +- +- +- ", rows["torn"])
    assert "not JSON" in err
    (tmp_path / "empty").mkdir()
    assert call("ls", "empty") == (0, "No run in empty/.\n", "")


def test_logs_are_lines_for_people_or_the_events_themselves(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write()
    _, out, _ = call("logs", "toy")
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d stage_started  stage=train iteration=0 key=\w{12}$", out, re.MULTILINE)
    assert "1: 2 rows, 2 of 2 wrong, 2 asked, 2 accepted, 4 rows after it (train 90 s" in out
    _, raw, _ = call("logs", "toy", "--json")
    assert [json.loads(line) for line in raw.splitlines()] == list(Events(Files(str(tmp_path / "runs" / "toy"))).read())


def test_rows_without_an_answer_are_told_apart(call: Call, tmp_path: Path) -> None:
    """Three of twenty test rows, and one of the second round's two."""
    Writer(tmp_path / "runs" / "toy", unanswered=3).write()
    assert "0.750 (95 % interval 0.531 to 0.888), 3 of 20 unanswered, kept student" in call("status", "toy")[1]
    assert "2: 4 rows, 0 of 2 wrong and 1 unanswered, 0 asked" in call("logs", "toy")[1]


def test_what_passes_by_itself_has_an_exit_code_of_its_own(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise TemporaryFailure("iteration 1, round: 3 of 9 rows got nothing from the teacher\x1b[2J")

    monkeypatch.setattr(watch_commands, "find_run", away)
    code, out, err = call("status", "toy")
    assert (code, out, err) == (75, "", "stopped: iteration 1, round: 3 of 9 rows got nothing from the teacher\\u001b[2J\n")


def test_what_others_wrote_is_not_obeyed_by_the_terminal(call: Call, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "runs" / "toy")
    writer.write("started")
    writer.events.add("note", text="\x1b[2Jgone [red]red[/red] :smile: \u202eback")
    _, out, _ = call("logs", "toy")
    assert out.splitlines()[-1].endswith(r"text=\u001b[2Jgone [red]red[/red] :smile: \u202eback")
    assert "\x1b" not in call("logs", "toy", "--json")[1]


def test_messages_and_names_that_others_wrote_are_not_obeyed_either(call: Call, tmp_path: Path) -> None:
    assert call("status", "a\x1b[2Jb")[2].startswith(r"error: a\u001b[2Jb: no run folder")
    Writer(tmp_path / "runs" / "toy").write("started")
    (kept,) = (tmp_path / "runs" / "toy" / "configs").iterdir()
    kept.write_text(kept.read_text().replace('"name":"toy"', r'"name":"to\u001b[2Jy"'))
    for command in ("status", "gc", "stop", "export"):
        _, out, err = call(command, "toy")
        assert r"to\u001b[2Jy" in out + err and "\x1b" not in out + err, command


def test_of_a_run_on_an_object_store_nobody_knows_whether_it_runs(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands get the run from here: there is no object store to name on the command line."""
    files = Files(str(tmp_path / "run"), filesystem=pafs.LocalFileSystem())
    record = Writer(tmp_path, files=files).write("first iteration")
    for module in (watch_commands, stop_command, result_commands):
        monkeypatch.setattr(module, "find_run", lambda name: RunRecord(record.files))
    code, out, _ = call("status", "toy")
    assert (code, out.splitlines()[0]) == (0, "toy: unknown")
    assert "Whether it runs is not known" in out and "goes on from here" not in out
    code, out, err = call("stop", "toy")
    assert (code, out) == (2, "") and "ray job stop SUBMISSION_ID" in err
    assert call("report", "toy", "--out", "page.html")[0] == 0
    assert "whether it runs is not known" in (tmp_path / "page.html").read_text()
    Writer(tmp_path, files=files).events.add("finished")
    code, out, err = call("logs", "toy", "-f")
    assert (code, err) == (0, "") and out.splitlines()[-1].endswith("finished")


def test_logs_follow_a_run_of_which_nobody_knows_whether_it_runs(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(str(tmp_path / "run"), filesystem=pafs.LocalFileSystem())
    writer = Writer(tmp_path, files=files)
    record = writer.write("started")
    monkeypatch.setattr(watch_commands, "find_run", lambda name: RunRecord(record.files))
    soon = threading.Timer(0.5, writer.events.add, ["finished"])
    soon.start()
    code, out, err = call("logs", "toy", "-f")
    soon.join()
    assert code == 0 and "Following until it has finished" in err
    assert [line.split()[2] for line in out.splitlines()] == ["started", "engines_up", "finished"]


def test_compare_is_a_table_and_a_sentence(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write()
    Writer(tmp_path / "runs" / "worse", right={"untrained": 2, "first": 9, "kept": 5, "baseline": 12}).write()
    code, out, _ = call("compare", "toy", "runs/worse")
    assert code == 0
    assert "settings that differ: none" in out
    assert re.search(r"kept student \(LLM2LLM\) +0\.750 \(0\.531 to 0\.888\), 15/20 +0\.250 \(", out)
    assert "toy minus runs/worse = +50.0 points" in out and "better" in out


def test_export_writes_both_and_says_so(call: Call, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write()
    code, out, _ = call("export", "toy", "--no-test")
    assert code == 0
    assert out.startswith("exports/toy/dataset: train 4 rows, ")
    assert (tmp_path / "exports/toy/student/model.safetensors").is_file()
    assert call("export", "toy")[0] == 2
    code, out, _ = call("export", "toy", "--only", "dataset", "--out", "again")
    assert (code, [path.name for path in (tmp_path / "again").iterdir()]) == (0, ["dataset"])


def test_gc_deletes_only_when_told_to(call: Call, tmp_path: Path) -> None:
    students = tmp_path / "runs" / "toy" / "students"
    Writer(tmp_path / "runs" / "toy").write()
    code, out, _ = call("gc", "toy")
    assert (code, len(list(students.iterdir()))) == (0, 3)
    assert "`llm2llm gc toy --yes` removes it." in out
    assert call("gc", "toy", "--yes")[0] == 0
    assert len(list(students.iterdir())) == 1
    assert "Nothing can go." in call("gc", "toy", "--yes")[1]


# A process that drives a run: it holds the lease until it is told to stop.

DRIVER = """
import signal, sys, time
sys.path.insert(0, {repository!r})
from llm2llm_ray.storage.lease import run_lease
{before}
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
with run_lease("runs/toy"):
    print("up", flush=True)
    began = time.monotonic()
    while (not told or {deaf}) and time.monotonic() - began < {seconds}:
        time.sleep(0.02)
    from llm2llm_ray.storage.files import Files  # most of these processes are killed before they need it
    from llm2llm_ray.storage.stages import Events
    Events(Files("runs/toy")).add("stopping" if told else "finished")
"""

Drive = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """Starts a process like `llm2llm run toy.yaml` on runs/toy."""
    started: list[subprocess.Popen[str]] = []

    def driven(*, before: str = "", deaf: bool = False, seconds: float = 30) -> subprocess.Popen[str]:
        (tmp_path / "llm2llm").write_text(DRIVER.format(repository=str(REPOSITORY), before=before, deaf=deaf, seconds=seconds))
        command = [sys.executable, "llm2llm", "run", "toy.yaml"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        return process

    yield driven
    for process in started:
        process.kill()
        process.wait()


def test_stop_ends_the_process_that_drives_the_run(call: Call, drive: Drive, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write("started")
    process = drive()
    assert "toy: running, driven by pid" in call("status", "toy")[1]
    code, out, _ = call("stop", "toy")
    assert (code, process.wait(5)) == (0, 0)
    assert "toy: stopped. The same `llm2llm run` goes on from here." in out
    assert call("stop", "toy") == (0, "toy is not running (stopped).\n", "")


def test_stop_says_when_a_run_still_drains(call: Call, drive: Drive, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write("started")
    process = drive(deaf=True)
    code, out, _ = call("stop", "toy", "--wait", "0.3")
    assert (code, process.poll()) == (1, None)
    assert f"`kill -9 {process.pid}` loses nothing" in out


def test_stop_spares_a_process_that_was_given_the_id_of_a_dead_driver(call: Call, drive: Drive, tmp_path: Path) -> None:
    """The dead driver is this test's stand-in for one whose id the kernel gave again, to a process that lives."""
    Writer(tmp_path / "runs" / "toy").write("started")
    process = drive(deaf=True)
    process.kill()
    process.wait()
    lease = tmp_path / "runs" / "toy" / "lease"
    with subprocess.Popen(["sleep", "30"]) as another:
        lease.write_text(json.dumps(json.loads(lease.read_text()) | {"pid": another.pid}))
        assert call("status", "toy")[1].startswith("toy: broken off\n")
        assert call("stop", "toy") == (0, "toy is not running (broken off).\n", "")
        assert another.poll() is None
        another.kill()


def test_stop_of_a_run_on_another_host_says_what_to_do_there(call: Call, drive: Drive, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write("started")
    process = drive(before="import socket\nsocket.gethostname = lambda: 'far-away'")
    code, _, err = call("stop", "toy")
    assert code == 2 and f"pid {process.pid} on host far-away" in err and "ray job stop SUBMISSION_ID" in err
    assert process.poll() is None


def test_gc_leaves_a_driven_run_alone(call: Call, drive: Drive, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write()
    drive()
    assert "Nothing can go." in call("gc", "toy", "--yes")[1]
    assert len(list((tmp_path / "runs" / "toy" / "students").iterdir())) == 3


def test_logs_follow_a_run_to_its_end(call: Call, drive: Drive, tmp_path: Path) -> None:
    Writer(tmp_path / "runs" / "toy").write("started")
    process = drive(seconds=1.5)
    code, out, _ = call("logs", "toy", "-f")
    assert (code, process.wait(5)) == (0, 0)
    assert [line.split()[2] for line in out.splitlines()] == ["started", "engines_up", "finished"]
