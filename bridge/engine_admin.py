"""The control process's hand on the engine: session `control`, role admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from bridge.errors import StepFailed
from bridge.limits import ENGINE_CONTROL_S
from engine.client import Answer, BookAnswer, EngineClient, EngineStatus, TailBatch
from engine.endpoint import Endpoint
from engine.errors import Disconnected, EngineUnavailable, LoginRefused, SessionTaken
from engine.reject import Reason
from engine.types import Command, CommandKind, EventKind, Mode
from engine.wire import instrument_command
from shadow.legacy.convert import Scale

_NEXT_STEP = {
    Reason.NOT_PERMITTED: "give the control process the engine's admin key",
    Reason.UNKNOWN_INSTRUMENT: "see that the engine runs on its own journal",
    Reason.STALE_EPOCH: "the engine is at a higher epoch already: see `railswitch status`",
    Reason.INSTRUMENT_MISMATCH: "an instrument's id can't change: set it back in railswitch.toml",
}


class EngineAdmin:
    """Connects when first asked, and again whenever the engine comes back."""

    def __init__(self, engine: Endpoint, *, key: str, name: str = "control") -> None:
        self._engine, self._key, self._name = engine, key, name
        self._client: EngineClient | None = None
        self._turn = asyncio.Lock()
        self._follower = EngineClient.at(engine, name="write-back", key=key)

    async def close(self) -> None:
        await self._follower.close()
        await self._forget()

    async def define(self, scales: Iterable[Scale]) -> None:
        """The instruments and their limits. Raises StepFailed when the engine refuses one."""
        commands = [
            instrument_command(
                instrument=one.instrument,
                name=one.symbol,
                price_ticks_max=one.price_ticks_max,
                qty_lots_max=one.qty_lots_max,
            )
            for one in scales
        ]
        for command, answer in zip(commands, await self._send(commands), strict=True):
            _check(answer, f"define instrument {command.instrument}")

    async def set_mode(self, instrument: int, mode: Mode, epoch: int) -> int:
        """The sequence number of the change. The same change again is one without effect.

        Raises StepFailed when it was certainly not made, EngineError when it may have been.
        """
        command = Command(kind=CommandKind.MODE, instrument=instrument, epoch=epoch, aux=int(mode))
        try:
            (answer,) = await self._send([command])
        except EngineUnavailable as error:
            raise StepFailed(f"{error}; see that `railswitch engine` runs") from error
        _check(answer, f"put instrument {instrument} to {mode.name.lower()} at epoch {epoch}")
        return answer.seq

    async def book(self, instrument: int) -> BookAnswer:
        """Raises QueryRefused for an unknown instrument, EngineUnavailable."""
        async with self._usable() as client:
            return await client.book(instrument, timeout_s=ENGINE_CONTROL_S)

    async def status(self) -> EngineStatus:
        """Raises EngineUnavailable."""
        async with self._usable() as client:
            return await client.status(timeout_s=ENGINE_CONTROL_S)

    async def head_seq(self) -> int:
        return (await self.status()).seq

    def tail(self, from_seq: int) -> AsyncIterator[TailBatch]:
        """On a connection of its own; see EngineClient.tail."""
        return self._follower.tail(from_seq)

    async def _send(self, commands: list[Command]) -> list[Answer]:
        async with self._usable() as client:
            return await client.send(commands, timeout_s=ENGINE_CONTROL_S)

    @asynccontextmanager
    async def _usable(self) -> AsyncIterator[EngineClient]:
        async with self._turn:
            client = self._client
            if client is None:
                client = EngineClient.at(self._engine, name=self._name, key=self._key)
                try:
                    await client.start(timeout_s=ENGINE_CONTROL_S)
                except BaseException:
                    await client.close()
                    raise
                self._client = client
        try:
            yield client
        except (SessionTaken, LoginRefused, Disconnected):
            # This client has ended for good; whoever asks next gets another.
            if self._client is client:
                await self._forget()
            raise

    async def _forget(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


def _check(answer: Answer, doing: str) -> None:
    last = answer.events[-1]
    if last.kind is EventKind.REJECTED:
        step = _NEXT_STEP.get(last.reason, "see `railswitch status`")
        raise StepFailed(f"the engine refuses to {doing}: {last.reason.name.lower()}; {step}")
