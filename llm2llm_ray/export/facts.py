"""What an export says about its run: its iteration, what was accepted and refused, the contamination check done anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How many rows are equal or near to a row that the student is examined or chosen on."""

    threshold: float
    against: int
    """Dev and test rows compared with."""
    written: int
    """Rows of the version that the teacher wrote."""
    written_near: int
    given: int
    """Rows of the version that came with the task."""
    given_near: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    record: RunRecord
    index: int
    """The i of D^i and M^i, from 0."""
    version: DatasetVersion
    student: Mapping[str, Any] | None
    """The stage record of the training of M^i on D^i; None when it is not trained (yet)."""
    held_out: Mapping[str, DatasetVersion]
    """test, validation: where the run has them."""
    rejected: Mapping[str, int]
    """By reason, over the rounds that led to this version."""
    accepted: int
    check: Check

    @property
    def config(self) -> dict[str, Any]:
        return self.record.config


def facts(record: RunRecord, iteration: int | None = None) -> Facts:
    """Of D^iteration and M^iteration; None: of the kept student's, or the last finished one while the run goes on.

    Raises UserError when there is none."""
    done = {int(item["index"]): item for item in record.iterations}
    if not done:
        raise UserError(f"{record.name}: no iteration is finished yet, so there is nothing to export ({record.state})")
    index = record.kept if iteration is None else iteration
    dataset = done[index]["dataset"] if index in done else (done.get(index - 1) or {}).get("grown")
    if dataset is None:
        raise UserError(f"{record.name}: --iteration {index}: finished are {', '.join(map(str, sorted(done)))}")
    store = VersionStore(record.files)
    version = store.load(dataset["id"], iteration=index)
    if version is None:
        raise UserError(f"{record.name}: versions/{index:03d}-{dataset['id'][:12]} is gone from {record.files.root}")
    before = [item["round"] for at, item in done.items() if at < index]
    held_out = _held_out(record)
    return Facts(
        record=record,
        index=index,
        version=version,
        student=_training(record, done[index]["student"]["sha"]) if index in done else None,
        held_out=held_out,
        rejected=dict(sum((Counter(round_["rejected"]) for round_ in before), Counter())),
        accepted=sum(round_["accepted"] for round_ in before),
        check=_check(record, version, held_out),
    )


def _training(record: RunRecord, sha: str) -> Mapping[str, Any] | None:
    return next((s for s in reversed(record.stages) if s["name"] == "train" and s["result"]["sha"] == sha), None)


def _held_out(record: RunRecord) -> dict[str, DatasetVersion]:
    """The newest of each: a folder whose settings were changed holds several."""
    found = {}
    ids = {id for stage in record.stages for id in stage["inputs"].get("held_out", ())}
    for split, name in (("validation", "dev"), ("test", "test")):
        versions = VersionStore(record.files, f"inputs/{name}").all()
        used = [version for version in versions if version.id in ids] or versions
        if used:
            found[split] = used[-1]
    return found


def _check(record: RunRecord, version: DatasetVersion, held_out: Mapping[str, DatasetVersion]) -> Check:
    """Repeats the gate's comparison on what is exported, with the gate's own threshold."""
    threshold = float(record.config["augmentation"]["near_test"])
    kept_out = [
        row
        for split, rows in held_out.items()
        for row in VersionStore(record.files, "inputs/dev" if split == "validation" else "inputs/test").rows(rows)
    ]
    gate = HeldOut(kept_out, threshold, (row for row in record.version_rows(version) if row.origin != "augmented"))
    near: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in record.version_rows(version):
        origin = "written" if row.origin == "augmented" else "given"
        total[origin] += 1
        near[origin] += gate.find(row.input) is not None
    return Check(
        threshold=threshold, against=len(kept_out), written=total["written"], written_near=near["written"],
        given=total["given"], given_near=near["given"],
    )  # fmt: skip
