"""What ran, in the words of what ran: log lines of DeepSpeed and vLLM, counters of vLLM and Ray Serve, from their own sources.

Nothing here is our label: lines are copied from the worker logs of this Ray session, series from Ray's metrics endpoints.
"""

from __future__ import annotations

import glob
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from llm2llm_ray.runtime.engines import EngineSpec
from llm2llm_ray.storage.files import Files

_LINES = re.compile(
    r"ZeRO|zero_optimization|DeepSpeed info|Initializing a V1 LLM engine|Using executor class|Starting to load model"
    r"|Avg prompt throughput|init engine"
)
_SERIES = re.compile(
    r"^ray_(vllm_(?:request_success|generation_tokens|prompt_tokens)_total|vllm_request_success"
    r"|serve_(?:num_router_requests|deployment_(?:request_counter|replica_starts))\w*|serve_replica_\w*processing_queries)"
)
_SCRAPE_WAIT_S = 12.0  # Ray exports a worker's metrics every 10 s


def collect(files: Files, specs: Sequence[EngineSpec]) -> dict[str, Any]:
    """Writes evidence/logs.txt and evidence/metrics.prom below the run; returns their names and a few of the lines."""
    apps = [spec.app for spec in specs]
    if apps:
        time.sleep(_SCRAPE_WAIT_S)
    logs = list(_log_lines())
    series = [line for line in _scrape() if _SERIES.match(line)]
    files.replace("evidence/logs.txt", "\n".join(logs).encode())
    files.replace("evidence/metrics.prom", "\n".join(series).encode())
    return {"logs": "evidence/logs.txt", "metrics": "evidence/metrics.prom", "log_lines": len(logs), "series": len(series)}


def _log_lines() -> Iterator[str]:
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    for path in sorted(glob.glob(f"{session}/logs/**/*", recursive=True)):
        if path.endswith((".log", ".err", ".out")) and "ray-data" not in path:
            with open(path, errors="replace") as stream:
                for line in stream:
                    if _LINES.search(line):
                        yield f"{path.removeprefix(session)}: {line.strip()[:400]}"


def _scrape() -> Iterator[str]:
    for node in ray.nodes():
        if node["Alive"] and node.get("MetricsExportPort"):
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            try:
                with urllib.request.urlopen(address, timeout=10) as response:
                    yield from response.read().decode().splitlines()
            except (urllib.error.URLError, TimeoutError) as error:
                yield f"# {address}: {error}"
