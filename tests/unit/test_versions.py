"""Dataset versions: the id follows from the rows alone; commits are whole, repeatable and safe to race."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.training.worker import read_rows
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example, Lineage

REPO = Path(__file__).parents[2]
SEEDS = [Example(id=f"s-{k}", input=f"question {k}", output="billing") for k in range(3)]

# What a child process runs: commit D^1 on top of the stored D^0, with one chance to die on the way.
COMMIT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from test_versions import SEEDS, grown

class Dying(Files):
    def write_once(self, path, data):
        if path.endswith({die_at!r}):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write_once(path, data)

def rows():
    for row in grown(40):
        if {die_in_rows} and row.id == "a-20":
            os.kill(os.getpid(), signal.SIGKILL)
        yield row

store = VersionStore(Dying({root!r}))
print("ready", flush=True)
sys.stdin.readline()
print(store.commit(rows(), parent=store.find(0), iteration=1, about={{"pid": os.getpid()}}).id, flush=True)
"""


def grown(count: int, iteration: int = 0) -> list[Example]:
    return [
        Example(
            id=f"a-{k}",
            input=f"like question {k}",
            output="billing",
            origin="augmented",
            lineage=Lineage(
                seed_id="s-0",
                parent_id="s-0",
                iteration=iteration,
                ordinal=k,
                attempt=0,
                wrong_answer="refund",
                prompt_sha="9f3c",
                teacher="t",
                sampling_seed=2**62 + k,
            ),
        )
        for k in range(count)
    ]


def commit_seeds(store: VersionStore) -> DatasetVersion:
    return store.commit(SEEDS, parent=None, iteration=0, about={})


def child(root: Path, die_at: str = "never", die_in_rows: bool = False) -> subprocess.Popen[str]:
    code = COMMIT.format(tests=str(Path(__file__).parent), root=str(root), die_at=die_at, die_in_rows=die_in_rows)
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


text = st.text(max_size=30)  # any Unicode but lone surrogates, newlines and NUL included
lineages = st.builds(
    Lineage,
    seed_id=text,
    parent_id=text,
    iteration=st.integers(0, 2**31 - 1),
    ordinal=st.integers(0, 2**31 - 1),
    attempt=st.integers(0, 9),
    wrong_answer=text,
    prompt_sha=text,
    teacher=text,
    sampling_seed=st.integers(0, 2**63 - 1),
)
examples = st.builds(
    Example,
    id=text,
    input=text,
    output=text,
    origin=st.sampled_from(["seed", "dev", "augmented"]),
    lineage=st.none() | lineages,
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(examples, min_size=1, max_size=6), about=text)
def test_rows_come_back_as_they_were_and_alone_make_the_id(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Example], about: str
) -> None:
    one, two = (VersionStore(Files(str(tmp_path_factory.mktemp("run")))) for _ in range(2))
    version = one.commit(iter(rows), parent=None, iteration=0, about={"note": about, "seconds": 1.0})
    assert list(one.rows(version)) == rows
    assert version.num_rows == len(rows)
    assert two.commit(rows, parent=None, iteration=0, about={"seconds": 2.0}).id == version.id
    assert one.about(version)["about"]["note"] == about


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(examples, min_size=1, max_size=4), other=st.lists(examples, min_size=1, max_size=4))
def test_other_rows_or_another_order_make_another_id(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Example], other: list[Example]
) -> None:
    store = VersionStore(Files(str(tmp_path_factory.mktemp("run"))))
    first = store.commit(rows, parent=None, iteration=0, about={})
    assert (store.commit(other, parent=None, iteration=0, about={}).id == first.id) == (rows == other)


def test_the_order_of_rows_and_each_field_of_the_lineage_matter(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    base = commit_seeds(store)
    rows = grown(2)
    lineage = rows[0].lineage
    assert lineage is not None
    variants = [rows, rows[::-1], rows[:1]]
    for name in Lineage.__dataclass_fields__:
        old = getattr(lineage, name)
        new = replace(lineage, **{name: old + "x" if isinstance(old, str) else old + 1})
        variants.append([replace(rows[0], lineage=new), rows[1]])
    ids = {store.commit(variant, parent=base, iteration=1, about={}).id for variant in variants}
    assert len(ids) == len(variants) == 12


def test_a_weight_is_kept_and_one_of_1_is_none(tmp_path: Path) -> None:
    """The id is of before there were weights; a part of that time has no column of them."""
    store = VersionStore(Files(str(tmp_path)))
    seed = Example(id="s-1", input="Where do I change my card?", output="billing")
    lineage = Lineage(
        seed_id="s-1", parent_id="s-1", iteration=0, ordinal=0, attempt=1, wrong_answer="account", prompt_sha="9f", teacher="t",
        sampling_seed=7,
    )  # fmt: skip
    written = Example(id="a-1", input="Can I pay by card?", output="billing", origin="augmented", lineage=lineage)
    plain = store.commit([seed, written], parent=None, iteration=0, about={})
    assert plain.id == "2e09d36dfb05cf635a1255787b177408b28ed8a17701435cba1dcc38624e071a"
    part = tmp_path / plain.parts[0]
    pq.write_table(pq.read_table(part).drop_columns(["weight"]), part)
    assert list(store.rows(plain)) == [seed, written]
    half = [seed, replace(written, weight=0.5)]
    weighted = store.commit(half, parent=None, iteration=0, about={})
    assert weighted.id != plain.id and list(store.rows(weighted)) == half
    grown = store.commit([replace(half[1], id="a-2")], parent=plain, iteration=1, about={})
    assert [row["weight"] for row in read_rows(Files(str(tmp_path)), grown.parts)] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_no_loss_can_have_is_refused(tmp_path: Path, weight: float) -> None:
    with pytest.raises(ValueError, match=r"row 's-0': weight .* is not a number above 0"):
        VersionStore(Files(str(tmp_path))).commit([replace(SEEDS[0], weight=weight)], parent=None, iteration=0, about={})


def test_the_parent_is_in_the_id_and_the_iteration_is_not(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    d0 = commit_seeds(store)
    other = store.commit(SEEDS[:2], parent=None, iteration=0, about={})
    on_d0, on_other = (store.commit(grown(1), parent=parent, iteration=1, about={}) for parent in (d0, other))
    assert on_d0.id != on_other.id
    assert store.commit(grown(1), parent=d0, iteration=2, about={}).id == on_d0.id


def test_the_same_commit_again_changes_no_byte(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    base = commit_seeds(store)
    version = store.commit(grown(5), parent=base, iteration=1, about={"seconds": 1.0})
    before = snapshot(tmp_path)
    assert store.commit(iter(grown(5)), parent=base, iteration=1, about={"seconds": 2.0}) == version
    assert snapshot(tmp_path) == before
    assert not any((tmp_path / ".tmp").iterdir())


def test_versions_grow_along_a_chain_and_are_found(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    d0 = commit_seeds(store)
    d1 = store.commit(grown(2), parent=d0, iteration=1, about={})
    d2 = store.commit(grown(3, iteration=1), parent=d1, iteration=2, about={})
    assert list(store.rows(d2)) == SEEDS + grown(2) + grown(3, iteration=1)
    assert (d0.num_rows, d1.num_rows, d2.num_rows) == (3, 5, 8)
    assert (d1.parent, d2.parent) == (d0.id, d1.id)
    assert store.chain() == store.chain(d2) == [d0, d1, d2]
    assert store.chain(d1) == [d0, d1]
    assert (store.find(1), store.find(7)) == (d1, None)
    assert (store.load(d2.id), store.load("0" * 64)) == (d2, None)
    # Parts are shared on disk, not copied: the seeds' part is one file with three names.
    assert {os.stat(tmp_path / version.parts[0]).st_ino for version in (d0, d1, d2)} == {os.stat(tmp_path / d0.parts[0]).st_ino}


def test_no_new_rows_give_the_parents_id_at_a_new_iteration(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    d0 = commit_seeds(store)
    d1 = store.commit([], parent=d0, iteration=1, about={})
    d2 = store.commit(grown(1), parent=d1, iteration=2, about={})
    assert (d1.id, d1.iteration, d1.num_rows) == (d0.id, 1, 3)
    assert list(store.rows(d1)) == SEEDS
    assert store.chain() == [d0, d1, d2]
    assert store.load(d0.id) == d0
    assert store.load(d0.id, iteration=1) == d1


def test_two_versions_of_one_iteration_are_told_apart(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    d0 = commit_seeds(store)
    one, two = (store.commit(grown(count), parent=d0, iteration=1, about={}) for count in (1, 2))
    with pytest.raises(UserError, match="iteration 1 has 2 versions"):
        store.find(1)
    assert store.chain(one) == [d0, one]
    assert store.load(two.id) == two


def test_a_first_version_needs_rows_and_iterations_rise(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    with pytest.raises(UserError, match="seed set must not be empty"):
        store.commit([], parent=None, iteration=0, about={})
    d0 = commit_seeds(store)
    with pytest.raises(ValueError, match="later than its parent"):
        store.commit(grown(1), parent=d0, iteration=0, about={})


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    with pytest.raises(UserError, match="row 's-9'"):
        store.commit([Example(id="s-9", input="\ud83d", output="x")], parent=None, iteration=0, about={})
    assert store.all() == []


def test_rows_are_not_held(tmp_path: Path) -> None:
    store, alive, most = VersionStore(Files(str(tmp_path))), 0, 0

    class Counted(Example):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def rows() -> Iterator[Example]:
        nonlocal alive, most
        for number in range(20_000):
            alive += 1
            most = max(most, alive)
            yield Counted(id=str(number), input="x", output="y")

    version = store.commit(rows(), parent=None, iteration=0, about={})
    assert most < 10_000
    assert sum(1 for _ in store.rows(version)) == version.num_rows == 20_000


@pytest.mark.parametrize(("die_at", "die_in_rows"), [("manifest.json", False), ("README.md", False), ("-", True)])
def test_a_killed_commit_is_done_again_and_leaves_one_version(tmp_path: Path, die_at: str, die_in_rows: bool) -> None:
    store = VersionStore(Files(str(tmp_path)))
    base = commit_seeds(store)
    killed = child(tmp_path, die_at, die_in_rows)
    killed.communicate("go\n", timeout=60)
    assert killed.returncode == -9
    assert store.all() == [base]
    left = snapshot(tmp_path)
    Files(str(tmp_path)).clear_scratch()
    version = store.commit(grown(40), parent=base, iteration=1, about={})
    assert store.all() == [base, version]
    assert list(store.rows(version)) == SEEDS + grown(40)
    parts = [path for path in left if path.startswith("versions/001-")]
    assert bool(parts) == (not die_in_rows)
    assert all(snapshot(tmp_path)[path] == left[path] for path in parts)


def test_two_processes_may_commit_the_same_version_at_once(tmp_path: Path) -> None:
    store = VersionStore(Files(str(tmp_path)))
    base = commit_seeds(store)
    children = [child(tmp_path), child(tmp_path)]
    for process in children:  # both have imported everything before either starts
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = {process.communicate(timeout=60)[0].strip() for process in children}
    found = store.find(1)
    assert found is not None and ids == {found.id}
    assert store.all() == [base, found]
    assert list(store.rows(found)) == SEEDS + grown(40)
    assert len(list((tmp_path / "versions").glob("001-*/part-*"))) == 2


def test_the_same_ids_without_a_local_folder(tmp_path: Path) -> None:
    local = VersionStore(Files(str(tmp_path / "a")))
    remote = VersionStore(Files(str(tmp_path / "b"), filesystem=pafs.LocalFileSystem()))
    ids = []
    for store in (local, remote):
        d1 = store.commit(grown(3), parent=commit_seeds(store), iteration=1, about={})
        assert list(store.rows(d1)) == SEEDS + grown(3)
        ids.append(d1.id)
    assert ids[0] == ids[1]


def test_load_dataset_opens_versions_as_they_are_and_sees_them_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    store = VersionStore(Files(str(tmp_path / "test-runs" / "dev")))  # names that `datasets` takes for splits
    versions = [commit_seeds(store)]
    versions.append(store.commit([], parent=versions[-1], iteration=1, about={"note": [1]}))
    for i in (2, 3):
        versions.append(store.commit(grown(i, iteration=i), parent=versions[-1], iteration=i, about={}))
    for version in versions:
        opened = load_dataset(store.folder(version), cache_dir=str(tmp_path / "cache"))
        assert list(opened) == ["train"]
        assert opened["train"]["id"][:] == [row.id for row in store.rows(version)]
        assert opened["train"]["seed_id"][0] is None
    assert [len(list(store.rows(version))) for version in versions] == [3, 3, 5, 8]
