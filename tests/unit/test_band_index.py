"""The index on disk: it answers as one in memory, grows by what is new, and is made again when it is lost or broken."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from datasketch import MinHash

from llm2llm_ray.augmentation import similarity
from llm2llm_ray.augmentation.commit import CommitGates
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.minhash_bands import Bands
from llm2llm_ray.augmentation.row_index import Part, answer_tag, open_index
from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.types import Example

_DRAW = random.Random(5)
_WORDS = [f"{a}{b}" for a in "bcdfghjklm" for b in ("ank", "ell", "ino", "op", "urt")]


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(_WORDS, k=draw.choice([3, 5, 12, 15, 30])))


def _changed(text: str, draw: random.Random) -> str:
    """The same text, its words in another order, or one or two of them changed."""
    found = text.split()
    if draw.random() < 0.3:
        draw.shuffle(found)
    for _ in range(draw.choice([0, 0, 1, 2])):
        found[draw.randrange(len(found))] = draw.choice(_WORDS)
    return " ".join(found).upper()


TEXTS = [_text(_DRAW) for _ in range(100)]
TEXTS += [_changed(_DRAW.choice(TEXTS), _DRAW) for _ in range(100)]
QUERIES = [*TEXTS[::9], *(_changed(_DRAW.choice(TEXTS), _DRAW) for _ in range(90)), *(_text(_DRAW) for _ in range(10)), " ", "x"]
ROWS = [Example(id=f"r-{k * 7919 % 1000}", input=text, output=f"answer {k % 3}") for k, text in enumerate(TEXTS)]


class Read:
    """Parts that count how often they are read."""

    def __init__(self, *bounds: int) -> None:
        self.read: list[str] = []
        self.parts = [self._part(first, last) for first, last in zip((0, *bounds), (*bounds, len(ROWS)), strict=True)]

    def _part(self, first: int, last: int) -> Part:
        name = f"part-{first}-{last}"

        def rows() -> Iterator[Example]:
            self.read.append(name)
            yield from ROWS[first:last]

        return Part(name=name, rows=rows)


def _in_memory(rows: Sequence[Example] = ROWS, threshold: float = 0.9) -> NearDuplicates:
    index = NearDuplicates(threshold)
    for row in rows:
        index.add(row.id, row.input, answer_tag(row.output))
    return index


def _answers(index: NearDuplicates) -> list[object]:
    return [index.match(query) for query in QUERIES]


def test_the_texts_here_have_all_kinds_of_matches() -> None:
    scores = {round(match[1], 2) if match else None for match in map(_in_memory().find, QUERIES)}
    assert scores >= {None, 0.9, 0.95, 0.99, 1.0}


@pytest.mark.parametrize("threshold", [0.4, 0.8, 0.9, 1.0])
def test_the_index_on_disk_answers_as_the_one_in_memory(threshold: float, tmp_path: Path) -> None:
    open_index(tmp_path, Read(50, 90).parts[:1], threshold, str)
    index = open_index(tmp_path, Read(50, 90).parts, threshold, str)
    assert _answers(index) == _answers(_in_memory(threshold=threshold))


@pytest.mark.parametrize("flushed", [5, 64])
def test_rows_flushed_early_or_late_and_searched_between_are_the_same_rows(
    flushed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = _answers(_in_memory())
    monkeypatch.setattr(similarity, "_FLUSHED_ROWS", flushed)
    monkeypatch.setattr(similarity, "_JUDGED_AT_ONCE", 2)
    index = _in_memory(ROWS[:1])
    for row in ROWS[1:]:
        index.find(QUERIES[3])
        index.add(row.id, row.input, answer_tag(row.output))
    assert _answers(index) == usual
    on_disk = open_index(tmp_path, Read(100).parts, 0.9, str)
    assert _answers(on_disk) == usual
    assert len(on_disk.segments()) <= 8, "segments at least double from one to the next"
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {s.folder.name for s in on_disk.segments() if s.folder}


@pytest.mark.parametrize("flushed", [5, 1000])
def test_texts_looked_for_ahead_match_the_rows_added_since_as_well(
    flushed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, few = _answers(_in_memory()), _answers(_in_memory(ROWS[:100]))
    assert usual != few
    monkeypatch.setattr(similarity, "_FLUSHED_ROWS", 20)
    index = open_index(tmp_path, Read(100).parts[:1], 0.9, str)
    assert len(index.segments()) > 1
    monkeypatch.setattr(similarity, "_FLUSHED_ROWS", flushed)
    index.look_ahead(QUERIES)
    assert _answers(index) == few
    for row in ROWS[100:]:
        index.add(row.id, row.input, answer_tag(row.output))
    assert _answers(index) == usual
    index.look_ahead([])
    assert _answers(index) == usual


def test_a_grown_index_reads_only_what_is_new(tmp_path: Path) -> None:
    first, grown, again = Read(100, 160), Read(100, 160), Read(100, 160)
    open_index(tmp_path, first.parts[:2], 0.9, str)
    open_index(tmp_path, grown.parts, 0.9, str)
    open_index(tmp_path, again.parts, 0.9, str)
    assert (first.read, grown.read, again.read) == (["part-0-100", "part-100-160"], ["part-160-200"], [])


def test_rows_added_to_an_opened_index_stay_in_memory(tmp_path: Path) -> None:
    parts = Read().parts
    index = open_index(tmp_path, parts, 0.9, str)
    index.add("new", "a row that no part has")
    assert index.find("a row that no part has") == ("new", 1.0)
    assert open_index(tmp_path, parts, 0.9, str).find("a row that no part has") is None


@pytest.mark.parametrize("damage", ["lost", "marker", "file", "short", "garbage"])
def test_a_lost_or_broken_index_is_made_again(damage: str, tmp_path: Path) -> None:
    usual = _answers(open_index(tmp_path / "index", Read(100).parts, 0.9, str))
    (marker,) = (tmp_path / "index").glob("*.json")
    keys = next((tmp_path / "index").glob("*/keys.npy"))
    if damage == "lost":
        (tmp_path / "index").rename(tmp_path / "elsewhere")
    elif damage == "marker":
        marker.unlink()
    elif damage == "file":
        keys.unlink()
    elif damage == "short":
        keys.write_bytes(keys.read_bytes()[:-8])
    else:
        marker.write_bytes(marker.read_bytes()[:-9])
    again = Read(100)
    assert _answers(open_index(tmp_path / "index", again.parts, 0.9, str)) == usual
    assert again.read == ["part-0-100", "part-100-200"]


def test_another_threshold_answer_or_part_is_another_index(tmp_path: Path) -> None:
    for threshold, about, bounds in ((0.9, "", (100,)), (0.8, "", (100,)), (0.8, "other", (100,)), (0.8, "other", (90,))):
        read = Read(*bounds)
        open_index(tmp_path, read.parts, threshold, str, about)
        assert len(read.read) == 2


def test_the_gates_take_an_index_for_its_rows(tmp_path: Path) -> None:
    index = open_index(tmp_path, Read().parts, 0.9, str)
    CommitGates(index, HeldOut([], 0.8), AugmentationConfig(near_duplicate=0.9), str)
    with pytest.raises(ValueError, match=r"threshold 0.9, where 0.8"):
        CommitGates(index, HeldOut([], 0.8), AugmentationConfig(near_duplicate=0.8), str)
    with pytest.raises(ValueError, match=r"threshold 0.9, where 0.8"):
        CommitGates([], HeldOut([], 0.9), AugmentationConfig(near_test=0.8), str)


def test_tags_tell_answers_apart() -> None:
    assert len({answer_tag(answer) for answer in (None, "", "a", "b")}) == 4
    assert answer_tag("a") == 0x40F89E395B66422F, "as `printf a | b2sum -l 64` tells: an index on disk outlives the process"


def test_signatures_are_those_of_datasketch(monkeypatch: pytest.MonkeyPatch) -> None:
    bags = [similarity._bag(text.split()) for text in TEXTS]
    for jaccard, seed in ((0.7, 0), (0.5, 3)):
        bands = Bands(jaccard, seed)
        ours = bands.signatures(bags)
        monkeypatch.setattr("llm2llm_ray.augmentation.minhash_bands._BATCH_WORDS", 50)
        assert (bands.signatures(bags) == ours).all()
        for bag, signature in zip(bags, ours, strict=True):
            sketch = MinHash(num_perm=128, seed=seed + 1, hashfunc=int, scheme="affine32")
            sketch.update_batch(bag)
            assert signature.tolist() == sketch.hashvalues[: len(signature)].tolist()


def test_bands_meet_where_their_minima_do() -> None:
    bands = Bands(0.7)
    bags = [similarity._bag(text.split()) for text in ("a b c d e f g h", "a b c d e f g x", "i j k l m n")]
    minima = bands.signatures(bags).reshape(len(bags), bands.bands, bands.rows)
    hashes = bands.hashes(bags)
    for other in (1, 2):
        same = (minima[0] == minima[other]).all(axis=1)
        assert ((hashes[0] == hashes[other]) == same).all()
        assert same.any() == (other == 1)
