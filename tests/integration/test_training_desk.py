"""The desk between the driver and its training workers: who gets which job, also when a group dies and comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm2llm_ray.runtime.training.desk import TrainingDesk

pytestmark = pytest.mark.integration


def on_a_desk(story: Callable[[TrainingDesk], Awaitable[None]]) -> None:
    async def told() -> None:
        await asyncio.wait_for(story(TrainingDesk()), 5)

    asyncio.run(told())


def test_two_ranks_get_the_same_jobs_in_the_same_order() -> None:
    async def story(desk: TrainingDesk) -> None:
        async def rank(number: int) -> list[str]:
            done, seen = 0, []
            while (given := await desk.next_job(done)) is not None:
                done, job = given
                seen.append(job)
                if number == 0:
                    await desk.finish(done, {"job": job})
            return seen

        ranks = [asyncio.create_task(rank(number)) for number in (1, 0)]
        assert await desk.train("first") == {"job": "first"}
        assert await desk.train("second") == {"job": "second"}
        await desk.close()
        assert await asyncio.gather(*ranks) == [["first", "second"]] * 2

    on_a_desk(story)


def test_a_group_started_anew_gets_the_unfinished_job_again_and_a_finished_one_never() -> None:
    async def story(desk: TrainingDesk) -> None:
        training = asyncio.create_task(desk.train("first"))
        assert await desk.next_job(0) == (1, "first")
        assert await desk.next_job(0) == (1, "first")  # the group died, and a new one has done nothing yet
        await desk.finish(1, {"updates": 3})
        assert await training == {"updates": 3}
        waiting = asyncio.create_task(desk.next_job(0))  # died after the end: nothing is left to do
        await asyncio.sleep(0.05)
        assert not waiting.done()
        again = asyncio.create_task(desk.train("second"))
        assert await waiting == (2, "second")
        await desk.finish(1, {"updates": -1})  # a late word on the first changes nothing
        await asyncio.sleep(0.05)
        assert not again.done()
        await desk.finish(2, {"updates": 4})
        assert await again == {"updates": 4}

    on_a_desk(story)


def test_closing_sends_everybody_home_but_only_after_their_job() -> None:
    async def story(desk: TrainingDesk) -> None:
        training = asyncio.create_task(desk.train("first"))
        await asyncio.sleep(0.05)
        await desk.close()
        assert await desk.next_job(0) == (1, "first")
        await desk.finish(1, {})
        assert await training == {}
        assert await desk.next_job(1) is None

    on_a_desk(story)
