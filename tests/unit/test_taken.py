"""Stages that a study's run takes from a sibling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.storage.taken import SiblingStages

STUDENT = {"path": "students/000-k", "sha": "s", "early": {"path": "students/000-k-early", "sha": "e"}}


def finished(around: Files, run: str, name: str, key: str, result: dict[str, Any]) -> None:
    files = Files(around.absolute(run))
    for folder in (result.get("path"), result.get("folder"), result.get("early", {}).get("path")):
        if folder:
            files.write_once(f"{folder}/model.bin", run.encode())
    StageRecords(files).record(name, key, inputs={"a": 1}, result=result, started=10.0, ended=70.0, iteration=0)


def test_a_students_folder_and_snapshot_are_linked_and_the_record_says_from_where(tmp_path: Path) -> None:
    around = Files(str(tmp_path))
    finished(around, "cells/a", "train", "k" * 64, STUDENT)
    stages = SiblingStages(around, "cells/b", ["cells/none", "cells/a"])
    record = stages.find("train", "k" * 64)
    assert record is not None and record["taken_from"] == "cells/a" and record["result"] == STUDENT
    assert record["started"] == record["ended"], "it took no time here"
    for folder in ("students/000-k", "students/000-k-early"):
        ours, theirs = (tmp_path / "cells" / run / folder / "model.bin" for run in "ba")
        assert ours.stat().st_ino == theirs.stat().st_ino
    assert stages.find("train", "k" * 64) == record == StageRecords(Files(around.absolute("cells/b"))).find("train", "k" * 64)
    told = list(Events(Files(around.absolute("cells/b"))).read())
    assert [(event["event"], event["stage"], event["taken_from"]) for event in told] == [("stage_taken", "train", "cells/a")]


def test_what_is_its_own_wins_and_rounds_are_never_taken(tmp_path: Path) -> None:
    around = Files(str(tmp_path))
    for run in ("cells/a", "cells/b"):
        finished(around, run, "exam", "e" * 64, {"folder": "rounds/exam"})
    finished(around, "cells/a", "round", "r" * 64, {"folder": "rounds/round"})
    stages = SiblingStages(around, "cells/b", ["cells/a"])
    own = stages.find("exam", "e" * 64)
    assert own is not None and "taken_from" not in own
    assert stages.find("round", "r" * 64) is None and stages.find("exam", "x" * 64) is None


def test_a_student_that_gc_removed_is_trained_again(tmp_path: Path) -> None:
    around = Files(str(tmp_path))
    finished(around, "cells/a", "train", "k" * 64, STUDENT)
    (tmp_path / "cells/a/students/000-k/model.bin").unlink()
    assert SiblingStages(around, "cells/b", ["cells/a"]).find("train", "k" * 64) is None
