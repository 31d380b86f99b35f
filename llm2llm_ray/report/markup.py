"""The templates and how they are filled: everything that a page shows is escaped here, once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files as resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from llm2llm_ray.report import wording


@cache
def static(name: str) -> str:
    return resources("llm2llm_ray.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("llm2llm_ray.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    # ASCII only, so that no character of a text means anything to an HTML or JavaScript parser; `tojson` escapes < > & '.
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "separators": (",", ":"), "allow_nan": False}
    found.filters |= {
        "duration": wording.duration, "count": wording.count, "percent": wording.percent, "points": wording.points,
        "clipped": wording.clipped,
    }  # fmt: skip
    return found
