"""Defects that other matching engines had in what is kept on the disk, or shown too early; each a
test by its name: none of them is here. The others: test_defects.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from command_flow import Flow, Mix
from engine_harness import engine_process, open_market, raw, run
from journal_story import SHARD, Opened
from journal_story import opened as journal_opened
from market_driver import BTC, changed, market_or_skip, new, restore_or_skip
from test_storage_faults import Disk, library

from engine.frame import FRAME_HEADER_BYTES
from engine.limits import COMMAND_STEP_NS
from engine.market import create_market, state_hash
from engine.protocol import MessageType, Query, Reply, packed
from engine.reject import Reason
from engine.snapshotter import take_snapshot
from engine.types import EventKind
from engine.wire import decode_events, decode_order_states, decode_resting_orders

__all__ = ["library"]  # a fixture, used by its name


def frames_of(seed: int, count: int) -> list[tuple[bytes, int]]:
    """Frames as a journal may hold them: much in them is rejected, trades and is canceled then,
    expires or sets off stops.
    """
    market, flow = create_market("python"), Flow(Mix(seed=seed, takers=40, instruments=3))
    frames = [(flow.opening(), flow.ts_ns)]
    market.apply(*frames[0])
    while len(frames) < count:
        commands, ts_ns, _ = flow.batch(market, 20)
        frames.append((commands, max(ts_ns, market.last_ts_ns + COMMAND_STEP_NS)))
        market.apply(*frames[-1])
    return frames


def journalled(opened_journal: Opened, frames: list[tuple[bytes, int]]) -> bytes:
    """Written and applied, as an engine does; the events."""
    events = []
    for commands, ts_ns in frames:
        journal = opened_journal.journal
        framed = bytearray(FRAME_HEADER_BYTES) + commands
        journal.append(framed, first_seq=journal.link.next_seq, ts_ns=ts_ns)
        events.append(opened_journal.market.apply(commands, ts_ns))
    opened_journal.journal.close()
    return b"".join(events)


def test_replay_repeats_what_traded_before_it_was_canceled_and_what_was_rejected(
    tmp_path: Path, implementation: str
) -> None:
    """19: they have sequence numbers, use up references and change books"""
    market_or_skip(implementation)
    first = journal_opened(tmp_path, implementation)
    events = list(decode_events(journalled(first, frames_of(19, 60))))
    again = journal_opened(tmp_path, implementation)
    again.journal.close()
    traded = {(event.seq) for event in events if event.kind is EventKind.FILL}
    canceled = {event.seq for event in events if event.reason is Reason.UNFILLED}
    assert len(traded & canceled) > 10
    assert sum(event.kind is EventKind.REJECTED for event in events) > 50
    assert again.market.last_seq == len({event.seq for event in events})
    assert again.hash == first.hash


def test_counters_are_still_what_the_books_hold_after_days_and_restarts(
    implementation: str,
) -> None:
    """20"""
    market = market_or_skip(implementation)
    flow = Flow(Mix(seed=20, instruments=3, step_ms=3_600_000, admin=10))
    market.apply(flow.opening(), flow.ts_ns)
    for n in range(80):
        commands, ts_ns, rules = flow.batch(market, 50)
        market.apply(commands, ts_ns, rules=rules)
        if n % 20 == 19:
            market = restore_or_skip(implementation, market.snapshot())
        counted = {account: [0, 0] for account in range(1, 5)}
        for state in market.instruments():
            resting = list(decode_resting_orders(market.orders(state.instrument)))
            waiting = list(decode_order_states(market.stops(state.instrument)))
            assert (state.open_orders, state.pending_stops) == (len(resting), len(waiting))
            for order in (*resting, *waiting):
                counts = counted.setdefault(order.account, [0, 0])
                counts[0] += 1
                counts[1] += order.leaves_lots
        for account, counts in counted.items():
            told = market.account(account)
            assert [told.open_orders, told.open_qty] == counts, account
    assert market.last_ts_ns > (flow.mix.start_s + 2 * 86_400) * 10**9


def test_an_engine_opens_its_own_journal_again_and_again(
    tmp_path: Path, implementation: str
) -> None:
    """21: over several segments, whatever it wrote before"""
    market_or_skip(implementation)
    frames = frames_of(21, 90)
    expected = create_market("python")
    for start in range(0, 90, 15):
        some = frames[start : start + 15]
        for commands, ts_ns in some:
            expected.apply(commands, ts_ns)
        one = journal_opened(tmp_path, implementation)
        assert len(one.frames) == start
        journalled(one, some)
        assert one.hash == state_hash(expected)
    assert len(list(tmp_path.glob("*.journal"))) > 5


def test_a_snapshot_and_the_journal_behind_it_apply_nothing_twice(
    tmp_path: Path, implementation: str
) -> None:
    """22: a crash at any moment between a snapshot and the removal of what it holds"""
    market_or_skip(implementation)
    frames = frames_of(22, 90)
    first = journal_opened(tmp_path, implementation)
    journalled(first, frames[:60])
    assert take_snapshot(tmp_path, shard=SHARD, implementation=implementation)
    snapshots = list(tmp_path.glob("*.snapshot"))
    # What a process that dies while it writes the next one leaves behind.
    (tmp_path / f"{10**6:020d}.snapshot-part").write_bytes(snapshots[0].read_bytes()[:-7])
    again = journal_opened(tmp_path, implementation)
    assert again.hash == first.hash
    assert [one.seq for one in again.snapshots] == [int(snapshots[0].stem) - 1]
    assert all(frame.first_seq > again.snapshots[0].seq for frame in again.frames)
    assert len(again.frames) < 60
    journalled(again, frames[60:])
    last = journal_opened(tmp_path, implementation)
    last.journal.close()
    expected = create_market(implementation)
    for commands, ts_ns in frames:
        expected.apply(commands, ts_ns)
    assert last.hash == state_hash(expected)


def test_neither_reasons_nor_books_can_be_seen_before_they_are_durable(
    tmp_path: Path, library: Path, implementation: str
) -> None:
    """23: the disk fails from the last but one frame on, so that the rest is never durable"""
    market_or_skip(implementation)
    disk = Disk(tmp_path, library, implementation)
    before = disk.engine("sync", "eio")

    async def story(port: int) -> list[tuple[int, bytes]]:
        await open_market(port)
        async with raw(port) as one:
            await one.login()
            await one.commands(changed(new(1), ref=1))
            await one.answers(1)
            disk.fail()
            await one.commands(changed(new(1), ref=2), changed(new(2), ref=3))
            query = packed(MessageType.QUERY, Query(id=7, what="book", instrument=BTC))
            await one.send(query)
            seen = []
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    seen.append(await one.receive())
            return seen

    with engine_process(disk.directory, before=before, implementation=implementation) as engine:
        assert engine.port, engine.end()
        seen = run(story(engine.port))
        code, said = engine.end()
    assert code == 1
    assert said.startswith("JournalFailed")
    for kind, payload in seen:
        assert kind in (MessageType.REPLY, MessageType.REJECTED), (kind, payload)
        if kind == MessageType.REPLY:
            book = msgspec.msgpack.decode(payload, type=Reply).book
            assert book is not None
            assert [order.order_id for order in decode_resting_orders(book.orders)] == [1]
