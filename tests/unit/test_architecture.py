"""The shape of the package, checked on its sources: which module may import what, how long things are, what they are called.

A rule that stops you is either right, or wrong for a reason that is worth writing down here.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "llm2llm_ray"
OURS = PACKAGE.name
HEAVY = frozenset({"ray", "torch", "deepspeed", "vllm", "transformers", "peft", "datasets"})
# Rooms and modules from the top down. One may import what stands below it, never a sibling, never what is above.
ORDER = (
    ("__main__",), ("cli",), ("runtime",), ("report", "export", "doctor", "starting"), ("study",), ("planning",), ("timing",),
    ("history",), ("preflight",),
    ("rounds",), ("augmentation",), ("tasks", "storage", "asking"), ("config",), ("algorithm",), ("protocols",),
    ("types",), (
        "errors", "fingerprint", "accuracy", "machine", "model_cache", "packaged_models", "programs", "reasoning",
        "terminal_text",
    ),
)  # fmt: skip
RUNTIME_ORDER = (
    ("driver",), ("training", "serving", "streaming"), ("models",), ("connection", "series", "doctor_probe"), ("priority",),
    ("environment",),
)  # fmt: skip

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything imported, at the top or inside a function, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def our_imports(name: str) -> frozenset[str]:
    """The modules of ours that a module imports."""
    found = set()
    for target in imports(TREES[name]):
        while target.startswith(f"{OURS}.") and target not in MODULES:
            target = target.rpartition(".")[0]
        if target.startswith(f"{OURS}."):
            found.add(target)
    return frozenset(found)


def within(name: str, *parts: str) -> bool:
    return any(name == f"{OURS}.{part}" or name.startswith(f"{OURS}.{part}.") for part in parts)


def heavy_imports(name: str, tree: ast.Module) -> set[str]:
    """Libraries that the core must do without. `datasets` may be imported where rows come from a hub, inside the function."""
    found = {target.partition(".")[0] for target in imports(tree)} & HEAVY
    if name == f"{OURS}.tasks.rows":
        at_the_top = {target.partition(".")[0] for node in tree.body for target in imports(node) if not is_function(node)}
        found -= {"datasets"} - at_the_top
    return found


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def not_allowed(*allowed: str, of: str) -> list[tuple[str, str]]:
    """Imports of ours that modules of part `of` make beside the allowed parts and each other."""
    return [
        (name, target) for name in MODULES if within(name, of) for target in our_imports(name) if not within(target, of, *allowed)
    ]


# Imports.


def test_the_heavy_libraries_are_imported_in_runtime_only() -> None:
    found = {name: heavy_imports(name, tree) for name, tree in TREES.items() if not within(name, "runtime")}
    assert {name: libraries for name, libraries in found.items() if libraries} == {}


@pytest.mark.parametrize(
    "source", ["import ray", "from ray.data import Dataset", "def f():\n    import torch.nn", "import datasets"]
)
def test_that_rule_sees_an_import_wherever_it_stands(source: str) -> None:
    assert heavy_imports(f"{OURS}.tasks.classification", ast.parse(source))
    assert heavy_imports(f"{OURS}.tasks.rows", ast.parse(source))


def test_importing_the_core_loads_none_of_them() -> None:
    core = [name for name in MODULES if not within(name, "runtime", "__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {core}: importlib.import_module(name)\n"
        f"print(*sorted({set(HEAVY)} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def upward(order: tuple[tuple[str, ...], ...], below: str) -> list[tuple[str, str]]:
    """Imports that go to a sibling or upward, among the parts of `below`; every part has a place in the order."""
    floor = {part: number for number, parts in enumerate(order) for part in parts}
    found = []
    for name in MODULES:
        if not name.startswith(f"{below}."):
            continue
        part = name.removeprefix(f"{below}.").partition(".")[0]
        for target in our_imports(name):
            other = target.removeprefix(f"{below}.").partition(".")[0]
            if target.startswith(f"{below}.") and other != part and floor[other] <= floor[part]:
                found.append((name, target))
    return found


def test_imports_go_downward_and_never_to_a_sibling() -> None:
    assert upward(ORDER, OURS) == []
    assert upward(RUNTIME_ORDER, f"{OURS}.runtime") == []


def test_every_room_says_what_is_in_it() -> None:
    rooms = {name: ast.get_docstring(tree) or "" for name, tree in TREES.items() if MODULES[name].name == "__init__.py"}
    assert {name for name, told in rooms.items() if len(told) < 30} == set()
    assert {path.parent for path in FILES} == {MODULES[name].parent for name in rooms}


def test_the_algorithm_knows_its_ports_and_records_only() -> None:
    assert our_imports(f"{OURS}.algorithm") <= {f"{OURS}.protocols", f"{OURS}.types"}
    assert our_imports(f"{OURS}.protocols") <= {f"{OURS}.types"}
    assert our_imports(f"{OURS}.types") == {f"{OURS}.accuracy"}
    for name in ("accuracy", "config.profiles", "errors"):
        assert our_imports(f"{OURS}.{name}") == set()


def test_tasks_read_and_write_text_only() -> None:
    assert not_allowed("types", "config", "errors", "reasoning", of="tasks") == []


def test_storage_knows_records_only() -> None:
    assert not_allowed("types", "config", "errors", "fingerprint", of="storage") == []


def test_augmentation_calls_no_model() -> None:
    assert not_allowed("types", "config", "errors", "tasks", of="augmentation") == []


def test_only_the_command_line_and_runtime_itself_know_runtime() -> None:
    found = {name for name in MODULES for target in our_imports(name) if within(target, "runtime")}
    assert {name for name in found if not within(name, "runtime")} <= {name for name in MODULES if within(name, "cli")}


def test_the_training_worker_is_reached_through_the_trainer() -> None:
    knows = {name for name in MODULES if f"{OURS}.runtime.training.worker" in our_imports(name)}
    assert knows == {f"{OURS}.runtime.training.trainer", f"{OURS}.runtime.training.workers"}


def test_parts_do_not_import_each_other_in_a_circle() -> None:
    """Parts are the packages (tasks, storage, ...) and the modules beside them; packages themselves are checked by module."""
    by_module = {name: our_imports(name) - {name} for name in MODULES}
    by_part: dict[str, set[str]] = {}
    for name, targets in by_module.items():
        by_part.setdefault(part_of(name), set()).update(part_of(target) for target in targets)
    for graph in (by_module, {part: targets - {part} for part, targets in by_part.items()}):
        left = dict(graph)
        while free := [name for name, targets in left.items() if not targets & left.keys()]:
            for name in free:
                del left[name]
        assert left == {}, "these import each other in a circle"


def part_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


# Size and names.


def test_files_and_functions_stay_short() -> None:
    files = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    functions = {
        f"{name}.{node.name}": length
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert (files, functions) == ({}, {})


def test_names_say_what_a_thing_is() -> None:
    """Where something has no home but `utils`, a concept has no name yet."""
    files = [path for path in FILES if re.match(r"(utils?|helpers?|common|misc)(_|\.|$)|base_", path.name)]
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name in ("utils", "helpers", "common", "misc")]
    classes = [
        f"{name}.{node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Manager")
    ]
    assert (files, folders, classes) == ([], [], [])


def test_every_module_says_what_it_is() -> None:
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_the_loop_reads_like_the_paper() -> None:
    """Under 40 lines, and nothing in it but the algorithm: the ports resume by themselves."""
    source = MODULES[f"{OURS}.algorithm"].read_text(encoding="utf-8")
    tree = TREES[f"{OURS}.algorithm"]
    assert len(source.splitlines()) < 40
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Try | ast.With | ast.While)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not {name for name in names if "resum" in name or name in ("open", "print")}


def test_no_failure_is_swallowed() -> None:
    """No `except Exception`. `except BaseException` may tidy up, if it raises again at its end."""
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "BaseException" if node.type is None else ast.unparse(node.type)
                passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if re.search(r"\bException\b", caught) or ("BaseException" in caught and not passes_on):
                    found.append(f"{name}:{node.lineno}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                found += [f"{name}:{node.lineno}" for arg in node.args if ast.unparse(arg) in ("Exception", "BaseException")]
    assert found == []


# The command line.


def test_the_command_line_is_these_commands_and_flags() -> None:
    """Settings belong to the YAML; a new flag is a decision."""
    from llm2llm_ray.cli import app

    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    flags = {
        name: [option for parameter in command.params for option in parameter.opts if option != "--help"]
        for name, command in commands.items()
    }
    assert flags == {
        "init": [
            "file", "--text", "--label", "--dev", "--test", "--dev-rows", "--test-rows", "--split-seed", "--name", "--encoding",
            "--force",
        ],
        "run": ["config", "--set", "--dry-run"], "study": ["spec", "--dry-run"], "doctor": ["config", "--set"],
        "evaluate": ["config", "--model", "--set"], "tasks": [],
        "status": ["run"], "ls": ["folder"], "logs": ["run", "--follow", "-f", "--json"], "stop": ["run", "--wait"],
        "scale-teacher": ["run", "replicas"], "report": ["run", "--out"], "compare": ["run", "other"],
        "export": ["run", "--out", "--iteration", "--only", "--no-test", "--replies"], "gc": ["run", "--yes"],
    }  # fmt: skip
