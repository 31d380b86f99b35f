"""Segments of a near-duplicate index: sorted arrays of 64-bit keys and what is needed to judge the rows they lead to.

A segment never changes. It lies in memory, or in a folder of .npy files that are memory-mapped: then the system holds of
it what is looked at. `merged` reads and writes one table of keys at a time, so its memory is a small part of the segment.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2llm_ray.augmentation.minhash_bands import Bands

SAME, REORDERED, FIRST_BAND = 0, 1, 2
"""Tables of keys. A key is a table's number in its first byte and 56 bits of a hash: all tables are one sorted array."""
_TEXT = np.dtype(
    [
        ("same", "<u8", (2,)), ("reordered", "<u8", (2,)), ("tag", "<u8"), ("length", "<u4"),
        ("bag", "<i8"), ("bag_size", "<u4"), ("id", "<i8"), ("id_size", "<u4"),
    ]
)  # fmt: skip
"""Per text: its two 16-byte keys, the caller's tag, its words (each occurrence), where its bag and its id lie."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A text on its way into the index, or a text that is looked for."""

    id: str
    tag: int
    same: bytes
    reordered: bytes
    bag: array[int] | None
    """None for texts so short that no other can be near them."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts by number."""

    facts: NDArray[Any]
    bags: NDArray[np.uint32]
    """Each bag's words are sorted, and each stands once."""
    ids: NDArray[np.uint8]

    def id(self, number: int) -> str:
        start, size = int(self.facts["id"][number]), int(self.facts["id_size"][number])
        return self.ids[start : start + size].tobytes().decode("utf-8", "surrogatepass")

    def with_key(self, name: str, key: bytes, among: NDArray[Any]) -> NDArray[Any]:
        """The numbers whose 16-byte key is that one."""
        found: NDArray[Any] = among[(self.facts[name][among] == np.frombuffer(key, "<u8")).all(axis=1)]
        return found

    def common(self, bag: array[int], among: NDArray[Any]) -> NDArray[np.int64]:
        """How many different words of `bag` each of these texts has."""
        sizes = self.facts["bag_size"][among].astype(np.int64)
        ends = np.cumsum(sizes)
        places = np.repeat(self.facts["bag"][among] - ends + sizes, sizes) + np.arange(ends[-1])
        words, wanted = self.bags[places], np.unique(np.frombuffer(bag, np.uint32))
        nearest = np.minimum(np.searchsorted(wanted, words), len(wanted) - 1)
        counts: NDArray[np.int64] = np.add.reduceat((wanted[nearest] == words).astype(np.int64), ends - sizes)
        return counts


@dataclass(frozen=True, slots=True)
class Segment:
    keys: NDArray[np.uint64]
    owners: NDArray[np.uint32]
    """The text's number of each key."""
    texts: Texts
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.texts.facts)

    def hits(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(first, how many): where the places of each key lie. Sorted keys are found fastest: they share cache lines."""
        starts = np.searchsorted(self.keys, keys)
        counts = np.zeros(len(keys), np.int64)
        inside = np.flatnonzero(starts < len(self.keys))
        hit = inside[self.keys[starts[inside]] == keys[inside]]
        counts[hit] = np.searchsorted(self.keys, keys[hit], side="right") - starts[hit]
        return starts, counts

    def owners_of(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The text's number at every place of these keys."""
        ends = np.cumsum(counts)
        found: NDArray[np.uint32] = self.owners[np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])]
        return found


def keys_of(entries: Sequence[Entry], bands: Bands) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Every key of these texts and whose it is, by table (`table_of`)."""
    numbers = np.arange(len(entries), dtype=np.uint32)
    long = [(number, entry.bag) for number, entry in enumerate(entries) if entry.bag is not None]
    hashes = [_halves([entry.same for entry in entries])[:, :1], _halves([entry.reordered for entry in entries])[:, :1]]
    keys, owners = [_tables(SAME, hashes[0]), _tables(REORDERED, hashes[1])], [numbers, numbers]
    if long:
        keys.append(_tables(FIRST_BAND, bands.hashes([bag for _, bag in long])))
        owners.append(np.tile(numbers[[number for number, _ in long]], bands.bands))
    return np.concatenate(keys), np.concatenate(owners)


def table_of(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (keys >> np.uint64(56)).astype(np.int64)


def texts_of(entries: Sequence[Entry]) -> Texts:
    facts = np.zeros(len(entries), _TEXT)
    bags = [sorted(set(entry.bag)) if entry.bag is not None else [] for entry in entries]
    ids = [entry.id.encode("utf-8", "surrogatepass") for entry in entries]
    facts["same"], facts["reordered"] = _halves([e.same for e in entries]), _halves([e.reordered for e in entries])
    facts["tag"] = [entry.tag for entry in entries]
    facts["length"] = [len(entry.bag) if entry.bag is not None else 0 for entry in entries]
    facts["bag_size"], facts["id_size"] = [len(bag) for bag in bags], [len(id) for id in ids]
    for start, size in (("bag", "bag_size"), ("id", "id_size")):
        facts[start] = np.cumsum(facts[size], dtype=np.int64) - facts[size]
    words = np.array([word for bag in bags for word in bag], np.uint32)
    return Texts(facts, words, np.frombuffer(b"".join(ids), np.uint8))


def segment_of(entries: Sequence[Entry], bands: Bands, folder: Path | None = None) -> Segment:
    """Of texts with the same words in the same order the smallest id stays: the others could never be the best match."""
    kept: dict[tuple[bytes, bytes], Entry] = {}
    for entry in entries:
        texts = entry.same, entry.reordered
        if texts not in kept or (entry.id, entry.tag) < (kept[texts].id, kept[texts].tag):
            kept[texts] = entry
    chosen = list(kept.values())
    keys, owners = keys_of(chosen, bands)
    order = np.argsort(keys, kind="stable")
    return _placed(Segment(keys[order], owners[order], texts_of(chosen)), folder)


def merged(segments: Sequence[Segment], bands: Bands, folder: Path | None = None) -> Segment:
    """One segment that answers as these do together."""
    rows = np.cumsum([0, *(len(segment) for segment in segments)])
    keys = _empty(folder, "keys", np.dtype("<u8"), sum(len(segment.keys) for segment in segments))
    owners = _empty(folder, "owners", np.dtype("<u4"), len(keys))
    filled = 0
    for table in range(FIRST_BAND + bands.bands):
        ends = np.array([table << 56, ((table + 1) << 56) - 1], np.uint64)
        cuts = [slice(np.searchsorted(s.keys, ends[0]), np.searchsorted(s.keys, ends[1], side="right")) for s in segments]
        ours = np.concatenate([segment.keys[cut] for segment, cut in zip(segments, cuts, strict=True)])
        whose = np.concatenate(
            [s.owners[cut] + np.uint32(start) for s, cut, start in zip(segments, cuts, rows[:-1], strict=True)]
        )
        order = np.argsort(ours, kind="stable")
        keys[filled : filled + len(ours)], owners[filled : filled + len(ours)] = ours[order], whose[order]
        filled += len(ours)
    facts = _empty(folder, "facts", _TEXT, int(rows[-1]))
    bags = _empty(folder, "bags", np.dtype("<u4"), sum(len(segment.texts.bags) for segment in segments))
    ids = _empty(folder, "ids", np.dtype("u1"), sum(len(segment.texts.ids) for segment in segments))
    words = letters = 0
    for segment, start in zip(segments, rows[:-1], strict=True):
        part, texts = facts[start : start + len(segment)], segment.texts
        part[:] = texts.facts
        part["bag"] += words
        part["id"] += letters
        bags[words : words + len(texts.bags)], ids[letters : letters + len(texts.ids)] = texts.bags, texts.ids
        words, letters = words + len(texts.bags), letters + len(texts.ids)
    if folder is not None:
        return opened(folder)
    return Segment(keys, owners, Texts(facts, bags, ids))


def opened(folder: Path) -> Segment:
    """A segment on disk. Raises OSError or ValueError when its files are not all there and whole."""
    keys, owners, facts, bags, ids = (
        np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ("keys", "owners", "facts", "bags", "ids")
    )
    if facts.dtype != _TEXT or len(keys) != len(owners):
        raise ValueError(f"{folder}: not a segment of this format")
    return Segment(keys, owners, Texts(facts, bags, ids), folder)


def synced(folder: Path) -> Mapping[str, int]:
    """Make the files of a segment durable; their sizes."""
    sizes = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            sizes[path.name] = os.fstat(file.fileno()).st_size
    return sizes


def _placed(segment: Segment, folder: Path | None) -> Segment:
    if folder is None:
        return segment
    for name, array_ in _files(segment):
        _empty(folder, name, array_.dtype, len(array_))[:] = array_
    return opened(folder)


def _files(segment: Segment) -> Iterator[tuple[str, NDArray[Any]]]:
    texts = segment.texts
    yield from (("keys", segment.keys), ("owners", segment.owners))
    yield from (("facts", texts.facts), ("bags", texts.bags), ("ids", texts.ids))


def _empty(folder: Path | None, name: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    """An array to be filled: in memory, or a new file of `folder`."""
    if folder is None:
        return np.empty(size, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}.npy"
    return np.asarray(np.lib.format.open_memmap(place, mode="w+", dtype=dtype, shape=(size,)))  # type: ignore[no-untyped-call]


def _halves(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(keys), "<u8").reshape(len(keys), 2)


def _tables(first: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The keys of hashes whose columns are the tables from `first` on, column by column."""
    tables = np.arange(first, first + hashes.shape[1], dtype=np.uint64) << np.uint64(56)
    return ((hashes >> np.uint64(8)) | tables).T.ravel()
