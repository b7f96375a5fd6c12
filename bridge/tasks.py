"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.limits import CANCEL_AGAIN_S


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels them until they have ended, whatever they end with.

    Once is not always enough: under Python 3.11 `asyncio.wait_for`, which psycopg waits by, loses a
    cancellation that meets what it waits for.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
