"""What ran, in the words of what ran: log lines of DeepSpeed and vLLM, counters of vLLM and Ray Serve, from their own sources.

Nothing here is our label: lines are copied from the logs of this run's workers, series from Ray's metrics endpoints. Others may
use the same cluster: Serve's series say which workers are replicas of this run's applications, training logs which trained.
Collected when the report stands: it holds what could be read, and says what could not.
"""

from __future__ import annotations

import glob
import http.client
import json
import re
import time
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from llm2llm_ray.runtime.serving.engines import EngineSpec, identities
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.training_log import TrainingLog

FOLDER = "evidence"
_LINES = re.compile(
    r"ZeRO|zero_optimization|DeepSpeed info|Initializing a V1 LLM engine|Using executor class|Starting to load model"
    r"|Avg prompt throughput|init engine"
)
_SERIES = re.compile(
    r"^ray_(vllm_(?:request_success|generation_tokens|prompt_tokens)_total|vllm_request_success"
    r"|serve_(?:num_router_requests|deployment_(?:request_counter|replica_starts))\w*|serve_replica_\w*processing_queries)"
)
_LABEL = re.compile(r'(application|WorkerId)="([^"]*)"')
_SCRAPE_WAIT_S = 12.0
"""At most: Ray exports a worker's metrics every 10 s."""
_SCRAPE_EVERY_S = 1.0


def collect(files: Files, specs: Sequence[EngineSpec]) -> dict[str, Any]:
    """Writes evidence/logs.txt, metrics.prom, hand_offs.json and read.json (counts, and what could not be read) below the run."""
    not_read: set[str] = set()
    apps = [spec.app for spec in specs]
    told = _told_by_replicas(specs, not_read)
    answered = sum(replica["answered"] for replica in told if not replica["recorded"])
    recorded = sum(replica["answered"] for replica in told if replica["recorded"])
    hand_offs = [{"replica": replica["replica"], **proof} for replica in told for proof in replica["hand_offs"]]
    series, replicas = _series(apps, not_read)
    over = time.monotonic() + _SCRAPE_WAIT_S
    while time.monotonic() < over and _counted(series) < answered:
        time.sleep(_SCRAPE_EVERY_S)
        series, replicas = _series(apps, not_read)
    if _counted(series) < answered:
        not_read.add(f"vLLM's counters: {_counted(series):g} of {answered} answers counted after {_SCRAPE_WAIT_S:g} s")
    logs = list(_log_lines(replicas | _trainers(files), not_read))
    files.replace(f"{FOLDER}/logs.txt", "\n".join(logs).encode())
    files.replace(f"{FOLDER}/metrics.prom", "\n".join(series).encode())
    files.replace(f"{FOLDER}/hand_offs.json", json.dumps(hand_offs, indent=1).encode())
    counts = {"log_lines": len(logs), "series": len(series), "hand_offs": len(hand_offs)}
    counts |= {"recorded_replies": recorded} if recorded else {}
    return tell(files, {**counts, "not_read": sorted(not_read)})


def tell(files: Files, told: dict[str, Any]) -> dict[str, Any]:
    files.replace(f"{FOLDER}/read.json", json.dumps(told, indent=1).encode())
    return told


def _told_by_replicas(specs: Sequence[EngineSpec], not_read: set[str]) -> list[dict[str, Any]]:
    try:
        return [replica | {"recorded": spec.replies is not None} for spec in specs for replica in identities(spec.app)]
    except (RayError, RayServeException, TimeoutError) as error:
        not_read.add(f"how much the engines answered, and the proofs of what they loaded: {shortened(error)}")
        return []


def _series(apps: Sequence[str], not_read: set[str]) -> tuple[list[str], set[str]]:
    """The lines of these applications' replicas, and these replicas' worker ids."""
    lines = scraped(_endpoints(), not_read)
    found = [(line, dict(_LABEL.findall(line))) for line in lines if _SERIES.match(line)]
    replicas = {labels["WorkerId"] for _, labels in found if labels.get("application") in apps and "WorkerId" in labels}
    return [line for line, labels in found if labels.get("application", labels.get("WorkerId")) in {*apps, *replicas}], replicas


def _counted(series: Sequence[str]) -> float:
    """Requests that vLLM has counted as answered."""
    return sum(float(line.rpartition(" ")[2]) for line in series if line.startswith("ray_vllm_request_success"))


def _trainers(files: Files) -> set[str]:
    """Worker ids of all that trained for this run, in this session or an earlier one."""
    logs = [TrainingLog(files, path.removesuffix(".jsonl")) for path in files.list("train") if path.endswith(".jsonl")]
    starts = [line for log in logs for line in log.read() if line.get("event") == "start"]
    return {worker["worker"] for line in starts for worker in line["engine_report"]["workers"] if worker.get("worker")}


def _log_lines(workers: Collection[str], not_read: set[str]) -> Iterator[str]:
    """Of the log files that carry a worker's id in their names, on the node of the driver."""
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    for worker in sorted(workers):
        for path in sorted(glob.glob(f"{session}/logs/**/*{worker}*", recursive=True)):
            if path.endswith((".log", ".err", ".out")):
                try:
                    with open(path, errors="replace") as stream:
                        for line in stream:
                            if _LINES.search(line):
                                yield f"{path.removeprefix(session)}: {line.strip()[:400]}"
                except OSError as error:
                    not_read.add(shortened(error))


def _endpoints() -> Iterator[str]:
    for node in ray.nodes():
        if node["Alive"] and node.get("MetricsExportPort"):
            yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def scraped(addresses: Iterable[str], not_read: set[str]) -> list[str]:
    """The lines of those that answer; of each other one a word in `not_read`."""
    lines: list[str] = []
    for address in addresses:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                lines += response.read().decode(errors="replace").splitlines()
        except (OSError, http.client.HTTPException) as error:
            not_read.add(f"{address}: {shortened(error)}")
    return lines


def shortened(error: BaseException) -> str:
    """Example: "ConnectionRefusedError: [Errno 111] Connection refused"."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
