"""From a YAML file and `--set` overrides to a checked `Config`, or to one message per mistake that says what to do."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError


class _OncePerKey(yaml.SafeLoader):
    """YAML lets the last of two equal keys win, silently; here a section given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"{key} is given twice, the second time in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, apply `section.field=value` overrides, and check every field.

    Raises UserError naming the file, the field and the value.
    """
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), _OncePerKey)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give a YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected sections (task, student, teacher, ... run), found {type(raw).__name__}")
    for item in overrides or []:
        _override(raw, item)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(_explain(path, item) for item in error.errors())) from None


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"--set {item}: write section.field=value")
    *sections, last = key.split(".")
    target = raw
    for name in sections:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {item}: {name} is a value, not a section")
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {item}: {value!r} is not a YAML value; quote it if it is text") from None


def _explain(path: str | Path, item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        known = _fields_at(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{path}: {where}: required, but missing"
    value = item.get("input")
    shown = f" (got {value!r})" if not isinstance(value, dict) else ""
    return f"{path}: {where}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        kinds = [annotation, *get_args(annotation)]  # a section that may be left out is `Section | None`
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
