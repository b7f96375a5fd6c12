"""What the tests of market data share: a shard without a gateway, a flow of orders for it, and what
its journal says should have been published.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import redis
from engine_harness import until

from engine.feed import TRADE_DTYPE
from engine.feed_publisher import FeedPublisher, FeedSettings
from engine.feed_reader import FeedReader, Picture
from engine.market import Market, create_market
from engine.outcomes import Outcome
from engine.protocol import FeedStatus
from engine.replay import Frame, JournalReader
from engine.shard import Shard
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    Mode,
    OrderFlag,
    OrderType,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import (
    DEPTH_DTYPE,
    DISPLAYED_ORDER_DTYPE,
    decode_events,
    encode_commands,
    instrument_command,
)

TRADE = tuple[int, int, int, int, int, int]  # seq, sub, time_ns, price, quantity, taker's side


class Desk:
    """One session of a shard: sends, and waits for the answers."""

    def __init__(self, shard: Shard[Desk], name: str, role: Role) -> None:
        self._shard = shard
        self._ref = 0
        self.session = 0
        self.answered = 0
        self.sent = 0
        shard.enter(self, name, role)

    def events(self, outcome: Outcome) -> None:
        self.answered += sum(event.flags & 1 for event in decode_events(outcome.events))

    def consumed(self, size: int) -> None:
        pass

    def admitted(self, session: int) -> None:
        self.session = session
        self._ref = self._shard.last_ref(session)

    async def send(self, commands: list[Command]) -> None:
        """Returns when all of them have been answered: they are durable then."""
        await until(lambda: self.session, "the login")
        data = bytearray(encode_commands(commands))
        for n in range(len(commands)):
            self._ref += 1
            data[n * 64 + 16 : n * 64 + 24] = self._ref.to_bytes(8, "little")
        self.sent += len(commands)
        self._shard.receive(self, self.session, memoryview(data))
        await until(lambda: self.answered == self.sent, "the answers")


class Rig:
    def __init__(self, shard: Shard[Desk], publisher: FeedPublisher) -> None:
        self.shard = shard
        self.publisher = publisher
        self.admin = Desk(shard, "control", Role.ADMIN)
        self.trader = Desk(shard, "proxy-0", Role.TRADE)

    @property
    def status(self) -> FeedStatus:
        return self.publisher.status()

    async def published(self, until_seq: int | None = None) -> None:
        """Waits until everything up to now is in Redis, books included."""
        seq = self.shard.feed.durable_seq if until_seq is None else until_seq
        await until(
            lambda: self.status.published_seq >= seq and self.status.state == "publishing",
            f"market data up to {seq}: {self.status}",
        )
        # The books of the last changes are read with the next batch, at the latest.
        batches = self.status.batches
        await until(lambda: self.status.batches > batches + 1, "another batch")


@contextlib.asynccontextmanager
async def rig(
    directory: Path, url: str, *, implementation: str = "python", **rest: int
) -> AsyncIterator[Rig]:
    """A shard at work that publishes. Ends in order."""
    stop = asyncio.Event()
    shard = Shard[Desk](directory, number=1, implementation=implementation)
    chosen = {"interval_ms": 5, "levels": 10, "orders": 10, "stream_length": 100_000} | rest
    publisher = FeedPublisher(FeedSettings(url=url, **chosen), shard)
    running: asyncio.Future[None] | None = None
    try:
        await shard.recover(stop)
        running = asyncio.ensure_future(shard.run(stop))
        publisher.start()
        yield Rig(shard, publisher)
    finally:
        stop.set()
        if running is not None:
            await running
        await publisher.close()
        await shard.close()


def opening(numbers: int = 3) -> list[Command]:
    """Defines instruments 1, 2, ... and takes them live at epoch 1."""
    return [
        command
        for number in range(1, numbers + 1)
        for command in (
            instrument_command(
                instrument=number, name=symbol(number), price_ticks_max=10_000, qty_lots_max=1_000
            ),
            mode(number, Mode.LIVE, 1),
        )
    ]


def symbol(number: int) -> str:
    return f"COIN{number}-USD"


def mode(number: int, mode: Mode, epoch: int) -> Command:
    return Command(kind=CommandKind.MODE, instrument=number, epoch=epoch, aux=mode)


class Flow:
    """Orders of every kind that changes a book, on a few instruments, the same for a seed."""

    def __init__(self, seed: int, *, numbers: int = 3) -> None:
        self._random = random.Random(seed)
        self._numbers = numbers
        self._next_id = seed * 1_000_000 + 1
        self._recent: list[tuple[int, int]] = []

    def batch(self, size: int) -> list[Command]:
        return [self._command() for _ in range(size)]

    def _command(self) -> Command:
        pick = self._random.random()
        if not self._recent or pick < 0.72:
            return self._new()
        order_id, instrument = self._random.choice(self._recent)
        target = {"instrument": instrument, "order_id": order_id, "epoch": 1, "account": 7}
        if pick < 0.86:
            return Command(kind=CommandKind.CANCEL, **target)
        if pick < 0.92:
            return Command(kind=CommandKind.REDUCE, qty_lots=self._random.randint(1, 10), **target)
        self._next_id += 1
        self._recent.append((self._next_id, instrument))
        return Command(
            kind=CommandKind.REPLACE,
            price_ticks=self._random.randint(990, 1_010),
            qty_lots=self._random.randint(1, 60),
            aux=self._next_id,
            **target,
        )

    def _new(self) -> Command:
        draw = self._random
        self._next_id += 1
        number = draw.randint(1, self._numbers)
        qty = draw.randint(1, 60)
        is_market, is_iceberg = draw.random() < 0.08, draw.random() < 0.3 and qty > 5
        self._recent = [*self._recent[-60:], (self._next_id, number)]
        return Command(
            kind=CommandKind.NEW,
            side=draw.choice([Side.BUY, Side.SELL]),
            ord_type=OrderType.MARKET if is_market else OrderType.LIMIT,
            tif=TimeInForce.IOC if is_market else TimeInForce.GTC,
            flags=OrderFlag.DISPLAY if is_iceberg and not is_market else 0,
            aux=draw.randint(1, 5) if is_iceberg and not is_market else 0,
            instrument=number,
            epoch=1,
            account=7,
            order_id=self._next_id,
            price_ticks=0 if is_market else draw.randint(990, 1_010),
            qty_lots=qty,
        )


# --- what should have been published


def journalled(
    directory: Path, *, implementation: str = "python", until_seq: int | None = None
) -> tuple[Market, dict[int, list[TRADE]]]:
    """The market after the journal's commands, and all trades of each instrument."""
    market = create_market(implementation)
    trades: dict[int, list[TRADE]] = {}
    reader = JournalReader(directory, shard=1)
    try:
        while until_seq is None or market.last_seq < until_seq:
            frame = reader.read()
            if not isinstance(frame, Frame):
                break
            size = frame.length if until_seq is None else until_seq - frame.first_seq + 1
            events = market.apply(frame.commands[: size * 64], frame.ts_ns)
            for event in decode_events(events):
                if event.kind is EventKind.FILL:
                    at_ns = frame.ts_ns + 1_000 * (event.seq - frame.first_seq)
                    trades.setdefault(event.instrument, []).append(_trade(event, at_ns))
    finally:
        reader.close()
    return market, trades


def _trade(event: Event, at_ns: int) -> TRADE:
    return (event.seq, event.sub, at_ns, event.price_ticks, event.qty_lots, event.side)


def stored_trades(url: str, number: int) -> list[TRADE]:
    """As Redis has them, in the order of the stream, repeats and all; its chain is checked."""

    found: list[TRADE] = []
    prev = 0
    with redis.Redis.from_url(url, protocol=2) as connection:
        for id_, fields in connection.xrange(f"railswitch:market:1:{symbol(number)}:trades"):
            assert int(fields[b"prev"]) == prev, (id_, fields[b"prev"], prev)
            prev = int(id_.partition(b"-")[2])
            for seq, at_ns, price, qty, sub, side, _, _ in np.frombuffer(
                fields[b"trades"], TRADE_DTYPE
            ).tolist():
                found.append((seq, sub, at_ns, price, qty, side))
            assert found[-1][0] == prev
    return found


def check_trades(directory: Path, url: str, implementation: str = "python") -> int:
    """Every fill of the journal is there once, in its order. Returns how many."""
    _, expected = journalled(directory, implementation=implementation)
    for number, trades in expected.items():
        assert stored_trades(url, number) == trades
    return sum(map(len, expected.values()))


def check_picture(picture: Picture, market: Market, number: int) -> None:
    depth = np.frombuffer(market.depth(number, 10), DEPTH_DTYPE)
    orders = np.frombuffer(market.displayed_orders(number, 10), DISPLAYED_ORDER_DTYPE)
    assert picture.levels.tolist() == depth.tolist()
    assert picture.orders is not None
    assert picture.orders.tolist() == orders.tolist()
    best = {side: (price, lots, count) for side, price, lots, count in reversed(depth.tolist())}
    assert picture.top == (*best.get(1, (0, 0, 0)), *best.get(2, (0, 0, 0)))


async def check_books(directory: Path, url: str, implementation: str = "python") -> None:
    """What Redis shows of each instrument is the book after the journal's last command."""
    market, _ = journalled(directory, implementation=implementation)
    async with FeedReader(url) as reader:
        for state in market.instruments():
            picture = await reader.picture(state.name)
            assert picture.seq == market.last_seq
            check_picture(picture, market, state.instrument)
            assert picture.status["mode"] == state.mode.name.lower()
            assert picture.status["epoch"] == str(state.epoch)
            assert picture.status["price_max"] == str(state.price_ticks_max)
            assert picture.status["quantity_max"] == str(state.qty_lots_max)
