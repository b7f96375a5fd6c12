"""Redis, as the publisher of market data sees it: what it holds, and one atomic step onwards.

A step is a script that appends all of a batch, or nothing, and only where Redis still holds the
position that the batch continues. So a Redis that was emptied, restored or failed over, or that
executes late what was thought lost, is noticed before anything is written behind a hole. All calls
block, and belong into one thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from engine import limits
from engine.errors import MarketDataUnavailable
from engine.feed import Entry, FeedState, Hash, Keys
from engine.feed_status import InstrumentStatus

_SCRIPT = Path(__file__).with_name("feed.lua").read_text()
_STRING = struct.Struct(">BI")
_STRING_32 = 0xDB  # a string with 32 bits of length

# How Redis begins its answer, and what an operator would look at.
_REASONS = {
    "OOM": "full",
    "EXECABORT": "full",
    "READONLY": "read-only",
    "MISCONF": "not persisting",
    "LOADING": "loading",
    "MASTERDOWN": "failing over",
    "NOREPLICAS": "failing over",
}


class Published(NamedTuple):
    added: int
    repeated: int  # were there already
    refused: int
    refusals: tuple[str, ...]  # why, some of them, each with its key


class RedisOutlet:
    """One shard's market data in one Redis. `open` comes first, and again after every failure.

    Every method but `close` raises MarketDataUnavailable.
    """

    def __init__(self, url: str, keys: Keys) -> None:
        self._keys = keys
        self._where = url.rpartition("@")[2]
        # redis-py's types allow for every protocol and every decoding: ours is bytes.
        self._redis: Any = redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=limits.FEED_REDIS_S,
            socket_connect_timeout=limits.FEED_REDIS_S,
            retry=Retry(NoBackoff(), 0),  # a step that may have been taken is not sent again
        )
        self._script = ""

    def open(self) -> FeedState | None:
        """What has been published there; None where nothing has, or where it was lost."""
        with self._problems():
            self._redis.connection_pool.disconnect()
            self._script = self._redis.script_load(_SCRIPT)
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(self._keys.position)
                pipeline.hgetall(self._keys.instruments)
                pipeline.hgetall(self._keys.traded)
                position, instruments, traded = pipeline.execute()
        return None if position is None else self._state(position, instruments, traded)

    def publish(
        self,
        before: FeedState | None,
        after: FeedState,
        hashes: Sequence[Hash],
        entries: Sequence[Entry],
    ) -> Published:
        """`before` is what Redis must hold."""
        with self._problems():
            outcome, *found = self._redis.evalsha(
                self._script,
                2,
                self._keys.position,
                self._keys.alive,
                before.position if before else "",
                after.position,
                limits.FEED_ALIVE_EXPIRY_S * 1_000,
                _packed(hashes),
                _packed((one.key, one.id, one.kept, one.now_key, one.fields) for one in entries),
            )
        if outcome == b"moved":
            raise MarketDataUnavailable(
                "moved",
                f"Redis at {self._where} holds market data up to {found[0].decode() or 'nothing'}, "
                f"not up to {before.position if before else 'nothing'} as it did before",
            )
        added, repeated, refused, *refusals = found
        return Published(added, repeated, refused, tuple(each.decode() for each in refusals))

    def forget(self, streams: Iterable[tuple[str, str]]) -> None:
        """Removes streams and what they show as now: (symbol, kind) each."""
        names = [
            key
            for symbol, kind in streams
            for key in (self._keys.stream(symbol, kind), self._keys.now(symbol, kind))
        ]
        if names:
            with self._problems():
                self._redis.unlink(*names)

    def close(self) -> None:
        self._redis.close()

    def _state(
        self, position: bytes, instruments: Mapping[bytes, bytes], traded: Mapping[bytes, bytes]
    ) -> FeedState:
        try:
            seq, ts_ns = map(int, position.split())
            statuses = {
                int(number): msgspec.json.decode(status, type=InstrumentStatus)
                for number, status in instruments.items()
            }
            newest = {int(number): int(last) for number, last in traded.items()}
        except (ValueError, msgspec.MsgspecError) as error:
            raise MarketDataUnavailable(
                "unreadable",
                f"what Redis at {self._where} holds under {self._keys.prefix}* can't be continued "
                f"({error}): delete those keys, and it goes on by itself",
            ) from error
        return FeedState(seq, ts_ns, statuses, newest)

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise MarketDataUnavailable(
                _reason(error), f"Redis at {self._where}: {error}"
            ) from error


def _packed(rows: Iterable[Sequence[Any]]) -> bytes:
    """MessagePack as Redis' Lua reads it: it knows strings, and not yet the type for bytes."""
    return msgspec.msgpack.encode([tuple(map(_packable, row)) for row in rows])


def _packable(value: Any) -> Any:
    if isinstance(value, bytes):
        return msgspec.Raw(_STRING.pack(_STRING_32, len(value)) + value)
    return tuple(map(_packable, value)) if isinstance(value, tuple) else value


def _reason(error: Exception) -> str:
    if isinstance(error, RedisTimeoutError):
        return "slow"
    # redis-py takes the first word off some answers and makes it the error's name.
    told = f"{type(error).__name__} {error}".upper().replace("ERROR", "")
    for word, reason in (*_REASONS.items(), ("OUTOFMEMORY", "full"), ("BUSYLOADING", "loading")):
        if word in told:
            return reason
    return "unreachable" if isinstance(error, RedisConnectionError | OSError) else "refused"
