"""The tail: every event from any sequence number on, without gap or repeat."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from engine_harness import Raw, open_market, orders, raw, run, service, started, until
from market_driver import new

from engine import limits
from engine.client import EngineClient
from engine.errors import Disconnected
from engine.follow import TailBatch
from engine.protocol import SUBSCRIBE, MessageType, RejectCode, message
from engine.tail import TailFeed, TailFrame, cut
from engine.types import Event, Role
from engine.wire import decode_events


async def subscribed(port: int, from_seq: int, *, receive_bytes: int = 0) -> Raw:
    one = await Raw.connect(port, receive_bytes=receive_bytes)
    await one.login("reader", Role.READ_ONLY, observe=True)
    await one.send(message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(from_seq)))
    return one


async def followed(one: Raw, last_seq: int) -> list[tuple[int, int, int, list[Event]]]:
    frames = [await one.tail()]
    while frames[-1][1] < last_seq:
        frames.append(await one.tail())
    return frames


async def traded(port: int, frames: int, *, name: str = "proxy-0", first_id: int = 1) -> int:
    """So many frames of four orders; returns the journal's end."""
    async with started(port, name) as one:
        for n in range(frames):
            await one.send(orders(first_id + 4 * n, 4), timeout_s=10)
        return one.head_seq


def test_the_tail_is_every_event_in_order_with_its_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            follower = await subscribed(port, 1)
            async with started(port) as one:
                answers = [
                    answer
                    for n in range(20)
                    for answer in await one.send(orders(1 + 4 * n, 4), timeout_s=10)
                ]
            frames = await followed(follower, answers[-1].seq)
            follower.close()
            assert [frame[0] for frame in frames] == [1, *(frame[1] + 1 for frame in frames[:-1])]
            events = [event for frame in frames for event in frame[3]]
            assert [event for answer in answers for event in answer.events] == [
                event for event in events if event.seq >= answers[0].seq
            ]
            times = {
                seq: ts_ns + 1_000 * (seq - first)
                for first, last, ts_ns, _ in frames
                for seq in range(first, last + 1)
            }
            assert [times[answer.seq] for answer in answers] == [one.at_ns for one in answers]

    run(story())


def test_a_tail_may_begin_inside_a_frame(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            head = await traded(port, 3)
            whole = await subscribed(port, 1)
            frames = await followed(whole, head)
            whole.close()
            first, last, ts_ns, events = frames[-1]
            assert last - first == 3
            part = await subscribed(port, first + 2)
            assert await part.tail() == (
                first + 2,
                last,
                ts_ns + 2_000,
                [event for event in events if event.seq >= first + 2],
            )
            part.close()

    run(story())


@pytest.mark.parametrize("from_seq", [0, 1, 2, 50, 101, 202])
def test_a_tail_from_before_memory_is_replayed_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_seq: int
) -> None:
    """Before and after a restart it is the same, and goes on into what happens next."""
    monkeypatch.setattr(limits, "TAIL_RING_BYTES_MAX", 5_000)
    monkeypatch.setattr(limits, "REPLAY_STEP_COMMANDS", 30)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            live = await subscribed(port, max(from_seq, 1)) if from_seq < 4 else None
            head = await traded(port, 60)
            late = await subscribed(port, from_seq)
            frames = await followed(late, head)
            if live is not None:
                assert await followed(live, head) == frames
                live.close()
            late.close()
        async with service(tmp_path) as port:
            again = await subscribed(port, from_seq)
            assert await followed(again, head) == frames
            assert frames[0][0] == max(from_seq, 1)
            newest = await traded(port, 2, first_id=1_000)
            more = await followed(again, newest)
            assert [frame[0] for frame in more] == [head + 1, *(one[1] + 1 for one in more[:-1])]
            again.close()

    run(story())


def test_a_tail_that_falls_behind_memory_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAIL_RING_BYTES_MAX", 200_000)
    monkeypatch.setattr(limits, "TAIL_BUFFER_BYTES_MAX", 10_000)

    async def story() -> None:
        async with service(tmp_path) as port:
            follower = await subscribed(port, 1, receive_bytes=4_096)
            follower.reader._transport.pause_reading()  # type: ignore[attr-defined]
            async with started(port) as one:
                ref = 1
                status = await one.status()
                while status.tails:
                    batch = [new(n, instrument=9) for n in range(ref, ref + 4_000)]
                    ref += 4_000
                    await one.send(batch, timeout_s=10)
                    status = await one.status()
                    assert ref < 10**6, "a reader this slow was waited for"
            follower.reader._transport.resume_reading()  # type: ignore[attr-defined]
            assert (await follower.rejected()).code == RejectCode.SLOW

    run(story())


def test_a_tail_from_beyond_the_end_is_refused(tmp_path: Path) -> None:
    """Whoever asks has seen what this journal does not hold: it is another one, or was cut."""

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            one = await subscribed(port, 4)  # the next one: that is the head
            two = await subscribed(port, 5)
            rejected = await two.rejected()
            assert rejected.code == RejectCode.AHEAD
            assert "the journal ends at 3" in rejected.reason
            one.close()
            async with started(port) as client:
                with pytest.raises(Disconnected, match="the journal ends at"):
                    async for _ in client.tail(1_000):
                        pass

    run(story())


def test_an_observer_sends_no_commands_and_takes_nothing_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            async with started(port) as one, raw(port) as observer:
                accepted = await observer.login("proxy-0", observe=True)
                assert (accepted.session, accepted.head_seq) == (0, 1)
                await observer.commands(new(1, ref=1))
                assert "observer" in (await observer.rejected()).reason
                assert (await one.status()).connected == ("proxy-0",)

    run(story())


def test_a_client_follows_over_restarts_without_gap_or_repeat(tmp_path: Path) -> None:
    async def story() -> None:
        batches: list[TailBatch] = []
        follower: EngineClient | None = None
        following: asyncio.Task[None] | None = None

        async def follow(one: EngineClient) -> None:
            async for batch in one.tail(1):
                batches.append(batch)

        port = 0
        for round_ in range(3):
            async with service(tmp_path, port=port) as port:
                if follower is None:
                    await open_market(port)
                    follower = EngineClient(
                        host="127.0.0.1", port=port, name="write-back", key="key-of-READ_ONLY"
                    )
                    await follower.start()
                    following = asyncio.ensure_future(follow(follower))
                head = await traded(port, 10, first_id=1 + 100 * round_)
                await until(lambda h=head: batches and batches[-1].last_seq >= h, "all is followed")
        assert follower is not None
        assert following is not None
        await follower.close()
        await following
        assert batches[0].first_seq == 1
        for left, right in pairwise(batches):
            assert right.first_seq == left.last_seq + 1
        seqs = [event.seq for batch in batches for event in decode_events(batch.events)]
        assert sorted(set(seqs)) == list(range(1, batches[-1].last_seq + 1))

    run(story())


def test_whoever_iterates_slowly_is_not_read_ahead_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAIL_AHEAD_BYTES_MAX", 2_000)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            head = await traded(port, 30)
            async with started(port, "reader", Role.READ_ONLY) as one:
                expected = 1
                async for batch in one.tail(1):
                    assert batch.first_seq == expected
                    expected = batch.last_seq + 1
                    await asyncio.sleep(0)
                    (follower,) = one._followers
                    assert follower._bytes < 2**18 + 2_000
                    if batch.last_seq == head:
                        break

    run(story())


def test_what_a_snapshot_stands_for_is_not_in_memory(tmp_path: Path) -> None:
    """It is replayed for whoever asks; the head is known before the first frame."""
    feed = TailFeed(tmp_path, shard=1, implementation="python")
    feed.begin_after(10)
    assert feed.durable_seq == 10
    assert not feed.ring.covers(10)
    assert feed.ring.covers(11)
    feed.append(TailFrame(11, 12, 5_000, b""))
    assert not feed.ring.covers(10)
    feed.close()


def test_a_frame_is_cut_between_commands() -> None:
    frame = TailFrame(10, 12, 5_000, b"")
    assert cut(frame, 9) is frame
    assert cut(frame, 10) is frame
    assert cut(frame, 12)[:3] == (12, 12, 7_000)
