"""What is published as market data, and how a reader knows what is missing: without Redis."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine import feed_plan, feed_publisher, feed_redis
from engine.errors import MarketDataUnavailable
from engine.feed import (
    NOTHING,
    TRADE_DTYPE,
    Digest,
    FeedState,
    Keys,
    Shown,
    View,
    Views,
    batch,
    book_entries,
    changed_instruments,
    digest,
    gap_entries,
    status_entries,
    trade_entries,
)
from engine.feed_plan import Plan, plan
from engine.feed_reader import Chain, Missed, Trades
from engine.feed_status import InstrumentStatus
from engine.tail import TailFrame
from engine.types import Event, EventFlag, EventKind, Mode, Side
from engine.wire import DEPTH_DTYPE, DISPLAYED_ORDER_DTYPE, encode_event, instrument_command

BTC, ETH = 1, 2
KEYS = Keys(1)


def frame(first_seq: int, commands: list[list[Event]], *, ts_ns: int = 0) -> TailFrame:
    """One journal frame: the events of each of its commands."""
    events = b"".join(
        encode_event(msgspec.structs.replace(event, seq=first_seq + n, sub=sub))
        for n, answer in enumerate(commands)
        for sub, event in enumerate(answer)
    )
    return TailFrame(first_seq, first_seq + len(commands) - 1, ts_ns or first_seq * 10**6, events)


def fill(instrument: int = BTC, *, price: int = 100, lots: int = 5, side: int = Side.BUY) -> Event:
    return Event(
        kind=EventKind.FILL,
        side=side,
        instrument=instrument,
        price_ticks=price,
        qty_lots=lots,
        flags=EventFlag.LIVE,
    )


def accepted(instrument: int = BTC) -> Event:
    return Event(kind=EventKind.ACCEPTED, side=Side.BUY, instrument=instrument)


def moved(mode: Mode, epoch: int, instrument: int = BTC) -> Event:
    return Event(kind=EventKind.MODE, instrument=instrument, contra_id=mode, leaves_lots=epoch)


def state(seq: int = 0, *, epoch: int = 1, traded: dict[int, int] | None = None) -> FeedState:
    statuses = {
        number: InstrumentStatus(
            instrument=number, name=name, mode=Mode.LIVE, epoch=epoch, price_ticks_max=1_000
        )
        for number, name in ((BTC, "BTC-USD"), (ETH, "ETH-USD"))
    }
    return FeedState(seq, seq * 10, statuses, traded or {})


def rows(digested: Digest, at: int = 0) -> list[tuple[int, ...]]:
    return np.frombuffer(digested.trades[at].records, TRADE_DTYPE).tolist()


# --- trades


def test_each_fill_is_one_trade_of_its_instrument_with_its_time() -> None:
    frames = [
        frame(11, [[accepted()], [accepted(), fill(price=99, lots=1), fill(price=100, lots=2)]]),
        frame(13, [[accepted(ETH), fill(ETH, price=7, lots=3, side=Side.SELL)], [fill(lots=9)]]),
    ]
    found = digest(frames, state(10, traded={ETH: 4}))
    assert [one[:4] for one in found.trades] == [(BTC, 1, 0, 14), (ETH, 1, 4, 13)]
    assert rows(found, 0) == [
        (12, 11_001_000, 99, 1, 1, Side.BUY, EventFlag.LIVE, 0),
        (12, 11_001_000, 100, 2, 2, Side.BUY, EventFlag.LIVE, 0),
        (14, 13_001_000, 100, 9, 0, Side.BUY, EventFlag.LIVE, 0),
    ]
    assert rows(found, 1) == [(13, 13_000_000, 7, 3, 1, Side.SELL, EventFlag.LIVE, 0)]
    assert found.state.traded == {BTC: 14, ETH: 13}
    assert (found.state.seq, found.state.ts_ns) == (14, 13_001_000)


def test_only_fills_are_trades() -> None:
    kinds = [kind for kind in EventKind if kind.value < 16 and kind is not EventKind.FILL]
    found = digest([frame(1, [[Event(kind=kind, instrument=BTC)] for kind in kinds])], state())
    assert found.trades == ()
    assert found.statuses == ()
    assert found.state.seq == len(kinds)


def test_a_trade_belongs_to_the_epoch_in_which_it_happened() -> None:
    frames = [
        frame(1, [[fill(lots=1)], [moved(Mode.CLOSED, 2)], [moved(Mode.LIVE, 3)], [fill(lots=2)]]),
        frame(5, [[fill(lots=3)], [moved(Mode.SHADOW, 4, ETH)], [fill(ETH)]]),
    ]
    found = digest(frames, state())
    assert [one[:4] for one in found.trades] == [(BTC, 1, 0, 1), (BTC, 3, 1, 5), (ETH, 4, 0, 7)]
    assert [one.epoch for one in found.statuses] == [2, 3, 4]
    ids = [entry.id for entry in trade_entries(found, KEYS, kept=10)]
    assert ids == ["1-1", "3-5", "4-7"]


def test_entries_are_bounded_and_the_trades_of_one_command_stay_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.feed.FEED_ENTRY_TRADES_MAX", 4)
    sizes = [3, 3, 9, 1, 1, 1, 1, 1]
    found = digest([frame(1, [[fill()] * size for size in sizes])], state())
    held = [[row[0] for row in rows(found, at)] for at in range(len(found.trades))]
    assert held == [[1] * 3, [2] * 3, [3] * 9, [4, 5, 6, 7], [8]]
    assert [one.prev_seq for one in found.trades] == [0, 1, 2, 3, 7]
    assert [one.last_seq for one in found.trades] == [1, 2, 3, 7, 8]


def test_the_parts_of_a_batch_do_not_depend_on_how_it_was_cut() -> None:
    frames = [frame(1 + 2 * n, [[fill(lots=n + 1)], [fill(ETH)]]) for n in range(6)]
    whole = digest(frames, state())
    for cut in range(1, 6):
        first = digest(frames[:cut], state())
        second = digest(frames[cut:], first.state)
        assert second.state == whole.state
        for instrument in (BTC, ETH):
            parts = [
                b"".join(one.records for one in found if one.instrument == instrument)
                for found in (whole.trades, first.trades + second.trades)
            ]
            assert parts[0] == parts[1]


# --- status


def test_a_status_follows_the_events_of_its_instrument() -> None:
    name = instrument_command(instrument=3, name="SOL-USD", price_ticks_max=1, qty_lots_max=1)
    defined = Event(
        kind=EventKind.INSTRUMENT,
        instrument=3,
        order_id=name.order_id,
        contra_id=name.account,
        price_ticks=500,
        qty_lots=60,
    )
    kind = EventKind
    events = [
        defined,
        moved(Mode.LIVE, 4, 3),
        Event(kind=kind.TRADING, instrument=3, contra_id=1),
        Event(
            kind=kind.INSTRUMENT_LIMITS,
            instrument=3,
            contra_id=5,
            order_id=10,
            price_ticks=9_000,
            qty_lots=70,
            leaves_lots=3_600,
        ),
        Event(kind=kind.PRICE_BAND, instrument=3, price_ticks=400, leaves_lots=200),
        msgspec.structs.replace(defined, price_ticks=150),
        Event(kind=kind.TRADING, instrument=3, contra_id=0),
        Event(kind=kind.REJECTED, instrument=3),
    ]
    found = digest([frame(21, [[event] for event in events])], NOTHING)
    expected = InstrumentStatus(
        instrument=3,
        name="SOL-USD",
        seq=27,
        mode=Mode.LIVE,
        epoch=4,
        halted=False,
        price_ticks_min=150,
        price_ticks_max=150,
        qty_lots_max=60,
        tick_ticks=5,
        lot_lots=10,
        notional_max=9_000,
        day_end_s=3_600,
    )
    assert found.state.instruments == {3: expected}
    assert [one.seq for one in found.statuses] == list(range(21, 28))
    assert [one.halted for one in found.statuses] == [False, False, *[True] * 4, False]


# --- books


def depth(*levels: tuple[int, int, int, int]) -> bytes:
    return np.array(list(levels), DEPTH_DTYPE).tobytes()


def shown_after(shown: dict[str, Shown], seq: int, view: View) -> dict[str, dict[str, object]]:
    status = state().instruments[view.instrument]
    found = {}
    for entry in book_entries(view, Views(seq, seq * 10, (view,)), status, shown, KEYS):
        assert entry.id == f"1-{seq}"
        assert entry.now_key == f"{entry.key}:now"
        found[entry.key.rpartition(":")[2]] = _pairs(entry.fields)
    return found


def _pairs(fields: tuple[str | bytes, ...]) -> dict[str, object]:
    return {str(name): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


def test_top_and_depth_are_shown_when_they_change_and_only_then() -> None:
    shown: dict[str, Shown] = {}
    bid, ask = (Side.BUY, 99, 5, 2), (Side.SELL, 101, 7, 1)
    first = shown_after(shown, 10, View(BTC, depth(bid, ask), None))
    assert first == {
        "top": {
            "seq": "10",
            "time": "100",
            "prev": "0",
            "bid": "99",
            "bid_lots": "5",
            "bid_orders": "2",
            "ask": "101",
            "ask_lots": "7",
            "ask_orders": "1",
        },
        "depth": {"seq": "10", "time": "100", "prev": "0", "levels": depth(bid, ask)},
    }
    assert shown_after(shown, 11, View(BTC, depth(bid, ask), None)) == {}
    behind = depth(bid, (Side.BUY, 98, 1, 1), ask)
    assert list(shown_after(shown, 12, View(BTC, behind, None))) == ["depth"]
    last = shown_after(shown, 13, View(BTC, depth(bid), None))
    assert (last["top"]["prev"], last["depth"]["prev"]) == ("10", "12")
    assert (last["top"]["bid"], last["top"]["ask"], last["top"]["ask_lots"]) == ("99", "0", "0")


@pytest.mark.parametrize(
    ("levels", "bid", "ask"),
    [((), "0", "0"), (((Side.SELL, 7, 1, 1),), "0", "7"), (((Side.BUY, 7, 1, 1),), "7", "0")],
)
def test_the_top_of_an_empty_side_is_0(
    levels: tuple[tuple[int, int, int, int], ...], bid: str, ask: str
) -> None:
    top = shown_after({}, 1, View(BTC, depth(*levels), None))["top"]
    assert (top["bid"], top["ask"]) == (bid, ask)


def test_depth_by_order_is_a_stream_of_its_own() -> None:
    shown: dict[str, Shown] = {}
    assert list(shown_after(shown, 1, View(BTC, b"", b"x" * 32))) == ["top", "depth", "orders"]
    assert list(shown_after(shown, 2, View(BTC, b"", b"y" * 32))) == ["orders"]


def test_instruments_whose_orders_were_all_rejected_have_not_changed() -> None:
    rejected = Event(kind=EventKind.REJECTED, instrument=ETH)
    assert changed_instruments([frame(1, [[rejected], [accepted()], [fill(), fill()]])]) == [BTC]
    assert changed_instruments([frame(1, [[accepted(ETH)]]), frame(2, [[accepted()]])]) == [1, 2]
    assert changed_instruments([]) == []


def test_a_batch_of_nothing_says_where_it_stands() -> None:
    at = state(9)
    found = batch([], None, at, {}, KEYS, kept=10)
    assert (found.digest.state, found.hashes, found.entries) == (at, (), ())


# --- where publishing begins


def at(seq: int) -> FeedState:
    return FeedState(seq, seq, {}, {})


@pytest.mark.parametrize(
    ("stored", "held", "durable_seq", "unreadable_through", "expected"),
    [
        # Redis has it: go on there, whatever this process remembers
        (at(50), None, 60, -1, Plan(at(50))),
        (at(50), at(55), 60, -1, Plan(at(50))),
        (at(60), None, 60, -1, Plan(at(60))),
        # Redis is empty: from the journal's beginning, while that is near
        (None, None, 0, -1, Plan(NOTHING)),
        (None, at(70), 100, -1, Plan(NOTHING)),
        # or from where this process got to
        (None, at(70), 101, -1, Plan(at(70), 1)),
        (at(20), at(170), 200, -1, Plan(at(170), 21)),
        # or from now on
        (None, None, 101, -1, Plan(None, 1)),
        (at(20), None, 200, -1, Plan(None, 21)),
        (at(20), at(30), 200, -1, Plan(None, 21)),
        # and not from where the journal can't be read any more
        (None, None, 10, 0, Plan(None, 1)),
        (at(5), at(9), 10, 5, Plan(at(9), 6)),
    ],
)
def test_publishing_begins_where_nothing_is_lost_if_that_is_within_reach(
    stored: FeedState | None,
    held: FeedState | None,
    durable_seq: int,
    unreadable_through: int,
    expected: Plan,
) -> None:
    found = plan(
        stored,
        held,
        durable_seq=durable_seq,
        reach=100,
        unreadable_through=unreadable_through,
    )
    assert found == expected


def test_market_data_of_another_journal_is_left_alone() -> None:
    with pytest.raises(MarketDataUnavailable, match="another journal's"):
        plan(at(61), None, durable_seq=60, reach=100)


# --- readers


def entries_of(found: Digest) -> list[tuple[str, dict[str, bytes]]]:
    return [(entry.id, _encoded(entry.fields)) for entry in trade_entries(found, KEYS, kept=10)]


def _encoded(fields: tuple[str | bytes, ...]) -> dict[str, bytes]:
    return {
        name: value if isinstance(value, bytes) else str(value).encode()
        for name, value in _pairs(fields).items()
    }


def seen(chain: Chain, entries: list[tuple[str, dict[str, bytes]]]) -> list[object]:
    """Sequence numbers of the trades, and what was missed."""
    return [
        update.trades["seq"].tolist() if isinstance(update, Trades) else tuple(update)
        for id_, fields in entries
        for update in chain.follow(id_, fields)
    ]


def test_a_reader_sees_each_trade_once_however_often_it_is_published() -> None:
    frames = [frame(n, [[fill(), fill()]]) for n in range(1, 7)]
    first = digest(frames[:2], state())
    second = digest(frames[2:4], first.state)
    chain = Chain("0-0")
    assert seen(chain, entries_of(first) + entries_of(second)) == [[1, 1, 2, 2], [3, 3, 4, 4]]
    # Redis lost the second, and got it again in another cut
    again = digest(frames[2:], first.state)
    assert seen(chain, entries_of(again)) == [[5, 5, 6, 6]]
    assert seen(chain, entries_of(again)) == []


def test_a_reader_notices_what_it_missed() -> None:
    frames = [frame(n, [[fill()]]) for n in range(1, 7)]
    first = digest(frames[:2], state())
    second = digest(frames[2:4], first.state)
    third = digest(frames[4:], second.state)
    chain = Chain("0-0")
    assert seen(chain, entries_of(first) + entries_of(third)) == [[1, 2], (3, 4), [5, 6]]


@pytest.mark.parametrize(
    ("last_seen", "expected"),
    [("1-2", []), ("1-1", [(2, 10)]), ("0-0", [(1, 10)]), ("1-10", [])],
)
def test_a_gap_is_one_for_those_who_have_not_seen_all_before_it(
    last_seen: str, expected: list[object]
) -> None:
    before = state(10, traded={BTC: 2})
    after, (entry,) = gap_entries(before, 1, KEYS, kept=10, is_complete=True)
    chain = Chain(last_seen)
    assert (entry.id, entry.key) == ("1-10", "railswitch:market:1:BTC-USD:trades")
    assert seen(chain, [(entry.id, _encoded(entry.fields))]) == expected
    assert seen(chain, entries_of(digest([frame(11, [[fill()]])], after))) == [[11]]


def test_a_gap_of_unknown_size_is_one_for_every_instrument() -> None:
    after, entries = gap_entries(state(10), 1, KEYS, kept=10, is_complete=False)
    assert len(entries) == 2
    assert after.traded == {BTC: 10, ETH: 10}
    for entry in entries:
        found = seen(Chain("1-8"), [(entry.id, _encoded(entry.fields))])
        assert found == [(9, 10)]
    assert isinstance(next(Chain("0-0").follow("1-10", _encoded(entries[0].fields))), Missed)


# --- what is told to readers in other languages


PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "market-data.md").read_text()


@pytest.mark.parametrize(
    ("title", "layout"),
    [("trade", TRADE_DTYPE), ("level", DEPTH_DTYPE), ("order", DISPLAYED_ORDER_DTYPE)],
)
def test_the_layout_of_each_record_is_documented(title: str, layout: np.dtype[np.void]) -> None:
    table = PAGE.partition(f"| offset | type | {title} |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| (\d+) \| ([ui]\d+) \|", table, re.MULTILINE)
    assert layout.fields is not None
    laid_out = [
        (str(offset), f"{kind.kind}{8 * kind.itemsize}")
        for name, (kind, offset) in sorted(layout.fields.items(), key=lambda each: each[1][1])
        if name != "pad"
    ]
    assert documented == laid_out
    assert f"{layout.itemsize} bytes" in PAGE


def test_every_field_of_a_message_is_documented() -> None:
    described = PAGE.partition("## Fields")[2].partition("## Reading it")[0]
    entries = [
        *status_entries(state().instruments.values(), KEYS),
        *book_entries(View(BTC, b"", b""), Views(1, 1, ()), state().instruments[BTC], {}, KEYS),
    ]
    named = {name for entry in entries for name in _pairs(entry.fields)}
    assert len(named) > 15
    assert [name for name in sorted(named) if f"`{name}`" not in described] == []


def test_every_reason_why_nothing_is_published_is_documented() -> None:
    sources = [Path(module.__file__ or "") for module in (feed_publisher, feed_plan, feed_redis)]
    told = {
        reason
        for source in sources
        for reason in re.findall(
            r'(?:Unavailable|_tell_problem)\(\s*"([\w -]+)"', source.read_text()
        )
    }
    told |= {*feed_redis._REASONS.values(), "slow", "refused", "unreachable", "behind"}
    table = PAGE.partition("| reason |")[2]
    assert {"foreign", "moved", "unreadable", "journal", "defect"} < told
    assert [reason for reason in sorted(told) if f"`{reason}`" not in table] == []
