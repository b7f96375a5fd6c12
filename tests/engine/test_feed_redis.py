"""One step of publishing, against a real Redis: all of it or nothing, and never behind a hole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from bridge.sandbox.servers import EmbeddedRedis
from engine import limits
from engine.errors import MarketDataUnavailable
from engine.feed import Entry, FeedState, Keys, state_hashes
from engine.feed_redis import RedisOutlet
from engine.feed_status import InstrumentStatus
from engine.types import Mode

KEYS = Keys(1)
STATUS = InstrumentStatus(instrument=7, name="BTC-USD", mode=Mode.LIVE, epoch=3)


@pytest.fixture
def outlet(redis_url: str) -> Iterator[RedisOutlet]:
    one = RedisOutlet(redis_url, KEYS)
    yield one
    one.close()


@pytest.fixture
def direct(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as connection:
        yield connection
        connection.config_set("maxmemory", 0)


def state(seq: int) -> FeedState:
    return FeedState(seq, seq * 10, {7: STATUS}, {7: seq})


def entry(seq: int, *, kind: str = "trades", now: bool = False) -> Entry:
    return Entry(
        key=KEYS.stream("BTC-USD", kind),
        id=f"3-{seq}",
        kept=10_000,
        now_key=KEYS.now("BTC-USD", kind) if now else "",
        fields=("seq", str(seq), "levels", bytes(range(256))),
    )


def publish(outlet: RedisOutlet, before: FeedState | None, after: FeedState, *entries: Entry):
    hashes = state_hashes([STATUS], after.traded, KEYS)
    return outlet.publish(before, after, hashes, entries)


def ids(direct: redis.Redis, kind: str = "trades") -> list[str]:
    return [id_.decode() for id_, _ in direct.xrange(KEYS.stream("BTC-USD", kind))]


def test_what_is_published_is_there_and_is_found_again(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    assert outlet.open() is None
    done = publish(outlet, None, state(5), entry(4), entry(5), entry(5, kind="depth", now=True))
    assert done == (3, 0, 0, ())
    assert outlet.open() == state(5)
    assert direct.xrange(KEYS.stream("BTC-USD", "trades"), count=1) == [
        (b"3-4", {b"seq": b"4", b"levels": bytes(range(256))})
    ]
    assert direct.hgetall(KEYS.now("BTC-USD", "depth")) == {
        b"id": b"3-5",
        b"seq": b"5",
        b"levels": bytes(range(256)),
    }
    assert direct.get(KEYS.alive) == b"5 50"
    assert 0 < direct.pttl(KEYS.alive) <= limits.FEED_ALIVE_EXPIRY_S * 1_000


def test_a_step_is_only_taken_from_the_position_that_redis_holds(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    outlet.open()
    publish(outlet, None, state(5), entry(5))
    for wrong in (None, state(4), state(6), state(5)._replace(ts_ns=51)):
        with pytest.raises(MarketDataUnavailable, match="not up to") as caught:
            publish(outlet, wrong, state(9), entry(9))
        assert caught.value.reason == "moved"
    assert ids(direct) == ["3-5"]
    assert outlet.open() == state(5)


def test_publishing_twice_is_harmless(outlet: RedisOutlet, direct: redis.Redis) -> None:
    """As where the position was lost and the streams were not."""
    outlet.open()
    publish(outlet, None, state(5), entry(3), entry(5))
    direct.delete(KEYS.position)
    assert outlet.open() is None
    done = publish(outlet, None, state(6), entry(3), entry(5), entry(6))
    assert done == (1, 2, 0, ())
    assert ids(direct) == ["3-3", "3-5", "3-6"]


def test_a_full_redis_takes_nothing_of_a_step(outlet: RedisOutlet, direct: redis.Redis) -> None:
    outlet.open()
    publish(outlet, None, state(5), entry(5))
    direct.config_set("maxmemory", 1)
    with pytest.raises(MarketDataUnavailable) as caught:
        publish(outlet, state(5), state(6), entry(6))
    assert caught.value.reason == "full"
    direct.config_set("maxmemory", 0)
    assert outlet.open() == state(5)
    assert publish(outlet, state(5), state(6), entry(6)).added == 1
    assert ids(direct) == ["3-5", "3-6"]


def test_a_replica_that_was_the_master_is_told_apart(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    outlet.open()
    publish(outlet, None, state(5), entry(5))
    direct.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(MarketDataUnavailable) as caught:
            publish(outlet, state(5), state(6), entry(6))
        assert caught.value.reason == "read-only"
    finally:
        direct.replicaof("NO", "ONE")
    assert outlet.open() == state(5)


def test_a_key_that_is_no_stream_keeps_nothing_else_from_being_published(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    outlet.open()
    direct.set(KEYS.stream("BTC-USD", "trades"), "mine")
    direct.set(KEYS.now("BTC-USD", "top"), "mine")
    many = [entry(seq) for seq in range(1, 31)]
    done = publish(outlet, None, state(30), *many, entry(30, kind="top", now=True))
    assert (done.added, done.refused, len(done.refusals)) == (1, 31, 10)
    assert done.refusals[0].startswith("railswitch:market:1:BTC-USD:trades: WRONGTYPE")
    assert ids(direct, "top") == ["3-30"]


@pytest.mark.parametrize(
    ("key", "value"),
    [(KEYS.position, "what"), (KEYS.instruments, {"7": "{}"}), (KEYS.traded, {"7": "x"})],
)
def test_what_another_version_wrote_is_left_alone(
    outlet: RedisOutlet, direct: redis.Redis, key: str, value: str | dict[str, str]
) -> None:
    outlet.open()
    publish(outlet, None, state(5))
    if isinstance(value, str):
        direct.set(key, value)
    else:
        direct.hset(key, mapping=value)
    with pytest.raises(MarketDataUnavailable, match=r"delete those keys") as caught:
        outlet.open()
    assert caught.value.reason == "unreadable"


def test_a_script_that_redis_has_forgotten_is_loaded_by_the_next_opening(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    outlet.open()
    direct.script_flush()
    with pytest.raises(MarketDataUnavailable) as caught:
        publish(outlet, None, state(1))
    assert caught.value.reason == "refused"
    outlet.open()
    publish(outlet, None, state(1))


def test_streams_are_bounded(outlet: RedisOutlet, direct: redis.Redis) -> None:
    outlet.open()
    many = [msgspec.structs.replace(entry(seq), kept=100) for seq in range(1, 2_001)]
    publish(outlet, None, state(2_000), *many)
    assert ids(direct)[-1] == "3-2000"
    assert 100 <= len(ids(direct)) <= 300


def test_what_is_not_published_any_more_is_removed(
    outlet: RedisOutlet, direct: redis.Redis
) -> None:
    outlet.open()
    kinds = ("orders", "depth")
    publish(outlet, None, state(5), *(entry(5, kind=kind, now=True) for kind in kinds))
    outlet.forget([("BTC-USD", "orders")])
    outlet.forget([])
    left = {key.decode() for key in direct.scan_iter("*BTC-USD*")}
    assert left == {KEYS.stream("BTC-USD", "depth"), KEYS.now("BTC-USD", "depth")}


def test_a_redis_that_is_away_or_hangs_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent to one that hangs may be executed later: then the position says so."""
    monkeypatch.setattr(limits, "FEED_REDIS_S", 0.3)
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    outlet = RedisOutlet(server.url, KEYS)
    try:
        outlet.open()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(MarketDataUnavailable) as caught:
            publish(outlet, None, state(5), entry(5))
        assert caught.value.reason == "slow"
        os.kill(server.pid, signal.SIGCONT)
        found = outlet.open()
        assert found in (None, state(5))
        publish(outlet, found, state(6), entry(6))
        server.stop()
        with pytest.raises(MarketDataUnavailable) as caught:
            outlet.open()
        assert caught.value.reason == "unreachable"
    finally:
        outlet.close()
        server.stop()
