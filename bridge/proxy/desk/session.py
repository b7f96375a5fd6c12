"""This worker's session with the engine, and how far the write-back of its answers has come.

One pipelined connection: answers are matched by reference, and what was unanswered when it was lost
is sent again under the same reference on the next one (`engine.client`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from bridge.limits import ENGINE_RETRY_AFTER_S
from engine.client import Answer, EngineClient
from engine.endpoint import Endpoint
from engine.errors import (
    Disconnected,
    EngineError,
    EngineUnavailable,
    LoginRefused,
    OutcomeUnknown,
    SessionTaken,
)
from engine.types import Command

_log = logging.getLogger(__name__)


class Engine(Protocol):
    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]: ...


class WriteBarrier:
    """How far the write-back has come, and how far our own clients may expect it to be."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self.answered = 0  # the newest sequence number that one of our answers told of
        self.written = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def note_answered(self, seq: int) -> None:
        self.answered = max(self.answered, seq)

    def note_written(self, shard: int, seq: int) -> None:
        if shard != self._shard or seq <= self.written:
            return
        self.written = seq
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > seq:
                self._waiting.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    async def wait(self, seq: int, within_s: float) -> bool:
        """Whether everything up to `seq` is written."""
        if self.written >= seq:
            return True
        entry = (seq, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(within_s):
                await entry[1]
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True


class EngineSession:
    """The engine may be away when it begins, and later."""

    def __init__(self, engine: Endpoint, *, name: str, key: str) -> None:
        self._engine, self._name, self._key = engine, name, key
        self._client: EngineClient | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()  # the client will not mend itself
        self._turn = asyncio.Lock()  # fair: nobody overtakes those who wait for the first login

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def run(self) -> None:
        """Keeps a client logged in until it is cancelled."""
        said = ""
        while True:
            client = EngineClient.at(self._engine, name=self._name, key=self._key)
            try:
                await client.start()
                self._client = client
                self._ended.clear()
                self._ready.set()
                said = ""
                await self._ended.wait()
            except EngineError as error:
                if str(error) != said:
                    _log.warning("no session with the engine: %s", error)
                said = str(error)
            finally:
                self._ready.clear()
                await client.close()
            await asyncio.sleep(ENGINE_RETRY_AFTER_S)

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        """Raises EngineUnavailable when nothing was sent, OutcomeUnknown when that is not sure;
        either within `timeout_s` in all.
        """
        give_up_at = asyncio.get_running_loop().time() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(give_up_at), self._turn:
                await self._ready.wait()
        client = self._client
        left_s = give_up_at - asyncio.get_running_loop().time()
        if client is None or not self._ready.is_set() or left_s <= 0:
            raise EngineUnavailable("the engine has not let this worker in yet")
        try:
            return await client.send(commands, timeout_s=left_s)
        except (SessionTaken, LoginRefused, Disconnected) as error:
            self._ready.clear()
            self._ended.set()
            raise OutcomeUnknown(str(error)) from error
