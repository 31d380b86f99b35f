"""From a YAML file and `--set` overrides to a checked `Config`, or to one message per mistake that says what to do.

`read_tree`, `put` and `validated` are the steps, for what is made of a config in other ways (a study's cells).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


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
    raw = read_tree(path, "sections (task, student, teacher, ... run)")
    for item in overrides or []:
        _override(raw, item)
    return validated(Config, raw, path)


def read_tree(path: str | Path, expected: str) -> dict[str, Any]:
    """A YAML file as it stands, not yet checked. `expected`: what a person should have written, for the message.

    Raises UserError on a file that cannot be read, is no YAML, or holds something else.
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
        raise UserError(f"{path}: expected {expected}, found {type(raw).__name__}")
    return raw


def validated(model: type[Model], raw: dict[str, Any], told: str | Path) -> Model:
    """`raw` as `model`, or a UserError with a line per mistake. `told`: the file, or what else a person calls it."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(_explain(told, item, model) for item in error.errors())) from None


def put(raw: dict[str, Any], key: str, value: Any, told: str) -> None:
    """Set `section.field`; `told` begins the message of the UserError where a part of the key is no section."""
    *sections, last = key.split(".")
    target = raw
    for name in sections:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UserError(f"{told}: {name} is a value, not a section")
    target[last] = value


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"--set {item}: write section.field=value")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {item}: {value!r} is not a YAML value; quote it if it is text") from None
    put(raw, key, found, f"--set {item}")


def _explain(path: str | Path, item: Any, root: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        known = _fields_at(item["loc"][:-1], root)
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{path}: {where}: required, but missing"
    value = item.get("input")
    shown = f" (got {value!r})" if not isinstance(value, dict) else ""
    return f"{path}: {where}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(loc: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    model = root
    for part in loc:
        if str(part) not in model.model_fields:  # a name that the user gave, in a mapping of sections
            continue
        model = _section_in(model.model_fields[str(part)].annotation)
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel]:
    """The section of `Section`, `Section | None` or `dict[str, Section]`."""
    kinds = [annotation, *get_args(annotation)]
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
