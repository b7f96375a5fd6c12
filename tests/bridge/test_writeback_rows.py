"""Live events become net row effects; the shadow's become none."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from bridge import writeback_forms as forms
from bridge import writeback_sql
from bridge.errors import WriteBackStopped
from bridge.writeback_rows import (
    ChangedOrder,
    NewFill,
    NewOrder,
    discontinuity,
    has_live_events,
    net_effects,
)
from engine.reject import Reason
from engine.types import Event, EventFlag, EventKind, OrderType, Side, TimeInForce
from engine.wire import encode_event
from shadow.operation import Status

TS_NS = 1_700_000_000_000_000_000
TS_US = TS_NS // 1000


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    first_seq: int
    last_seq: int
    ts_ns: int
    events: bytes


def frame(*events: Event, first_seq: int = 1, last_seq: int = 0, ts_ns: int = TS_NS) -> Frame:
    last_seq = last_seq or max((event.seq for event in events), default=first_seq)
    encoded = b"".join(map(encode_event, events))
    return Frame(first_seq=first_seq, last_seq=last_seq, ts_ns=ts_ns, events=encoded)


def event(kind: EventKind, seq: int, **values: Any) -> Event:
    base = {"instrument": 1, "flags": EventFlag.LIVE, "seq": seq}
    return Event(kind=kind, **{**base, **values})


def accepted(seq: int, order_id: int, qty: int = 10, **values: Any) -> Event:
    base: dict[str, Any] = {
        "side": Side.BUY,
        "ord_type": OrderType.LIMIT,
        "tif": TimeInForce.GTC,
        "price_ticks": 100,
    }
    return event(
        EventKind.ACCEPTED,
        seq,
        **{**base, **values},
        order_id=order_id,
        contra_id=7,
        qty_lots=qty,
        leaves_lots=qty,
    )


def fill(seq: int, sub: int, taker: int, maker: int, qty: int, leaves: int, contra: int) -> Event:
    return event(
        EventKind.FILL,
        seq,
        sub=sub,
        side=Side.SELL,
        order_id=taker,
        contra_id=maker,
        price_ticks=100,
        qty_lots=qty,
        leaves_lots=leaves,
        contra_leaves_lots=contra,
    )


def canceled(seq: int, order_id: int, qty: int, reason: Reason = Reason.BY_REQUEST) -> Event:
    return event(EventKind.CANCELED, seq, order_id=order_id, qty_lots=qty, reason=reason)


def test_an_accepted_order_is_a_new_row_at_its_command_s_own_microsecond() -> None:
    effects = net_effects([frame(accepted(12, 501), first_seq=10)])
    assert effects.new_orders == (
        NewOrder(
            instrument=1,
            order_id=501,
            account=7,
            side=Side.BUY,
            ord_type=OrderType.LIMIT,
            tif=TimeInForce.GTC,
            price_ticks=100,
            qty_lots=10,
            leaves_lots=10,
            status=Status.OPEN,
            created_at_us=TS_US + 2,
            updated_at_us=TS_US + 2,
        ),
    )
    assert effects.changed_orders == ()
    assert effects.fills == ()


def test_a_fill_is_a_row_and_changes_both_orders() -> None:
    effects = net_effects([frame(fill(5, 1, taker=9, maker=8, qty=3, leaves=0, contra=4))])
    assert effects.fills == (
        NewFill(
            seq=5,
            sub=1,
            instrument=1,
            maker_order_id=8,
            taker_order_id=9,
            taker_side=Side.SELL,
            price_ticks=100,
            qty_lots=3,
            at_us=TS_US + 4,
        ),
    )
    changed = [(one.order_id, one.leaves_lots, one.status) for one in effects.changed_orders]
    assert changed == [(8, 4, Status.OPEN), (9, 0, Status.FILLED)]


def test_changes_are_in_the_order_of_ids() -> None:
    effects = net_effects([frame(canceled(1, 30, 1), canceled(2, 10, 1), canceled(3, 20, 1))])
    assert [one.order_id for one in effects.changed_orders] == [10, 20, 30]


def test_an_order_that_lived_within_the_group_is_one_row_as_it_ended() -> None:
    first = frame(accepted(1, 50), last_seq=1)
    second = frame(
        accepted(2, 51, qty=4, side=Side.SELL),
        fill(2, 1, taker=51, maker=50, qty=4, leaves=0, contra=6),
        canceled(3, 50, 6),
        first_seq=2,
        ts_ns=TS_NS + 1_000_000,
    )
    effects = net_effects([first, second])
    assert effects.changed_orders == ()
    assert [(one.order_id, one.leaves_lots, one.status) for one in effects.new_orders] == [
        (50, 6, Status.CANCELED),
        (51, 0, Status.FILLED),
    ]
    assert effects.new_orders[0].created_at_us == TS_US
    assert effects.new_orders[0].updated_at_us == TS_US + 1001


def test_an_immediate_order_s_rest_is_canceled_with_what_was_open() -> None:
    effects = net_effects(
        [
            frame(
                accepted(1, 60, ord_type=OrderType.MARKET, tif=TimeInForce.IOC, price_ticks=0),
                fill(1, 1, taker=60, maker=8, qty=3, leaves=7, contra=0),
                canceled(1, 60, 7, Reason.UNFILLED),
            )
        ]
    )
    order = effects.new_orders[0]
    assert (order.status, order.leaves_lots, order.price_ticks) == (Status.CANCELED, 7, None)
    assert effects.changed_orders == (
        ChangedOrder(
            instrument=1,
            order_id=8,
            leaves_lots=0,
            status=Status.FILLED,
            updated_at_us=TS_US,
            filled_lots=3,
        ),
    )


def test_what_was_traded_within_the_group_adds_up() -> None:
    effects = net_effects(
        [
            frame(
                accepted(1, 50, qty=9),
                fill(2, 1, taker=51, maker=50, qty=4, leaves=0, contra=5),
                fill(3, 1, taker=50, maker=40, qty=2, leaves=3, contra=1),
            )
        ]
    )
    assert [(one.order_id, one.filled_lots) for one in effects.new_orders] == [(50, 6)]
    changed = [(one.order_id, one.filled_lots) for one in effects.changed_orders]
    assert changed == [(40, 2), (51, 4)]
    assert not any(one.is_cut for one in effects.changed_orders)


def test_what_was_taken_off_without_a_fill_is_told() -> None:
    reduced = event(EventKind.REDUCED, 2, order_id=50, qty_lots=4, leaves_lots=6)
    effects = net_effects([frame(accepted(1, 50), reduced)])
    assert [(one.leaves_lots, one.filled_lots, one.is_cut) for one in effects.new_orders] == [
        (6, 0, True)
    ]
    traded = fill(3, 1, taker=9, maker=50, qty=1, leaves=0, contra=5)
    effects = net_effects([frame(reduced, traded)])
    (order,) = (one for one in effects.changed_orders if one.order_id == 50)
    assert (order.leaves_lots, order.filled_lots, order.is_cut) == (5, 1, True)


@pytest.mark.parametrize(
    "kind", [EventKind.REJECTED, EventKind.MODE, EventKind.INSTRUMENT, EventKind.SESSION]
)
def test_other_events_have_no_rows(kind: EventKind) -> None:
    assert net_effects([frame(event(kind, 1, order_id=5))]).rows == 0


def test_what_is_not_live_has_no_effect() -> None:
    shadow = frame(msgspec.structs.replace(accepted(1, 50), flags=EventFlag.LAST))
    live = frame(accepted(1, 50))
    assert net_effects([shadow]).rows == 0
    assert not has_live_events(shadow)
    assert has_live_events(live)
    assert not has_live_events(frame(first_seq=4, last_seq=9))


@pytest.mark.parametrize(
    ("written", "word"), [(0, ""), (1, "a repeat"), (5, "a repeat"), (-1, "a gap")]
)
def test_frames_must_follow_on_the_watermark(written: int, word: str) -> None:
    frames = [frame(first_seq=1, last_seq=3), frame(first_seq=4, last_seq=4)]
    found = discontinuity(written, frames)
    assert word in found
    assert bool(found) == bool(word)


def test_a_gap_between_frames_is_found() -> None:
    frames = [frame(first_seq=1, last_seq=3), frame(first_seq=5, last_seq=5)]
    assert "a gap" in discontinuity(0, frames)


def test_a_reduced_order_keeps_its_place_with_less_left() -> None:
    reduced = event(EventKind.REDUCED, 1, order_id=30, qty_lots=4, leaves_lots=6)
    (changed,) = net_effects([frame(reduced)]).changed_orders
    assert (changed.order_id, changed.leaves_lots, changed.status) == (30, 6, Status.OPEN)


def test_a_prevented_self_trade_is_no_fill_and_ends_the_order_that_has_nothing_left() -> None:
    prevented = event(
        EventKind.PREVENTED, 1, order_id=9, contra_id=8, leaves_lots=2, contra_leaves_lots=0
    )
    effects = net_effects([frame(prevented)])
    assert effects.fills == ()
    changed = [(one.order_id, one.leaves_lots, one.status) for one in effects.changed_orders]
    assert changed == [(8, 0, Status.CANCELED), (9, 2, Status.OPEN)]


def test_a_replaced_order_stops_write_back_before_anything_is_written() -> None:
    replaced = event(EventKind.REPLACED, 1, order_id=31, contra_id=30, leaves_lots=6)
    with pytest.raises(WriteBackStopped, match="order 30 was replaced by order 31"):
        net_effects([frame(replaced)])


def test_a_column_of_fixed_width_is_written_whole(legacy_database: str) -> None:
    async def main() -> list[tuple[str, str]]:
        url = legacy_database
        async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
            async with connection.cursor() as cursor:
                await cursor.execute("CREATE TABLE fixed (state char(2))")
                columns = await writeback_sql._columns(cursor, "fixed")
                value = forms.cast(sql.Literal("wt"), columns["state"])
                await cursor.execute(sql.SQL("SELECT {} AS written").format(value))
                return [(row["written"], columns["state"].type) for row in await cursor.fetchall()]

    assert asyncio.run(main()) == [("wt", "bpchar")]
