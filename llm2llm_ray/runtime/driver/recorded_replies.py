"""A run's file of recorded replies: the run's own copy of it, and what came of it, for the report.

The copy is what is read, by every node: what becomes of the user's file while the run goes on changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.asking.json_lines import read_bytes
from llm2llm_ray.asking.no_answer import NOT_RECORDED
from llm2llm_ray.asking.recorded import REMEDY, About, RecordedReplies
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.rounds.augmenting import lineage_teacher
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.types import Iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenReplies:
    path: str
    """Of the run's copy: a path or URI that every node sees."""
    about: About


def given_replies(teacher: TeacherConfig, files: Files) -> GivenReplies | None:
    """Of `teacher.kind: recorded` or `teacher.replies`; None where neither is set. Raises UserError."""
    name = teacher.model if teacher.kind == "recorded" else teacher.replies
    if name is None:
        return None
    data = read_bytes(name, REMEDY)
    about = RecordedReplies(name, data).about
    path = f"inputs/replies/{about.sha[:16]}.jsonl"
    files.write_once(path, data)
    return GivenReplies(path=files.absolute(path), about=about)


def came_of(about: Mapping[str, Any], teacher: TeacherConfig, iterations: Sequence[Iteration], files: Files) -> dict[str, Any]:
    """What the report says of the file: `about` it, the rounds' requests, and how many of them it had no reply to. Of a live
    teacher's file also how many replies came from it, of all that are stored."""
    told = {
        **about,
        "asked": sum(iteration.round.asked for iteration in iterations),
        "missing": sum(iteration.round.rejected.get(NOT_RECORDED, 0) for iteration in iterations),
    }
    if teacher.replies is None:
        return told
    folders = sorted({path.rpartition("/")[0] for path in files.list("replies") if not path.startswith("replies/student-")})
    requests = [record["request"] for folder in folders for record in read_replies(files, folder)]
    name = lineage_teacher(teacher, "")  # a judge apart is somebody else
    marks = [bool(request.get("recorded")) for request in requests if request.get("asked_of") == name]
    return told | {"given": sum(marks), "stored": len(marks)}
