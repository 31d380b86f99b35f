"""Every environment variable that we set is still read by whom we set it for, and means there what we mean by it.

Readers are asked in processes of their own, with and without the variables: a default that became ours would hide a lost name.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from named_tests import exists

from llm2llm_ray.runtime import environment
from llm2llm_ray.runtime.environment import CPU_ENGINE, CPU_TRAINING, JOB, OUR_RAY, SERVE, Variable

PACKAGE = Path(environment.__file__).parents[1]
ALL = (*OUR_RAY, *JOB, *SERVE, *CPU_ENGINE, *CPU_TRAINING)
READERS = {
    "RAY_USAGE_STATS_ENABLED": ("ray._common.usage.usage_lib", "it.usage_stats_enabled()", False),
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": ("ray._private.log_monitor", "it.RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", 0),
    "LOG_NAME_UPDATE_INTERVAL_S": ("ray._private.log_monitor", "it.LOG_NAME_UPDATE_INTERVAL_S", 30.0),
    "REPORTER_UPDATE_INTERVAL_MS": (
        "ray.dashboard.modules.reporter.reporter_consts", "it.REPORTER_UPDATE_INTERVAL_MS", 30_000
    ),
    "RAY_DATA_DISABLE_PROGRESS_BARS": ("ray.data", "it.DataContext().enable_progress_bars", False),
    "VLLM_NO_USAGE_STATS": ("vllm.envs", "it.VLLM_NO_USAGE_STATS", True),
    "VLLM_CPU_OMP_THREADS_BIND": ("vllm.envs", "it.VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": ("ray.serve._private.constants", "it.RAY_SERVE_USE_GRPC_BY_DEFAULT", True),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": (
        "ray.serve._private.constants", "it.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", False
    ),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": (
        "ray.serve._private.constants", "it.RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", False
    ),
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": (
        "ray.serve._private.constants", "it.RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE", 1000
    ),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": ("ray.serve._private.constants", "it.RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", 1000),
}  # fmt: skip
"""Variable -> module, what to ask it, and what it must say."""


def asked(env: dict[str, str]) -> dict[str, Any]:
    """What each reader says in a process with this environment on top of ours, without any of the variables."""
    questions = {name: (module, question) for name, (module, question, _) in READERS.items()}
    code = (
        "import importlib.util, json\n"
        # By its file: the package imports torch and more before it.
        "place = importlib.util.find_spec('vllm').submodule_search_locations[0] + '/envs.py'\n"
        "spec = importlib.util.spec_from_file_location('envs', place)\n"
        "envs = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(envs)\n"
        "found = {}\n"
        f"for name, (module, question) in {questions!r}.items():\n"
        "    try:\n"
        "        found[name] = eval(question, {'it': envs if module == 'vllm.envs' else importlib.import_module(module)})\n"
        "    except AttributeError as error:\n"
        "        found[name] = str(error)\n"
        "print(json.dumps(found))"
    )
    bare = {name: value for name, value in os.environ.items() if name not in {v.name for v in ALL}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare | env, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def answers() -> tuple[dict[str, Any], dict[str, Any]]:
    return asked({}), asked(environment.values(ALL))


@pytest.mark.parametrize("name", READERS)
def test_its_reader_sees_it(answers: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    without, with_it = answers
    assert with_it[name] == READERS[name][2]
    assert without[name] != with_it[name], "the library's own default says the same: the variable may do nothing"


def test_deepspeed_computes_on_cpu() -> None:
    """Told so it does not look around, and counts devices as it is told; without the variable it says that it found no GPU."""
    code = (
        "import os\nfrom deepspeed.accelerator import real_accelerator as it\n"
        "print(it.get_accelerator()._name, it.get_accelerator().device_count(), flush=True)\n"
        "del os.environ['DS_ACCELERATOR']\nit.ds_accelerator = None\nprint('then', flush=True)\nit.get_accelerator()"
    )
    env = os.environ | {"DS_ACCELERATOR": environment.values(CPU_TRAINING)["DS_ACCELERATOR"], "LOCAL_SIZE": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=120
    )
    told, _, by_itself = done.stdout.partition("then")
    assert told.splitlines()[-1] == "cpu 3", done.stdout[-2000:]
    assert "unable to detect" not in told
    if not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd"))):
        assert "unable to detect" in by_itself


def test_the_raylet_knows_them() -> None:
    """Ray's C++ settings are read as RAY_<name>; of an unknown one it says nothing."""
    import ray

    raylet = Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet"
    names = [v.name for v in OUR_RAY if v.name.removeprefix("RAY_").islower()]
    assert len(names) >= 4
    with raylet.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        assert [name for name in [*names, "RAY_no_such_setting"] if binary.find(name.encode()) < 0] == ["RAY_no_such_setting"]


@pytest.mark.parametrize(
    ("module", "constant", "name"),
    [
        ("ray/train/v2/_internal/constants.py", "ENABLE_PREEMPTION_WATCHER_ENV_VAR", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"),
        (
            "ray/train/v2/_internal/constants.py", "WORKER_GROUP_START_TIMEOUT_S_ENV_VAR",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
        ),
        ("ray/llm/_internal/serve/constants.py", "RAYLLM_VLLM_ENGINE_CLS_ENV", "RAYLLM_VLLM_ENGINE_CLS"),
    ],
)  # fmt: skip
def test_their_readers_still_have_these_names(module: str, constant: str, name: str) -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    place = Path(spec.origin).parents[1] / module
    assert f'{constant} = "{name}"' in place.read_text()
    users = [p for p in place.parent.rglob("*.py") if p != place and constant in p.read_text()]
    assert users, "nobody reads it"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (environment.engine("/run", cpu_threads=3), ["OMP_NUM_THREADS = '3'", "OMP_WAIT_POLICY = 'PASSIVE'"]),
        (environment.training_worker("/run", on_cpu=True, threads=3), ["OMP_NUM_THREADS = '3'", "GOMP_SPINCOUNT = '5000'"]),
    ],
    ids=["engine", "training"],
)
def test_openmp_says_so(env: dict[str, str], told: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import torch; torch.zeros(9).sum()"], capture_output=True, text=True, timeout=120,
        env=os.environ | env | {"OMP_DISPLAY_ENV": "VERBOSE"},
    )  # fmt: skip
    assert [line for line in told if line not in done.stderr] == [], done.stderr[-2000:]


def test_tokenizers_start_no_threads() -> None:
    code = (
        "import os\nfrom tokenizers import Tokenizer, models, pre_tokenizers\n"
        "t = Tokenizer(models.WordLevel({'a': 0}, unk_token='a'))\nt.pre_tokenizer = pre_tokenizers.Whitespace()\n"
        "t.encode_batch(['a a a'] * 5000)\nprint(len(os.listdir('/proc/self/task')))"
    )
    counts = [
        int(subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
            env=os.environ | {"TOKENIZERS_PARALLELISM": value, "RAYON_NUM_THREADS": "4"},
        ).stdout)
        for value in (environment.values(JOB)["TOKENIZERS_PARALLELISM"], "true")
    ]  # fmt: skip
    assert counts[0] == 1 < counts[1]


def test_freed_memory_is_kept() -> None:
    """A quarter of a GiB, taken and given back: what is still resident of it, in MiB."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "libc.malloc.argtypes = [ctypes.c_size_t]\n"
        "libc.free.argtypes = [ctypes.c_void_p]\nlibc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]\n"
        "def rss():\n    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS')) // 1024\n"
        "before = rss()\np = libc.malloc(2**28)\nlibc.memset(p, 1, 2**28)\nlibc.free(p)\nprint(rss() - before)"
    )

    def kept(env: dict[str, str]) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, check=True, timeout=60
        )
        return int(done.stdout)

    assert kept({}) < 50
    assert kept(environment.training_worker("/run", on_cpu=True, threads=None)) > 200


@pytest.mark.parametrize("variable", ALL, ids=lambda variable: variable.name)
def test_each_has_a_reason_and_a_test_that_would_notice(variable: Variable) -> None:
    assert len(variable.why) > 10
    assert exists(variable.noticed_by), variable.noticed_by


def test_nothing_else_writes_the_environment() -> None:
    """By assignment or `setdefault`, `update`, `putenv`; reading is free."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.name == "environment.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Assign | ast.AugAssign | ast.Delete) else ""
            if text.startswith(
                ("os.environ[", "os.environ.setdefault", "os.environ.update", "os.environ.pop", "os.putenv", "os.environ |=")
            ):
                found.append(f"{path.relative_to(PACKAGE)}: {text[:80]}")
    assert found == []


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in OUR_RAY:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("RAY_num_workers_soft_limit", "9")
    environment.prepare_our_ray()
    assert {v.name: os.environ[v.name] for v in OUR_RAY} == environment.values(OUR_RAY) | {"RAY_num_workers_soft_limit": "9"}
    for variable in OUR_RAY:
        monkeypatch.delenv(variable.name, raising=False)


def test_behind_uv_run_workers_are_started_as_we_were(tmp_path: Path) -> None:
    """A process that is called `uv run` and starts ours: what Ray would make of its workers, before and after we have our say."""
    (tmp_path / "run").write_text(f"import subprocess\nsubprocess.run([{sys.executable!r}, 'ours.py'], check=True)")
    (tmp_path / "ours.py").write_text(
        "import json\nfrom ray._private.worker import _maybe_modify_runtime_env as made\n"
        "from llm2llm_ray.runtime.connection import start_workers_as_we_were_started\n"
        "before = made({}, False)\nstart_workers_as_we_were_started()\nprint(json.dumps([before, made({}, False)]))"
    )
    done = subprocess.run(
        ["uv", "run", "--no-project", "ours.py"], executable=sys.executable, cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{PACKAGE.parent}"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before["py_executable"].startswith("uv run") and before["working_dir"] == str(tmp_path)
    assert after == {}


@pytest.mark.parametrize(
    ("kept", "set_", "mode"),
    [
        (True, {}, "token"),
        (False, {}, None),
        (False, {"RAY_AUTH_TOKEN": "t"}, "token"),
        (True, {"RAY_AUTH_MODE": "disabled"}, "disabled"),
    ],
)
def test_who_joins_a_run_gives_the_token_that_its_ray_asks_for(
    kept: bool, set_: dict[str, str], mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), **set_})
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if kept:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("t")
    environment.use_token()
    assert os.environ.get("RAY_AUTH_MODE") == mode
