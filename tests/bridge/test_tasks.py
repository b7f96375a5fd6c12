"""A task that is ended has ended, even one that loses a cancellation."""

from __future__ import annotations

import asyncio

from bridge.tasks import ended


def test_a_task_that_loses_its_first_cancellation_is_cancelled_again() -> None:
    async def deaf() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async def work() -> None:
        tasks = [asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(0))]
        await asyncio.sleep(0)
        await ended(*tasks)
        assert all(task.done() for task in tasks)

    asyncio.run(work())


def test_it_swallows_what_a_task_ended_with() -> None:
    async def fails() -> None:
        raise ValueError

    async def work() -> None:
        await ended(asyncio.create_task(fails()))

    asyncio.run(work())
