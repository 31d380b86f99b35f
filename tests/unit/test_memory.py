"""Memory before a run (what it needs beside what is free) and after one that it ended (one message instead of Ray's)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import TemporaryFailure
from llm2llm_ray.machine import Machine
from llm2llm_ray.planning.memory import least_memory, memory_warning
from llm2llm_ray.runtime.driver.memory import MemoryWatch, ended_by_memory
from llm2llm_ray.storage.files import Files

DEMO = Path(__file__).parents[2] / "benchmarks" / "two_engines.yaml"
COUNT = 134_515_008
TRAINING, ENGINE = 16 * COUNT / 2**30, 4 * COUNT / 2**30 + 0.5  # float32; a cache of half a GiB
WORKER, REPLICA, AROUND = 0.4, 1.0, 2.8  # GiB without the models


def demo(*set_: str) -> Config:
    return load_config(DEMO, [*set_])


def machine(free_gib: float) -> Machine:
    return Machine(cpu="", cores=2, bf16=False, memory_gib=16.0, available_gib=free_gib, shm_gib=8.0, gpus=())


@pytest.mark.parametrize(
    ("set_", "gib"),
    [
        ([], TRAINING + 2 * ENGINE + WORKER + 2 * REPLICA + AROUND),
        (["student.workers=2", "student.engine.replicas=2"], TRAINING + 3 * ENGINE + 2 * WORKER + 3 * REPLICA + AROUND),
        (["student.method=lora"], 2 * ENGINE + WORKER + 2 * REPLICA + AROUND),
        ([f"evaluation.recorded_answers={DEMO}"], TRAINING + ENGINE + WORKER + REPLICA + AROUND),
        ([f"teacher={{kind: scripted, model: {DEMO}}}"], TRAINING + ENGINE + WORKER + REPLICA + AROUND),
        (
            [f"teacher={{kind: recorded, model: {DEMO}, engine: {{replicas: 3}}}}"],
            TRAINING + ENGINE + WORKER + REPLICA + 3 * 0.2 + AROUND,
        ),
    ],
)
def test_what_a_run_needs_by_counting(set_: list[str], gib: float) -> None:
    assert least_memory(demo(*set_), bf16=False) == pytest.approx(gib)


def test_an_exam_needs_one_engine() -> None:
    assert least_memory(demo(), bf16=False, exam_only=True) == pytest.approx(ENGINE + REPLICA + AROUND)


def test_a_model_of_unknown_size_is_not_guessed() -> None:
    assert least_memory(demo("teacher.model=unknown"), bf16=False) is None
    assert memory_warning(demo("teacher.model=unknown"), machine(0.1)) is None


def test_too_little_free_is_told_before_the_start_with_those_who_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = memory_warning(demo(), machine(5.0))
    assert told is not None
    assert told.startswith(
        "this run needs 9.2 GiB of memory at the least, and 5.0 of 16.0 GiB are free; the largest other programs: "
    )
    assert memory_warning(demo(), machine(10.0)) is None
    assert memory_warning(demo("cluster.address=10.0.0.1:6379"), machine(5.0)) is None, "it runs elsewhere"


DIED = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task. ... connection error code 2."
ALSO_SAID = "Some common causes include: (1) the process was killed by the OOM killer due to high memory usage"


@pytest.mark.parametrize(
    ("text", "killed", "why"),
    [
        ("2 worker(s) were killed due to the node running low on memory. Refer to", 0, "Ray's memory monitor ended a worker"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried", 0,
         "a process was refused more of it"),
        ("OSError: [Errno 12] Cannot allocate memory", 0, "a process was refused more of it"),
        ("MemoryError", 0, "a process was refused more of it"),
        (DIED, 1, "the kernel ended 1 process"),
        (DIED, 3, "the kernel ended 3 processes"),
        (f"{DIED} {ALSO_SAID}", 0, None),  # Ray says so of every death
        ("ValueError: a mistake of ours", 2, None),  # somebody else's process was killed
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", 0, None),  # the GPU's, with remedies of its own
    ],
)  # fmt: skip
def test_what_memory_ended(text: str, killed: int, why: str | None) -> None:
    assert ended_by_memory(text, killed) == why


def test_one_message_and_the_long_text_in_a_file(tmp_path: Path) -> None:
    rays = "1 worker(s) were killed due to the node running low on memory.\n" + "Ray's own line\n" * 60
    with pytest.raises(TemporaryFailure) as raised, MemoryWatch(Files(str(tmp_path))).explained():
        raise OutOfMemoryError(rays)
    told = str(raised.value)
    assert len(told.splitlines()) == 1 and told.startswith("memory ran out: Ray's memory monitor ended a worker. When least was")
    assert "the same command goes on" in told and raised.value.__cause__ is None and raised.value.__suppress_context__
    assert (tmp_path / "evidence" / "failure.txt").read_text().count("Ray's own line") == 60
    assert told.endswith(str(tmp_path / "evidence" / "failure.txt"))


@pytest.mark.parametrize("error", [ActorDiedError(), ValueError("MemoryError")])
def test_everything_else_leaves_as_it_came(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, MemoryWatch(Files(str(tmp_path))).explained():
        raise error
    assert raised.value is error and isinstance(error, RayError | ValueError)
