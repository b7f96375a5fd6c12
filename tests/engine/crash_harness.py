"""What the tests of crashes share: traders that remember every answer, and what a journal says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from engine_harness import client, orders, until
from market_driver import BTC

from engine.client import Answer, EngineClient
from engine.errors import EngineError
from engine.market import create_market
from engine.outcomes import command_ends, events_of
from engine.replay import Frame, JournalReader
from engine.wire import COMMAND_DTYPE, decode_events


def journalled(directory: Path, implementation: str) -> Iterator[tuple[int, int, int, bytes]]:
    """(session, reference, sequence number, events) of every command of a journal."""
    reader, market = JournalReader(directory, shard=1), create_market(implementation)
    while isinstance(frame := reader.read(), Frame):
        events = market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
        ends = command_ends(events, frame.length)
        rows = np.frombuffer(frame.commands, COMMAND_DTYPE)
        for index, (session, ref) in enumerate(zip(rows["session"], rows["ref"], strict=True)):
            seq = frame.first_seq + index
            yield int(session), int(ref), seq, events_of(events, ends, index, 1)
    reader.close()


def answered(traders: Sequence[Trader]) -> int:
    return sum(len(one.answers) for one in traders)


class Trader:
    """Sends one batch after the other, and remembers every answer."""

    def __init__(self, name: str, first_id: int, *, size: int = 3, instrument: int = BTC) -> None:
        self.name = name
        self.session = 0
        self.answers: list[Answer] = []
        self._next_id = first_id
        self._size = size
        self._instrument = instrument

    async def trade(self, port: int) -> None:
        """Until the engine is gone."""
        one = client(port, self.name)
        await one.start()
        self.session = one.session
        trading = asyncio.ensure_future(self._trade(one))
        await until(lambda: not one.is_connected, "the engine dies")
        await one.close()
        with suppress(EngineError):
            await trading

    async def _trade(self, one: EngineClient) -> None:
        while True:
            batch = orders(self._next_id, self._size, instrument=self._instrument)
            self._next_id += self._size
            self.answers += await one.send(batch, timeout_s=30.0)


def check_answers(directory: Path, implementation: str, traders: Sequence[Trader]) -> None:
    """Every answer is that of the journal, and every reference is in it once."""
    found = list(journalled(directory, implementation))
    assert [seq for _, _, seq, _ in found] == list(range(1, len(found) + 1))
    once = {(session, ref): (seq, events) for session, ref, seq, events in found if ref}
    assert len(once) == sum(1 for _, ref, _, _ in found if ref)
    for trader in traders:
        for answer in trader.answers:
            seq, events = once[trader.session, answer.events[0].ref]
            assert (seq, tuple(decode_events(events))) == (answer.seq, answer.events)
