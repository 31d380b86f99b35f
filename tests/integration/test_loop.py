"""The whole loop by its command: trained, evaluated, augmented, examined; killed and continued."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from a_run import Run, scripted_run, served_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]


def test_the_loop_with_both_engines_after_an_unclean_death(tmp_path: Path, tiny_model: str) -> None:
    """Engine processes that hang outlive a SIGKILL of the run; the next start ends them, and the run goes to its end."""
    run = served_run(tmp_path, tiny_model)
    # Our own Ray ends a dead replica's processes, and Ray itself a dead worker's children. A cluster that others started need not
    # do the first, and the second spares grandchildren: vLLM's workers, where an engine has several.
    process = run.start_until(
        lambda run: any(event["event"] == "stage_started" for event in run.events()),
        RAY_process_group_cleanup_enabled="0",
        RAY_kill_child_processes_on_worker_exit="0",
        RAY_worker_niceness="0",
        RAY_memory_usage_threshold="0.01",  # Ray's memory monitor, were it not off, would kill every worker at once
    )
    assert_places(places(process))
    hung = run.left_behind("VLLM::")
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)  # an engine that hangs does not notice that its replica is gone
    process.kill()
    process.wait()
    time.sleep(5)  # the rest of the cluster notices
    orphans = set(hung) & set(run.left_behind())
    assert orphans, "no engine process outlived its cluster: nothing to sweep"
    run.finish()
    removed = [event["removed"]["processes"] for event in run.events() if event["event"] == "started"][-1]
    assert {int(line.split()[1]) for line in removed} >= orphans
    assert not orphans & set(run.left_behind())
    report = run.report()
    first, last = report["iterations"]
    assert first["round"]["evaluated"] == 12 and first["grown"]["id"] == last["dataset"]["id"]
    assert first["round"]["wrong"] > 0 and first["round"]["asked"] >= first["round"]["wrong"]
    assert last["dataset"]["num_rows"] == 12 + first["round"]["accepted"]
    assert set(report["exams"]["accuracy"]) == {"untrained", "first", "kept", "baseline"}
    read = json.loads((run.path / "evidence" / "read.json").read_text())
    assert read["not_read"] == [] and read["series"] > 0 < read["log_lines"]
    order = [(run.path / name).stat().st_mtime_ns for name in ("report.json", "evidence/logs.txt", "evidence/read.json")]
    assert order == sorted(order), "the report waited for the evidence"
    engines_up = [event["time"] for event in run.events() if event["event"] == "engines_up"]
    finished = [event["time"] for event in run.events() if event["event"] == "stage_finished"]
    assert len(engines_up) == 2 and engines_up[-1] < min(finished), "an engine was started after the first stage had ended"
    deadline = time.monotonic() + 60  # engines are told to end, and take a moment
    while run.left_behind() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert run.left_behind() == []


MODELS = {"VLLM::EngineCore", "ray::RayTrainWorker"}
STAND = {"ray::Driver", "ray::Asker"}
"""Give way as soon as they stand; what follows does so a minute after its start."""
AROUND = {"ray::ServeController", "ray::TrainController", "ray::TrainingDesk"}
RAYS_OWN = {"raylet", "gcs_server", "python", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
COME_AND_GO = {
    "ray::IDLE", "ray::ServeReplica", "ray::_AutoscalingCoordinatorActor", "ray::DatasetManager", "ray::PlacementGroupCleaner",
    "ray::SynchronizationActor", "ray::ActorLocationTracker", "ray::_StatsActor", "ray::ReadParquet", "ray::MapWorker",
}  # fmt: skip


def assert_places(found: dict[str, set[tuple[int, int]]]) -> None:
    """The run's processes are these and no others (Ray and vLLM would add some that report usage and watch for preemption), and
    each has its place: on cores the models first and the others five levels behind, when memory is gone the models first too."""
    behind = 0 if any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd"))) else 5
    wanted = {name: {(0, 1000)} for name in MODELS} | {name: {(behind, 0)} for name in STAND}
    assert {name: found.get(name) for name in wanted} == wanted
    assert all(found[name] <= {(0, 0), (behind, 0)} for name in AROUND)
    assert found.keys() <= wanted.keys() | AROUND | RAYS_OWN | COME_AND_GO


def places(process: subprocess.Popen[str]) -> dict[str, set[tuple[int, int]]]:
    """Niceness and the kernel's score adjustment of all processes below the run's command, by what they are."""
    found: dict[str, set[tuple[int, int]]] = {}
    for below in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            name = re.match(r"(?:\w+::)?\w*", below.name())
            score = int(Path(f"/proc/{below.pid}/oom_score_adj").read_text())
            found.setdefault(name[0] if name else "", set()).add((below.nice(), score))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Run:
    run = scripted_run(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    run.finish()
    return run


def test_iteration_py_accounts_for_every_second_of_a_run(undisturbed: Run, tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    line = [sys.executable, "-m", "benchmarks.runs.iteration", str(undisturbed.path), "--json", str(file)]
    subprocess.run(line, cwd=Path(__file__).parents[2], check=True, timeout=120)
    found = json.loads(file.read_text())
    phases = found["phases"]
    assert sum(phase["seconds"] for phase in phases) == pytest.approx(found["wall_seconds"])
    trainings = [phase for phase in phases if phase["phase"]["name"] == "train"]
    told = [iteration["student"]["metrics"]["updates"] for iteration in undisturbed.report()["iterations"]]
    assert [phase["updates"] for phase in trainings] == told
    stages = [phase["phase"]["name"] for phase in phases]
    assert stages.index("engines") < stages.index("train") and stages.count("engines") == 1, "engines started once, before"


def training(run: Run) -> bool:
    """In the middle of the second student's training, past its first checkpoint."""
    log = next(run.path.glob("train/001-*.jsonl"), None)
    return log is not None and '"update": 4' in log.read_text()


def augmenting(run: Run) -> bool:
    return len(run.teacher_calls()) >= 3


def committing(run: Run) -> bool:
    return any(event["event"] == "stage_started" and event["stage"] == "commit" for event in run.events())


def examining(run: Run) -> bool:
    return any(event["event"] == "stage_started" and event["stage"] == "exam" for event in run.events())


def same_end(run: Run, undisturbed: Run) -> None:
    assert run.version_ids() == undisturbed.version_ids()
    executed = Counter(run.finished())
    assert max(executed.values()) == 1, executed
    # Stage keys hold the sha of the student's weights; their number and kind must agree.
    assert Counter(stage for stage, _ in executed) == Counter(stage for stage, _ in undisturbed.finished())
    calls = Counter(run.teacher_calls())
    durable_twice = [call for call, times in calls.items() if times > 1]
    assert len(calls) == len(set(undisturbed.teacher_calls()))
    # A call that was in flight when the process died was never durable: it may be asked once more.
    assert len(durable_twice) <= int(run.config["teacher"]["in_flight"])


def test_sigkill_while_the_teacher_works_then_the_same_command(tmp_path: Path, tiny_model: str, undisturbed: Run) -> None:
    run = scripted_run(tmp_path, tiny_model)
    run.kill_when(augmenting)
    time.sleep(5)  # workers outlive the entrypoint by a moment
    durable, before = run.stored_calls(), Counter(run.teacher_calls())
    assert durable, "killed before anything was durable"
    run.finish()
    after = Counter(run.teacher_calls())
    assert {call: after[call] for call in durable} == {call: before[call] for call in durable}, "a durable reply was asked again"
    same_end(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [training, committing, examining])
def test_sigkill_in_each_other_stage(tmp_path: Path, tiny_model: str, undisturbed: Run, stage: object) -> None:
    run = scripted_run(tmp_path, tiny_model)
    assert run.kill_when(stage) == -signal.SIGKILL  # type: ignore[arg-type]
    run.finish()
    same_end(run, undisturbed)


@pytest.mark.slow
def test_sigterm_drains_and_the_same_command_goes_on(tmp_path: Path, tiny_model: str, undisturbed: Run) -> None:
    run = scripted_run(tmp_path, tiny_model)
    assert run.kill_when(augmenting, signal.SIGTERM) == 143
    assert any(event["event"] == "stopping" for event in run.events())
    before = Counter(run.teacher_calls())
    run.finish()
    same_end(run, undisturbed)
    assert all(times == 1 for call, times in Counter(run.teacher_calls()).items() if call in before), "asked twice after a drain"


def test_a_second_driver_refuses(tmp_path: Path, tiny_model: str) -> None:
    run = scripted_run(tmp_path, tiny_model, iterations=1)
    first = run.start()
    try:
        while not list(run.events()):
            assert first.poll() is None
        second = run.start()
        assert second.wait(240) == 2
        assert f"pid {first.pid}" in (tmp_path / "log.txt").read_text()
    finally:
        first.terminate()
        first.wait(240)
