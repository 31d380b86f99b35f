"""Following a driver from the entrypoint: its progress shown, SIGTERM and Ctrl-C drained, its evidence collected at the end."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from llm2llm_ray.runtime.driver import evidence
from llm2llm_ray.runtime.driver.memory import MemoryWatch
from llm2llm_ray.runtime.driver.wrapped_errors import unwrapped
from llm2llm_ray.storage.files import Files

DRAIN_S = 45.0
_PUT_AWAY_S = 120.0
_POLL_S = 1.0


class Interrupted(Exception):
    """SIGTERM or Ctrl-C, after draining."""


def followed(
    driver: Any,
    running: Any,
    show: Callable[[dict[str, Any]], None],
    told_to_stop: Callable[[], bool],
    watch: MemoryWatch,
) -> dict[str, Any]:
    """What `running`, a call of the driver, comes to. Raises Interrupted after a drain."""
    while True:
        done, _ = ray.wait([running], timeout=_POLL_S)
        if done:
            with unwrapped():
                return dict(ray.get(running))
        with contextlib.suppress(GetTimeoutError, RayActorError):  # busy or restarting: the next poll will tell
            show(ray.get(driver.status.remote(), timeout=_POLL_S))
        watch.look()
        if told_to_stop():
            _drain(driver, running)


def put_away(driver: Any, files: Files, told_to_stop: Callable[[], bool]) -> None:
    """The run is over and told: what fails from here on is told in the evidence's own file."""
    putting, over = driver.put_away.remote(), time.monotonic() + _PUT_AWAY_S
    while not ray.wait([putting], timeout=_POLL_S)[0]:
        if told_to_stop() or time.monotonic() > over:
            evidence.tell(files, {"not_read": ["all: it took too long"]})
            return
    try:
        ray.get(putting)
    except RayError as error:
        evidence.tell(files, {"not_read": [evidence.shortened(error)]})


def _drain(driver: Any, running: Any) -> None:
    """Stop asking, wait for what is in flight, and end the driver. A training goes on from its last checkpoint later."""
    if ray.get(driver.stop.remote(), timeout=10):
        ray.wait([running], timeout=DRAIN_S)
    ray.kill(driver)
    raise Interrupted("stopped; what was in flight is stored, and the same command goes on from here")


class Termination:
    """SIGTERM and Ctrl-C as a question instead of an exception. `listen` again after ray.init, which puts its own handlers."""

    def __init__(self) -> None:
        self._told = False
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> Termination:
        self.listen()
        return self

    def listen(self) -> None:
        for number in self._before:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self._told = True

    def __call__(self) -> bool:
        return self._told

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
