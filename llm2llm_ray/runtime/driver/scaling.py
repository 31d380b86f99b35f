"""`llm2llm scale-teacher`: tells the driver of a live run, from another process, how many teacher replicas it shall have."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayActorError

from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.runtime import environment
from llm2llm_ray.runtime.connection import NAMESPACE, driver_name
from llm2llm_ray.runtime.driver.wrapped_errors import unwrapped


def scale_teacher(run: RunRecord, replicas: int) -> dict[str, Any]:
    """{"before": replicas, "replicas": replicas}; returns when the replicas are there. UserError when the run is not live."""
    started = [event for event in run.events if event["event"] == "started" and "address" in event]
    if run.state not in ("running", "unknown") or not started:
        raise UserError(f"run {run.name} is {run.state}: only a running run has a teacher to scale")
    environment.send_no_usage()
    address = started[-1]["address"]
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="WARNING")
    except ConnectionError as error:
        raise UserError(f"run {run.name}: its Ray cluster at {address} cannot be reached from here ({error})") from None
    try:
        try:
            driver = ray.get_actor(driver_name(run.name), namespace=NAMESPACE)
        except ValueError:
            raise UserError(f"run {run.name}: its driver is not up yet; try again in a moment") from None
        try:
            with unwrapped():
                return dict(ray.get(driver.scale_teacher.remote(replicas)))
        except RayActorError:
            raise UserError(f"run {run.name} ended before its teacher had {replicas} replicas") from None
    finally:
        ray.shutdown()
