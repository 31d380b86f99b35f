"""What we use of our libraries without their promise: each name is there in the installed sources, and none is unlisted."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest
from named_tests import exists

from llm2llm_ray.runtime.private_names import PRIVATE_NAMES, PrivateName

RUNTIME = Path(__file__).parents[2] / "llm2llm_ray" / "runtime"
LIBRARIES = {"ray", "vllm", "deepspeed", "transformers", "peft", "torch"}


@functools.cache
def source_of(module: str) -> str:
    """Of an installed module, which is not imported: vLLM alone would take ten seconds."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    assert spec is not None and spec.submodule_search_locations, module
    place = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    return (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text()


def is_there(module: str, name: str) -> bool:
    """A top-level definition, a name that the module's code knows, or a member that a class defines or sets on itself."""
    body: list[ast.stmt] = ast.parse(source_of(module)).body
    head, _, member = name.partition(".")
    if not member:
        named = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        stored = {n.id for node in body for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        asked = {n.value for node in body for n in ast.walk(node) if isinstance(n, ast.Constant)}  # a module's __getattr__
        return head in named | stored or (head.startswith("__") and head in asked)
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == head:
            for inner in ast.walk(node):
                match inner:
                    case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) if found == member:
                        return True
                    case ast.Attribute(value=ast.Name(id="self"), attr=found, ctx=ast.Store()) if found == member:
                        return True
                    case ast.AnnAssign(target=ast.Name(id=found)) if found == member:
                        return True
    return False


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.module}.{private.name}")
def test_the_installed_sources_have_it_and_we_use_it(private: PrivateName) -> None:
    assert is_there(private.module, private.name)
    last = private.name.rpartition(".")[2]
    source = (RUNTIME / private.used_in).read_text()
    used = (last, last.removesuffix("_ENV"))  # of a variable's name Ray has a constant, and we have its value
    assert any(re.search(rf"\b{re.escape(name)}\b", source) for name in used), "not used any more: take it off"
    assert exists(private.shown_by)


@pytest.mark.parametrize(
    ("module", "name"),
    [("ray.serve.deployment", "Application._bound_deployments"), ("ray.serve.deployment", "App"), ("deepspeed.ops", "__ops__")],
)
def test_that_look_up_misses_what_is_not_there(module: str, name: str) -> None:
    assert not is_there(module, name)


def used_privately(source: str) -> set[str]:
    """Private modules that are imported, and private attributes of anything but the class's own."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in LIBRARIES and "._" in module:
                found |= {alias.name for alias in names}
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=_):
                continue
            case ast.Attribute(value=value, attr=attr) if (
                attr.startswith("_") and not attr.endswith("__") and not is_super(value)
            ):
                found.add(attr)
    return found


def is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def test_no_private_name_is_used_that_is_not_listed() -> None:
    listed = {part for private in PRIVATE_NAMES for part in [*private.module.split("."), *private.name.split(".")]}
    own = {"_name_or_path"}  # of a config that we are about to write
    found = {
        str(path.relative_to(RUNTIME)): unlisted
        for path in RUNTIME.rglob("*.py")
        if (unlisted := used_privately(path.read_text()) - listed - own)
    }
    assert found == {}


def test_that_scan_sees_an_import_and_an_attribute() -> None:
    assert used_privately("from ray._private.worker import Worker\nx = application._bound\nself._own = super()._start()") == {
        "Worker",
        "_bound",
    }


def test_a_version_can_be_given_to_a_bound_deployment() -> None:
    """Scaling must not restart replicas: the same version is what tells Serve so. Without a Ray."""
    from ray import serve

    @serve.deployment
    class Anything:
        pass

    application = Anything.bind()  # type: ignore[attr-defined]
    bound = application._bound_deployment.options(version="the weights", num_replicas=3, _internal=True)
    assert (bound.version, bound.num_replicas) == ("the weights", 3)
    assert bound.init_args == application._bound_deployment.init_args
    application._bound_deployment = bound
    assert application._bound_deployment.version == "the weights"


def test_deepspeed_looks_at_its_operators_when_it_is_asked() -> None:
    """Emptied beforehand, its list is what `__compatible_ops__` gives: no compiler is started to fill it."""
    assert "def __getattr__(name)" in source_of("deepspeed.ops"), "filled at import now: emptying it later comes too late"
    assert "__compatible_ops__" in source_of("deepspeed.comm.torch"), "the collective is not decided by the list any more"
