"""Puts the page together from what the other modules say, and writes it. The templates hold all markup."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

from markupsafe import Markup

from llm2llm_ray.augmentation.reasons import meanings
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import not_known
from llm2llm_ray.report import flow, turns, wording
from llm2llm_ray.report.answer import answer, facts, scores
from llm2llm_ray.report.confusion import confusion
from llm2llm_ray.report.flow import flows
from llm2llm_ray.report.gates import gates
from llm2llm_ray.report.lanes import lanes
from llm2llm_ray.report.markup import environment, static
from llm2llm_ray.report.outcomes import explorer, rejections
from llm2llm_ray.timing.timeline import timeline

DEFAULT_NAME = "report.html"
_STATES = {
    "running": "This run is still going on: the page shows what it had finished at {when}.",
    "stopped": "This run was told to stop before its end; the same command goes on with it.",
    "broken off": "This run broke off before its end; the same command goes on with it.",
    "unknown": "This run had not finished at {when}; whether it runs is not known, since an object store keeps no lock.",
}
_SOURCES = {
    "seed": "seed rows",
    "dev": "dev rows",
    "early": "seed rows, as the student answered them before it knew them by heart",
    "cross_fit": "seed rows, each as a student answered it that was trained without it and all that comes of it",
}


def render(run: RunRecord) -> str:
    """The page, encodable as UTF-8. Its folder is only read."""
    now = time.time()
    streams, spent = flows(run), timeline(run)
    found = turns.turns(run)
    mistakes = list(run.mistakes())
    rejected = rejections(mistakes, meanings(run.config))
    grown = run.iterations[-1]["grown"] if run.iterations else None
    script = static("explorer.js")
    page = environment().get_template("page.html.j2").render(
        run=_about(run),
        state=_STATES.get(run.state, "").format(when=wording.moment(now)),
        answer=answer(run),
        facts=facts(run, spent),
        scores=scores(run),
        turns=found,
        not_known=not_known(run.iterations),
        accuracy=turns.accuracy_chart(found),
        growth=turns.growth_chart(found, grown["num_rows"] if grown else None),
        timeline=lanes(run, spent, streams),
        flows=streams,
        rejections=rejected,
        gates=gates(run, rejected),
        confusion=confusion(run),
        explorer=explorer(run, mistakes),
        sizes={"chart": (turns.WIDTH, turns.HEIGHT), "flow": (flow.WIDTH, flow.HEIGHT)},
        style=Markup(static("style.css")),
        script=Markup(script),
        script_sha=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    # A teacher's JSON can hold lone surrogates, which no file can.
    return page.encode("utf-8", "backslashreplace").decode()


def write_report(run: RunRecord, out: str | None = None) -> str:
    """Write the page to the local path `out` (default: report.html in the run folder); returns where it is.

    Raises UserError when it cannot be written there. Writing it again replaces it.
    """
    page = render(run).encode()
    if out is None:
        run.files.replace(DEFAULT_NAME, page)
        return run.files.absolute(DEFAULT_NAME)
    try:
        Path(out).write_bytes(page)
    except OSError as error:
        raise UserError(
            f"{out}: the report cannot be written there ({error.strerror}); name a file in a folder of yours"
        ) from None
    return out


def _about(run: RunRecord) -> dict[str, Any]:
    config, started = run.config, [event["time"] for event in run.events if event["event"] == "started"]
    ended = next((event["time"] for event in reversed(run.events) if event["event"] == "finished"), None)
    return {
        "name": run.name,
        "state": run.state,
        "task": config["task"]["name"],
        "student": config["student"]["model"],
        "teacher": run.teacher,
        "teacher_kind": config["teacher"]["kind"],
        "iterations": config["run"]["iterations"],
        "source": _SOURCES[config["evaluation"]["error_source"]],
        "trained_on_source": config["evaluation"]["error_source"] not in ("dev", "cross_fit"),
        "started": wording.moment(started[0]) if started else wording.ABSENT,
        "ended": wording.moment(ended) if ended and run.state == "finished" else "",
    }
