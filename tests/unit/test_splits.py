import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from task_data import real_folder

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.normal_form import identity, words
from llm2llm_ray.tasks.seed_rows import Finder
from llm2llm_ray.tasks.splits import Splits, load_splits
from llm2llm_ray.types import Example


def write(folder: Path, **files: list[tuple[str, str]]) -> Path:
    for name, rows in files.items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def load(folder: Path | str, **settings: Any) -> tuple[Classification, Splits]:
    config = TaskConfig(**{"name": "classification", "data": str(folder), **settings})
    task, splits = load_splits(config, Classification(), base_dir=Path.cwd())
    assert isinstance(task, Classification)
    return task, splits


def complaint(folder: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        load(folder, **settings)
    return str(raised.value)


SEED = [(f"{word} {number}", label) for number in range(4) for word, label in (("where is it", "LOC"), ("who", "HUM"))]
TEST = [(f"test {number}", "LOC" if number % 4 else "HUM") for number in range(40)]


def test_a_folder_taken_whole_keeps_its_rows_and_order(tmp_path: Path) -> None:
    task, splits = load(write(tmp_path, seed=SEED, dev=[("dev one", "HUM")], test=TEST))
    assert [(example.input, example.output) for example in splits.seed] == SEED
    assert (len(splits.dev), len(splits.test)) == (1, 40)
    assert {example.origin for example in splits.seed} == {"seed"}
    assert {example.origin for example in splits.dev} == {"dev"}
    assert task.labels == ("HUM", "LOC")
    assert splits.counts["seed"] == splits.counts["seed_read"] == 8
    assert splits.sources["test"] == str(tmp_path / "test.jsonl")


def test_ids_differ_between_splits(tmp_path: Path) -> None:
    _, splits = load(write(tmp_path, seed=SEED, dev=SEED[:2], test=TEST))
    ids = [example.id for example in (*splits.seed, *splits.dev, *splits.test)]
    assert len(set(ids)) == len(ids)


def test_ids_that_begin_at_0_in_every_file_stay_apart(tmp_path: Path) -> None:
    for name in ("seed", "dev", "test"):
        rows = [{"id": number, "text": f"{name} text {number}", "label": "LOC"} for number in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    _, splits = load(tmp_path)
    ids = [example.id for example in (*splits.seed, *splits.dev, *splits.test)]
    assert ids == ["0", "1", "dev-0", "dev-1", "test-0", "test-1"]


def test_draws_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    drawn = []
    for rows, held_out in ((SEED, TEST), (SEED[::-1], TEST[::-1])):
        _, splits = load(write(tmp_path, seed=rows, test=held_out), seeds_per_class=2, test_rows=7)
        drawn.append((splits.seed, splits.test))
    assert drawn[0] == drawn[1]
    assert Counter(example.output for example in drawn[0][0]) == {"LOC": 2, "HUM": 2}
    _, other = load(tmp_path, seeds_per_class=2, test_rows=7, sample_seed=1)
    assert (other.seed, other.test) != drawn[0]


@pytest.mark.parametrize("cap", [1, 7, 8, 39, 40, 400])
def test_a_capped_test_keeps_the_classes_shares(cap: int, tmp_path: Path) -> None:
    _, splits = load(write(tmp_path, seed=SEED, test=TEST), test_rows=cap)
    counts = Counter(example.output for example in splits.test)
    assert len(splits.test) == min(cap, 40)
    assert abs(counts["HUM"] - min(cap, 40) / 4) < 1


def test_a_drawn_seed_is_no_repeat_and_no_held_out_row(tmp_path: Path) -> None:
    seed = [*SEED, ("WHERE is it, 0?", "LOC"), ("test 3!", "HUM"), ("Dev... one", "LOC")]
    folder = write(tmp_path, seed=seed, dev=[("dev one", "LOC"), ("Test 5", "LOC")], test=TEST)
    _, splits = load(folder, seed_rows=8)
    keys = [identity(words(example.input)) for example in splits.seed]
    assert len(set(keys)) == 8 and not {identity(words(text)) for text in ("test 3", "dev one")} & set(keys)
    assert splits.counts["leaked_removed"] == 2
    assert splits.counts["duplicates_removed"] == 1
    assert splits.counts["dev_leaked_removed"] == 1
    assert [example.input for example in splits.dev] == ["dev one"]


def test_a_test_row_in_a_seed_file_taken_whole_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path, seed=[*SEED, ("Test 3 !", "LOC"), ("test, 5", "LOC")], test=TEST)
    message = complaint(folder)
    for part in ("seed.jsonl, line 9", "'Test 3 !'", "test.jsonl, line 4", "(and 1 more)", "task.seed_rows"):
        assert part in message


def test_a_dev_file_serves_as_test_unless_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, train=SEED, dev=TEST)
    _, splits = load(tmp_path)
    assert (len(splits.dev), len(splits.test)) == (0, 40)
    _, splits = load(tmp_path, dev="dev.jsonl")
    assert (len(splits.dev), len(splits.test)) == (40, 0)
    assert "task.dev and task.test are the same rows" in complaint(tmp_path, dev="dev.jsonl", test="dev.jsonl")


def test_named_files_override_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, seed=SEED, test=TEST, mine=SEED[:3])
    _, splits = load(tmp_path, seed="mine.jsonl")
    assert len(splits.seed) == 3
    monkeypatch.chdir(tmp_path)
    config = TaskConfig(name="classification", seed="mine.jsonl")
    assert len(load_splits(config, Classification(), base_dir="/nowhere")[1].seed) == 3


def test_paths_are_relative_to_the_current_directory_then_to_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in (("here", SEED[:2]), ("there", SEED[:4])):
        (tmp_path / name / "data").mkdir(parents=True)
        write(tmp_path / name / "data", seed=rows)
    (tmp_path / "empty").mkdir()
    config = TaskConfig(name="classification", data="data")
    monkeypatch.chdir(tmp_path / "empty")
    assert len(load_splits(config, Classification(), base_dir=tmp_path / "there")[1].seed) == 4
    monkeypatch.chdir(tmp_path / "here")
    assert len(load_splits(config, Classification(), base_dir=tmp_path / "there")[1].seed) == 2


def test_complaints_about_the_data(tmp_path: Path) -> None:
    write(tmp_path, test=TEST)
    assert "no seed rows: looked for seed or train, found test.jsonl" in complaint(tmp_path)
    write(tmp_path, seed=SEED)
    assert "is a file: name its folder" in complaint(tmp_path / "seed.jsonl")
    assert "task.test: tset.jsonl: no such file" in complaint(tmp_path, test="tset.jsonl")
    assert f"no such folder (in {tmp_path}: seed.jsonl, test.jsonl)" in complaint(tmp_path / "suport")
    assert "HUM 4, LOC 4" in complaint(tmp_path, seeds_per_class=5)
    assert "9 wanted" in complaint(tmp_path, seed_rows=9) and "has 8 usable rows" in complaint(tmp_path, seed_rows=9)
    (tmp_path / "seed.csv").write_text("text,label\na,LOC\n")
    assert "holds seed.jsonl and seed.csv: say which one in task.seed" in complaint(tmp_path)


def test_a_label_outside_the_seeds_set_is_named_with_its_place(tmp_path: Path) -> None:
    message = complaint(write(tmp_path, seed=SEED, test=[("a", "LOC"), ("b", "PLACE")]))
    assert "test.jsonl, line 2: label 'PLACE' is not in the set (HUM, LOC)" in message
    message = complaint(write(tmp_path, seed=[*SEED, ("c", "loc")], test=[("a", "LOC")]))
    assert "seed.jsonl: labels 'LOC' and 'loc' read the same" in message


def test_a_class_without_seed_rows_is_too_few(tmp_path: Path) -> None:
    config = TaskConfig(name="classification", data=str(write(tmp_path, seed=SEED)), seeds_per_class=1)
    with pytest.raises(UserError, match="fewer usable rows of: NUM 0"):
        load_splits(config, Classification(labels=["LOC", "HUM", "NUM"]), base_dir=".")


def test_the_known_leaks_of_trec_are_removed() -> None:
    _, splits = load(real_folder("trec"), seeds_per_class=3, test_rows=100)
    assert splits.counts["leaked_removed"] >= 11
    assert Counter(example.output for example in splits.seed) == dict.fromkeys(("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"), 3)
    assert len(splits.test) == 100 and splits.dev == []
    assert "is also a test row" in complaint(real_folder("trec"))


def test_snips_tests_on_its_dev_file() -> None:
    _, splits = load(real_folder("snips"), seeds_per_class=5)
    assert splits.counts["duplicates_removed"] >= 169 - splits.counts["leaked_removed"]
    assert (len(splits.seed), len(splits.dev), len(splits.test)) == (35, 0, 700)


def test_gsm8k_is_drawn_without_classes() -> None:
    config = TaskConfig(name="gsm8k", data=real_folder("gsm8k"), seed_rows=20, test_rows=10)
    _, splits = load_splits(config, Gsm8k(), base_dir=".")
    assert (len(splits.seed), len(splits.test)) == (20, 10)


def test_a_hub_dataset_is_read_by_split_with_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` loads `owner/name` from the current directory when it is there: the same code path, no network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["negative", "positive"]))
    for split in ("train", "validation"):
        rows = {"sentence": [f"{split} good", f"{split} bad"], "label": [1, 0]}
        (tmp_path / "owner" / "name").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "owner" / "name" / f"{split}.parquet")
    monkeypatch.chdir(tmp_path)
    task, splits = load("owner/name:default", columns={"text": "sentence"})
    assert task.labels == ("negative", "positive")
    assert [(example.input, example.output) for example in splits.seed] == [
        ("train good", "positive"), ("train bad", "negative")
    ]  # fmt: skip
    assert splits.sources["test"] == "owner/name:default, split validation"
    _, splits = load("owner/name:default", columns={"text": "sentence"}, dev="validation")
    assert (len(splits.dev), len(splits.test)) == (2, 0)
    message = complaint("owner/name:default", columns={"text": "sentence"}, test="tset")
    assert "task.test: tset: no such file; the dataset's splits: train, validation" in message


LEAKS = [("What county is Modesto in ?", "LOC"), ("Who wrote the Iliad ?", "HUM")]
COPIES = [("Which county is Modesto in", "LOC"), ("who ever wrote the Iliad", "HUM")]


def near(held_out: Sequence[Example], known: Sequence[Example]) -> Finder:
    return HeldOut(held_out, 0.8, known).find


def load_near(folder: Path, **settings: Any) -> Splits:
    config = TaskConfig(**{"name": "classification", "data": str(folder), **settings})
    return load_splits(config, Classification(), base_dir=folder, near=near)[1]


def test_near_copies_in_a_seed_file_taken_whole_are_named_and_stay(tmp_path: Path) -> None:
    splits = load_near(write(tmp_path, seed=[*SEED, *COPIES], dev=LEAKS[1:], test=LEAKS[:1]))
    assert [row.input for row in splits.seed[8:]] == [text for text, _ in COPIES]
    assert splits.counts["near_held_out"] == 2
    assert splits.notices == [
        f"{tmp_path}/seed.jsonl, line 9: 'Which county is Modesto in' is near (0.80) to 'What county is Modesto in ?' "
        f"({tmp_path}/test.jsonl, line 1)",
        f"{tmp_path}/seed.jsonl, line 10: 'who ever wrote the Iliad' is near (0.80) to 'Who wrote the Iliad ?' "
        f"({tmp_path}/dev.jsonl, line 1)",
    ]


@pytest.mark.parametrize("draw", [{"seed_rows": 8}, {"seeds_per_class": 4}])
def test_near_copies_are_passed_over_in_drawing(draw: dict[str, int], tmp_path: Path) -> None:
    folder = write(tmp_path, seed=[*COPIES, *SEED], test=LEAKS)
    splits = load_near(folder, **draw)
    assert sorted(row.input for row in splits.seed) == sorted(text for text, _ in SEED)
    assert splits.counts["near_removed"] == len(splits.notices) <= 2
    assert all(line.startswith(f"passed over: {tmp_path}/seed.jsonl, line ") for line in splits.notices)
    with pytest.raises(UserError, match=r"near copies\): lower it"):
        load_near(folder, **{name: count + 1 for name, count in draw.items()})


def test_a_text_with_two_answers_is_refused_with_both_places(tmp_path: Path) -> None:
    seed = [*SEED, ("Is it  caf\u00e9 ?", "LOC"), ("Is it cafe\u0301 ?", "HUM")]
    message = complaint(write(tmp_path, seed=seed, test=TEST))
    for part in (
        "seed.jsonl, line 9: 'Is it caf\u00e9 ?' is 'LOC'",
        "is 'HUM' in",
        "seed.jsonl, line 10",
        "remove one",
        "task.seed_rows",
    ):
        assert part in message
    _, splits = load(tmp_path, seed_rows=8)
    assert splits.counts["conflicting_removed"] == 2
    assert not [row for row in splits.seed if row.input.startswith("Is it")]


def test_texts_that_differ_in_punctuation_alone_may_have_two_answers_and_are_named(tmp_path: Path) -> None:
    _, splits = load(write(tmp_path, seed=[*SEED, ("You are here.", "LOC"), ("You are here?", "HUM")], test=TEST))
    assert len(splits.seed) == 10
    assert len(splits.notices) == 1 and "line 9: 'You are here.' is 'LOC', and with other case" in splits.notices[0]
    assert "line 10 says 'HUM'" in splits.notices[0]


def test_two_ways_to_one_result_are_one_answer(tmp_path: Path) -> None:
    rows = [{"question": "2 and 2?", "answer": f"{way}\n#### {result}"} for way, result in (("a", "4"), ("b", "4.0"), ("c", "5"))]
    for count, fits in ((2, True), (3, False)):
        (tmp_path / "seed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[:count]))
        config = TaskConfig(name="gsm8k", data=str(tmp_path))
        if fits:
            assert load_splits(config, Gsm8k(), base_dir=".")[1].counts["repeats"] == 1
        else:
            with pytest.raises(UserError, match=r"line 1: '2 and 2\?' is .* in .*line 3"):
                load_splits(config, Gsm8k(), base_dir=".")


def test_labels_and_columns_are_compared_composed(tmp_path: Path) -> None:
    (tmp_path / "seed.csv").write_text("text,cate\u0301gorie\nO\u00f9 est ma carte,re\u0301clamation\nMerci,r\u00e9clamation\n")
    config = TaskConfig(name="classification", data=str(tmp_path), columns={"label": "cat\u00e9gorie"})
    for task in (Classification(), Classification(labels=["r\u00e9clamation"]), Classification(labels=["re\u0301clamation"])):
        made, splits = load_splits(config, task, base_dir=".")
        assert isinstance(made, Classification) and made.labels == ("r\u00e9clamation",)
        assert [row.output for row in splits.seed] == ["r\u00e9clamation"] * 2
