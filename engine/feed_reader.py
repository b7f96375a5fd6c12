"""Reads a shard's market data from Redis: a consistent picture first, then what changes.

    async with FeedReader("redis://localhost") as reader:
        async for update in reader.follow("BTC-USD"):
            match update:
                case Trades(): ...   # every one, once
                case Missed(): ...   # trades that this reader can't have any more
                case Picture(): ...  # the book and the status, conflated

Its code is the example for readers in other languages; docs/reference/market-data.md describes what
it relies on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import redis.asyncio
from numpy.typing import NDArray
from redis.exceptions import RedisError

from engine import limits
from engine.errors import MarketDataUnavailable, UnknownInstrument
from engine.feed import TRADE_DTYPE, Keys
from engine.wire import DEPTH_DTYPE, DISPLAYED_ORDER_DTYPE

log = logging.getLogger(__name__)

_KINDS = ("status", "top", "depth", "orders")
Fields = Mapping[str, bytes]
Streams = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]


class Top(NamedTuple):
    """Prices in ticks, quantities in lots; price 0: that side is empty."""

    bid: int
    bid_lots: int
    bid_orders: int
    ask: int
    ask_lots: int
    ask_orders: int


class Picture(NamedTuple):
    """What Redis held at one moment: the book and status after `seq`, or after the last change
    before it.
    """

    symbol: str
    seq: int  # everything up to here is published
    is_alive: bool  # False: nobody publishes, and the engine may be anywhere by now
    status: dict[str, str]
    top: Top
    levels: NDArray[np.void]  # DEPTH_DTYPE: bids, then asks, best first
    orders: NDArray[np.void] | None  # DISPLAYED_ORDER_DTYPE; None: not published
    ids: dict[str, str]  # of the newest entries, by kind of stream; "0-0" before the first


class Trades(NamedTuple):
    """Each once, in their order."""

    id: str  # `follow` goes on after it
    trades: NDArray[np.void]  # TRADE_DTYPE


class Missed(NamedTuple):
    """Trades from one sequence number to the other are not to be had here, if there were any."""

    first_seq: int
    last_seq: int


Update = Picture | Trades | Missed


class FeedReader:
    def __init__(self, url: str, *, shard: int = 1) -> None:
        self._keys = Keys(shard)
        # redis-py's types allow for every protocol and every decoding: ours is bytes.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=limits.FEED_REDIS_S + limits.FEED_ALIVE_S,
            socket_connect_timeout=limits.FEED_REDIS_S,
        )

    async def __aenter__(self) -> FeedReader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._redis.aclose()

    async def picture(self, symbol: str) -> Picture:
        """Read in one transaction, so that its parts belong together.

        Raises UnknownInstrument, MarketDataUnavailable.
        """
        keys = self._keys
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.position)
                pipeline.exists(keys.alive)
                pipeline.xrevrange(keys.stream(symbol, "trades"), count=1)
                for kind in _KINDS:
                    pipeline.hgetall(keys.now(symbol, kind))
                position, alive, newest, *states = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise MarketDataUnavailable("unreachable", f"Redis: {error}") from error
        _end_if_cancelled()
        status, top, depth, orders = (_named(fields) for fields in states)
        if not status:
            raise UnknownInstrument(f"Redis holds no market data of {symbol}")
        return Picture(
            symbol=symbol,
            seq=int(position.split()[0]) if position else 0,
            is_alive=bool(alive),
            status={name: value.decode() for name, value in status.items() if name != "id"},
            top=_top(top),
            levels=np.frombuffer(depth.get("levels", b""), DEPTH_DTYPE),
            orders=np.frombuffer(orders["orders"], DISPLAYED_ORDER_DTYPE) if orders else None,
            ids={
                "trades": newest[0][0].decode() if newest else "0-0",
                **{
                    kind: state.get("id", b"0-0").decode()
                    for kind, state in zip(_KINDS, (status, top, depth, orders), strict=True)
                },
            },
        )

    async def newest_trades(self, symbol: str, count: int) -> NDArray[np.void]:
        """TRADE_DTYPE, oldest first. Raises MarketDataUnavailable."""
        try:
            rows = await self._redis.xrevrange(self._keys.stream(symbol, "trades"), count=count)
        except (RedisError, OSError) as error:
            raise MarketDataUnavailable("unreachable", f"Redis: {error}") from error
        _end_if_cancelled()
        found = b"".join(fields.get(b"trades", b"") for _, fields in reversed(rows))
        return np.frombuffer(found, TRADE_DTYPE)[-count:]

    async def follow(self, symbol: str, *, after: str = "") -> AsyncIterator[Update]:
        """A picture first, and again whenever the book or the status has changed; trades from then
        on, or from after the entry of trades with the id `after`, where they are still there.

        Goes on when Redis goes away and comes back. Raises UnknownInstrument and, before the first
        picture, MarketDataUnavailable.
        """
        picture = await self.picture(symbol)
        yield picture
        trades = self._keys.stream(symbol, "trades")
        chain = Chain(after or picture.ids["trades"])
        seen = {self._keys.stream(symbol, kind): picture.ids[kind] for kind in _KINDS}
        while True:
            try:
                found = await self._read({trades: chain.id, **seen})
                changed = False
                for name, entries in found:
                    if name.decode() == trades:
                        for id_, fields in entries:
                            for update in chain.follow(id_.decode(), _named(fields)):
                                yield update
                    else:
                        seen[name.decode()] = entries[-1][0].decode()
                        changed = True
                if changed:
                    yield await self.picture(symbol)
            except MarketDataUnavailable as error:
                log.warning("market data of %s: %s; trying again", symbol, error)
                await asyncio.sleep(limits.FEED_RETRY_S_MIN)

    async def _read(self, after: Mapping[str, str]) -> Streams:
        try:
            found: Streams = await self._redis.xread(
                dict(after), count=limits.FEED_READ_ENTRIES, block=int(limits.FEED_ALIVE_S * 1_000)
            )
        except (RedisError, OSError) as error:
            raise MarketDataUnavailable("unreachable", f"Redis: {error}") from error
        _end_if_cancelled()
        return found


class Chain:
    """One reader's way along an instrument's trades: each once, and none missed unseen. Pure."""

    def __init__(self, after: str) -> None:
        self.id = after
        self._seq = int(after.rpartition("-")[2])  # seen through here

    def follow(self, id_: str, fields: Fields) -> Iterator[Trades | Missed]:
        """What the next entry of the stream brings."""
        last_seq = int(id_.rpartition("-")[2])
        prev_seq = int(fields["prev"])
        if "gap" in fields:
            # Whoever has seen the trades before it has missed none: there are no others.
            if last_seq > self._seq and not 0 < prev_seq <= self._seq:
                yield Missed(max(self._seq + 1, int(fields["gap"])), last_seq)
        else:
            if prev_seq > self._seq:
                yield Missed(self._seq + 1, prev_seq)
            records = np.frombuffer(fields["trades"], TRADE_DTYPE)
            # Published again after an outage, an entry may begin with trades of an earlier one.
            fresh = records[records["seq"] > self._seq]
            if len(fresh):
                yield Trades(id_, fresh)
        self.id = id_
        self._seq = max(self._seq, last_seq)


def _end_if_cancelled() -> None:
    """redis-py sends under `asyncio.wait_for`, which before Python 3.12 can lose a cancellation."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _named(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in fields.items()}


def _top(fields: Fields) -> Top:
    return Top(*(int(fields.get(name, b"0")) for name in Top._fields))
