"""Captures are read from the real Redis; what is missing among them is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from sandbox_config import CONFIG

from shadow.capture import CAPTURE_STREAM, Capture, Outcome, encode_batch, encode_closing
from shadow.captures import Gap, RedisCaptures, Sequences
from shadow.errors import CapturesUnavailable
from shadow.exchanges import Exchanges, Kind
from shadow.legacy.convert import scales


def capture(number: int, worker: str = "w") -> Capture:
    return Capture(
        worker=worker,
        number=number,
        action="place",
        method="POST",
        target="/api/v1/orders",
        path_params={},
        content_type="application/json",
        request_body=b"{}",
        account=7,
        request_id="r",
        outcome=Outcome.ANSWERED,
        status=201,
        response_body=b"{}",
        sent_mono_ns=1,
        answered_mono_ns=2,
        sent_at_ns=3,
    )


def batch(first: int, last: int, worker: str = "w") -> dict[bytes, bytes]:
    return encode_batch([capture(number, worker) for number in range(first, last + 1)])


def numbers(sequences: Sequences, fields: dict[bytes, bytes]) -> list[int]:
    return [one.number for one in sequences.take(fields).captures]


def test_consecutive_batches_have_no_gap() -> None:
    sequences = Sequences({})
    assert numbers(sequences, batch(1, 3)) == [1, 2, 3]
    assert sequences.take(batch(4, 5)).gaps == ()
    assert sequences.expected() == {"w": 6}


def test_a_skipped_number_is_a_gap() -> None:
    sequences = Sequences({"w": 4})
    assert sequences.take(batch(7, 8)).gaps == (Gap("w", 4, 6),)


def test_a_worker_that_begins_late_has_lost_its_beginning() -> None:
    assert Sequences({}).take(batch(3, 3)).gaps == (Gap("w", 1, 2),)


def test_workers_are_counted_apart() -> None:
    sequences = Sequences({})
    assert sequences.take(batch(1, 2, "a")).gaps == sequences.take(batch(1, 1, "b")).gaps == ()


def test_what_was_taken_before_is_left_out() -> None:
    sequences = Sequences({"w": 3})
    assert numbers(sequences, batch(1, 4)) == [3, 4]
    assert numbers(sequences, batch(1, 4)) == []
    assert sequences.expected() == {"w": 5}


def test_an_entry_from_before_the_beginning_tells_where_its_worker_stands() -> None:
    sequences = Sequences({})
    sequences.learn(batch(8, 9))  # newest first
    sequences.learn(batch(1, 7))
    assert sequences.take(batch(10, 10)).gaps == ()


@pytest.mark.parametrize(
    "change",
    [
        {b"batch": b"\xc1"},
        {b"batch": msgspec.msgpack.encode([capture(1)])},  # one of two
        {b"batch": msgspec.msgpack.encode([capture(1), capture(3)])},
        {b"batch": msgspec.msgpack.encode([capture(1), capture(2, "other")])},
    ],
)
def test_an_entry_that_does_not_hold_what_it_says_is_a_gap(change: dict[bytes, bytes]) -> None:
    sequences = Sequences({})
    taken = sequences.take(batch(1, 2) | change)
    assert taken.captures == ()
    assert taken.gaps == (Gap("w", 1, 2),)
    assert sequences.take(batch(3, 3)).gaps == ()


@pytest.mark.parametrize(
    "fields",
    [{}, {b"worker": b"\xff", b"first": b"1", b"count": b"1"}, {b"worker": b"w", b"first": b"x"}],
)
def test_an_entry_without_numbers_shows_as_a_gap_of_the_next_one(
    fields: dict[bytes, bytes],
) -> None:
    sequences = Sequences({"w": 1})
    assert sequences.take(fields) == ((), ())
    assert sequences.take(batch(2, 2)).gaps == (Gap("w", 1, 1),)


def test_a_sequence_that_is_closed_shows_what_never_came() -> None:
    sequences = Sequences({"w": 4})
    assert sequences.take(encode_closing("w", 9)) == ((), (Gap("w", 4, 9),))
    assert sequences.take(encode_closing("w", 9)) == ((), ())  # it may come twice


def test_a_worker_of_which_nothing_arrived_but_its_end_has_lost_everything() -> None:
    assert Sequences({}).take(encode_closing("w", 3)).gaps == (Gap("w", 1, 3),)
    assert Sequences({}).take(encode_closing("w", 0)).gaps == ()


def test_a_closing_entry_that_is_damaged_still_closes() -> None:
    sequences = Sequences({"w": 4})
    taken = sequences.take(encode_closing("w", 5) | {b"batch": b"\xc1"})
    assert taken == ((), (Gap("w", 4, 5),))


def test_what_comes_again_after_the_end_is_neither_new_nor_lost() -> None:
    sequences = Sequences({})
    sequences.take(batch(1, 3))
    sequences.take(encode_closing("w", 3))
    assert sequences.take(batch(2, 3)) == ((), ())
    assert sequences.take(encode_closing("w", 3)) == ((), ())
    assert sequences.take(batch(2, 3)) == ((), ())
    learned = Sequences({})
    learned.learn(encode_closing("w", 3))
    learned.learn(batch(1, 3))
    assert learned.take(batch(2, 3)) == ((), ())


def test_closed_sequences_are_forgotten_before_those_that_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shadow.captures.CAPTURE_WORKERS_MAX", 3)
    sequences = Sequences({})
    for worker in ("lives", "a", "b"):
        sequences.take(batch(1, 3, worker))
    sequences.take(encode_closing("b", 3))
    sequences.take(batch(1, 1, "c"))
    assert sequences.expected() == {"lives": 4, "a": 4, "c": 2}
    sequences.take(batch(4, 4, "lives"))
    sequences.take(batch(1, 1, "d"))
    assert sequences.expected() == {"lives": 5, "c": 2, "d": 2}


@pytest.mark.parametrize(
    ("action", "kind"), [("place", Kind.PLACE_UNKNOWN), ("cancel", Kind.CANCEL_UNKNOWN)]
)
def test_what_became_of_a_dead_worker_s_request_is_not_guessed(action: str, kind: Kind) -> None:
    exchanges = Exchanges(CONFIG.mapping, scales(CONFIG.instruments))
    given = capture(1)
    lost = msgspec.structs.replace(
        given,
        action=action,
        method="POST" if action == "place" else "DELETE",
        target="/api/v1/orders" + ("" if action == "place" else "/11"),
        path_params={} if action == "place" else {"id": "11"},
        outcome=Outcome.WORKER_LOST,
        status=0,
        response_body=b"",
        answered_mono_ns=0,
    )
    assert [told.kind for told in exchanges.read(lost)] == [kind]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 3))
def test_whatever_is_dropped_captures_and_gaps_make_up_all_numbers(
    arrives: list[bool], twice: int
) -> None:
    sequences = Sequences({})
    seen: list[int] = []
    for number, one in enumerate([*arrives, True], start=1):
        for _ in range(1 + (twice if one else 0)):
            if one:
                taken = sequences.take(batch(number, number))
                seen.extend(n for gap in taken.gaps for n in range(gap.first, gap.last + 1))
                seen.extend(capture.number for capture in taken.captures)
    assert seen == list(range(1, len(arrives) + 2))


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), max_size=12))
def test_whatever_comes_before_the_end_all_numbers_are_told_once(
    last: int, spans: list[tuple[int, int]]
) -> None:
    """Batches that overlap, come twice, or never: the closing entry settles the rest."""
    sequences = Sequences({})
    seen: list[int] = []
    entries = [batch(a, min(a + n, last)) for a, n in sorted(spans) if a <= last]
    for fields in [*entries, encode_closing("w", last), *entries]:
        taken = sequences.take(fields)
        seen.extend(n for gap in taken.gaps for n in range(gap.first, gap.last + 1))
        seen.extend(capture.number for capture in taken.captures)
    assert seen == list(range(1, last + 1))


def _with(url: str, use: Callable[[RedisCaptures], Awaitable[None]]) -> None:
    async def main() -> None:
        captures = RedisCaptures(url)
        try:
            await use(captures)
        finally:
            await captures.close()

    asyncio.run(main())


def test_entries_are_read_in_order_from_where_one_stands(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as writer:
        ids = [writer.xadd(CAPTURE_STREAM, batch(n, n)).decode() for n in (1, 2, 3)]

    async def use(captures: RedisCaptures) -> None:
        entries = await captures.read("0-0", 2, 10)
        assert [entry.id for entry in entries] == ids[:2]
        assert Sequences({}).take(entries[0].fields).captures == (capture(1),)
        assert [entry.id for entry in await captures.read(ids[1], 10, 10)] == ids[2:]
        assert await captures.read(ids[2], 10, 10) == []
        assert [entry.id for entry in await captures.newest(2)] == ids[:0:-1]

    _with(redis_url, use)


def test_a_reader_that_waits_gets_what_comes(redis_url: str) -> None:
    async def use(captures: RedisCaptures) -> None:
        waiting = asyncio.create_task(captures.read("0-0", 10, 5_000))
        await asyncio.sleep(0)
        with redis.Redis.from_url(redis_url) as writer:
            await asyncio.to_thread(writer.xadd, CAPTURE_STREAM, batch(1, 1))
        assert len(await waiting) == 1

    _with(redis_url, use)


def test_a_redis_that_is_away_is_named() -> None:
    async def use(captures: RedisCaptures) -> None:
        with pytest.raises(CapturesUnavailable, match=r"127\.0\.0\.1:1/0"):
            await captures.read("0-0", 1, 10)
        with pytest.raises(CapturesUnavailable):
            await captures.newest(1)

    _with("redis://user:secret@127.0.0.1:1/0", use)


def test_a_password_is_never_told() -> None:
    async def use(captures: RedisCaptures) -> None:
        with pytest.raises(CapturesUnavailable) as error:
            await captures.read("0-0", 1, 10)
        assert "secret" not in str(error.value)

    _with("redis://user:secret@127.0.0.1:1/0", use)
