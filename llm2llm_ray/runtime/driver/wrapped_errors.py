"""Our own errors out of what Ray, Ray Data, Serve and Ray Train wrap around them on the way to the entrypoint.

A `UserError` raised in a worker arrives as the cause of a task error, which other libraries may have put into theirs; its text
is one line, theirs is a traceback. Used once, where a command waits for what Ray runs. An error that crosses a process keeps
what is an attribute and loses its `__cause__`: `driver.quiet_data_context` has Ray Data raise what its function raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError, RayTaskError
from ray.train import TrainingFailedError

from llm2llm_ray.errors import TemporaryFailure, UserError

OURS = (UserError, TemporaryFailure)
_WRAPPED_IN = ("cause", "controller_failure", "health_check_failure", "_base_exc")
"""Attributes in which Ray (task and actor errors) and Ray Train (controller, health check, worker) keep what they wrap."""


@contextmanager
def unwrapped() -> Iterator[None]:
    """What a person is to read leaves as it was raised; everything else leaves as it came."""
    try:
        yield
    except (RayError, TrainingFailedError) as error:
        found = our_error(error)
        if found is None:
            raise
        raise found from None


def our_error(error: BaseException) -> UserError | TemporaryFailure | None:
    """The first error of ours inside `error`, from the outside in; None where there is none.

    A `__context__` is not followed: what failed while one of ours was handled is another failure.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, OURS) and not isinstance(found, RayTaskError):  # Ray's mixes both, and its text is a traceback
            return found
        waiting += _inside(found)
    return None


def _inside(error: BaseException) -> list[BaseException]:
    held = [getattr(error, name, None) for name in _WRAPPED_IN]
    by_rank = getattr(error, "worker_failures", None)
    held += [by_rank[rank] for rank in sorted(by_rank)] if isinstance(by_rank, dict) else []
    held += error.exceptions if isinstance(error, BaseExceptionGroup) else []
    return [item for item in [*held, error.__cause__] if isinstance(item, BaseException)]
