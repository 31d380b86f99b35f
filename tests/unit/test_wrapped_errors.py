"""Our own errors inside those of Ray, Ray Data, Serve and Ray Train, built and sent as those libraries build and send them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ray import cloudpickle
from ray.data import DataContext
from ray.data._internal.planner.plan_udf_map_op import _try_wrap_udf_exception
from ray.data.exceptions import SystemException
from ray.exceptions import ActorDiedError, RayTaskError, UserCodeException
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from llm2llm_ray.errors import TemporaryFailure, UserError
from llm2llm_ray.runtime.driver.driver import quiet_data_context
from llm2llm_ray.runtime.driver.wrapped_errors import our_error, unwrapped

REVOKED = "teacher.base_url http://127.0.0.1:9/v1: HTTP 401; check the key in TEACHER_API_KEY"
Wrap = Callable[[BaseException], BaseException]


def in_a_task(error: BaseException) -> BaseException:
    """What `ray.get` raises for a task that raised `error`: sent as bytes, then made an instance of its cause's class, too."""
    cause = error.cause if isinstance(error, RayTaskError) else error  # Ray keeps no task error inside another
    sent = RayTaskError("answer", "Traceback (most recent call last):\n  many lines", cause, "ray::Asker", 1, "127.0.0.1")
    return RayTaskError.from_bytes(sent.to_bytes()).as_instanceof_cause()


def in_a_stream(error: BaseException) -> BaseException:
    """Ray Data in the process that waits for the stream."""
    found = in_a_task(error)
    found.__cause__ = SystemException()
    return found


def in_a_block(error: BaseException) -> BaseException:
    found = UserCodeException("UDF failed to process a data block.")
    found.__cause__ = error
    return found


def in_a_worker(error: BaseException) -> BaseException:
    return WorkerGroupError(
        "rank 1 failed", {0: RuntimeError("gloo: connection closed"), 1: UserExceptionWithTraceback(error, "…")}
    )


def in_a_health_check(error: BaseException) -> BaseException:
    return WorkerHealthCheckFailedError("worker 0", in_a_task(error))  # type: ignore[arg-type]


def in_the_controller(error: BaseException) -> BaseException:
    return ControllerError(error)  # type: ignore[arg-type]


def in_a_group(error: BaseException) -> BaseException:
    return BaseExceptionGroup("unhandled errors in a TaskGroup", [RuntimeError("cancelled"), error])


def sent(error: BaseException) -> BaseException:
    return cloudpickle.loads(cloudpickle.dumps(error))  # type: ignore[no-any-return]


WRAPPED: dict[str, tuple[Wrap, ...]] = {
    "as it is": (),
    "the driver's task": (in_a_task,),
    "an asker's, through a stream, in the driver": (in_a_task, in_a_stream, in_a_task),
    "a block, in the process that waits": (in_a_task, in_a_block),
    "a replica's task, in an asker's": (in_a_task, in_a_task, in_a_stream),
    "a training worker's, in the driver": (in_a_worker, sent, in_a_task),
    "a training worker's health": (in_a_health_check, in_a_worker, in_the_controller, sent, in_a_task),
    "Train's controller": (in_a_task, in_the_controller, sent, in_a_task),
    "a group of tasks": (in_a_group, in_a_task),
}


@pytest.mark.parametrize("raised", [UserError(REVOKED), TemporaryFailure("come back")], ids=["mistake", "away"])
@pytest.mark.parametrize("wraps", WRAPPED.values(), ids=WRAPPED)
def test_our_error_is_found_in_whatever_wraps_it(wraps: tuple[Wrap, ...], raised: Exception) -> None:
    error: BaseException = raised
    for wrap in wraps:
        error = wrap(error)
    found = our_error(error)
    assert type(found) is type(raised)
    assert str(found) == str(raised), "one message, without the traceback that Ray's own has"


def test_ray_data_hands_on_what_a_block_raised() -> None:
    """Across processes an exception loses its `__cause__`, so Ray Data must not put another around ours."""
    before = DataContext.get_current().copy()
    try:
        assert our_error(sent(raised_by_a_block())) is None, "Ray Data keeps the error: the setting is no longer needed"
        quiet_data_context()
        assert str(our_error(sent(raised_by_a_block()))) == REVOKED
    finally:
        DataContext._set_current(before)


def raised_by_a_block() -> BaseException:
    try:
        _try_wrap_udf_exception(UserError(REVOKED))
    except (UserError, UserCodeException) as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ours to mend"),
        in_a_task(ValueError("no UserError, though that is a ValueError")),
        in_a_worker(RuntimeError("CUDA error")),
        ActorDiedError(),
        sent(in_a_block(RuntimeError("bug"))),
    ],
    ids=repr,
)
def test_what_is_not_ours_stays_as_it_came(error: BaseException) -> None:
    assert our_error(error) is None
    with pytest.raises(type(error)) as raised, unwrapped():
        raise error
    assert raised.value is error


def test_a_failure_while_a_mistake_was_handled_is_a_failure() -> None:
    with pytest.raises(KeyError) as raised:
        try:
            raise UserError("a mistake")
        except UserError:
            {}["a bug in what handles it"]
    assert our_error(raised.value) is None


def test_errors_that_hold_each_other_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert our_error(one) is None


def test_it_leaves_without_what_was_around_it() -> None:
    error = in_a_task(in_a_worker(UserError(REVOKED)))
    with pytest.raises(UserError) as raised, unwrapped():
        raise error
    assert type(raised.value) is UserError and str(raised.value) == REVOKED
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
