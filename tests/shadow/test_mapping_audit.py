"""Each way in which a mapping or a row can be wrong is found by what it does to the rows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legacy_rows import BTC, ETH, S_US, market, written
from legacy_side import MAPPING, SCALES

from bridge.bench.synthetic import Monolith, Order
from engine.types import OrderType, Side, TimeInForce
from shadow.legacy.audit import audit
from shadow.legacy.audit_types import Audit, Oddity, Recent, Row, Weight
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Amount, Enumerated, Mapping, Symbol, Time

replace = msgspec.structs.replace
GOOD = market()
RECENT = GOOD.recent()


def orders(**changes: Any) -> Mapping:
    return replace(MAPPING, orders=replace(MAPPING.orders, **changes))


def fills(**changes: Any) -> Mapping:
    return replace(MAPPING, fills=replace(MAPPING.fills, **changes))


def status(**words: str) -> Mapping:
    return orders(status=Enumerated(column="state", map={k[1:]: w for k, w in words.items()}))


def changed(
    *, order: Callable[[Row], Row] | None = None, fill: Callable[[Row], Row] | None = None
) -> Recent:
    """The good rows, each of them as the function makes it."""
    return replace(
        RECENT,
        orders=tuple(map(order, RECENT.orders)) if order else RECENT.orders,
        fills=tuple(map(fill, RECENT.fills)) if fill else RECENT.fills,
    )


def one_order(**values: str | None) -> Recent:
    """The good rows with one open order more that is not."""
    row = dict(RECENT.orders[-1]) | {"id": "900000", "state": "0", "order_type": "0"}
    row |= {"time_in_force": "0", "side": "0", "price": "1.00", "quantity": "1.00000000"}
    return replace(RECENT, orders=(*RECENT.orders, row | {"remaining_quantity": "1"} | values))


def times_ten(row: Row, column: str, power: int = 1) -> Row:
    return dict(row) | {column: f"{Decimal(row[column] or 0) * 10**power:f}"}


def filled_instead_of_left(row: Row) -> Row:
    left = Decimal(row["quantity"] or 0) - Decimal(row["remaining_quantity"] or 0)
    return dict(row) | {"remaining_quantity": f"{left:f}"}


def exchanged_pairs(recent: Recent) -> Recent:
    """Every second order came before the one with the id below: those ids change places."""

    def other(text: str | None) -> str:
        return str(((int(text or 0) - 1) ^ 1) + 1)

    return replace(
        recent,
        orders=tuple(dict(row) | {"id": other(row["id"])} for row in recent.orders),
        fills=tuple(
            dict(row) | {name: other(row[name]) for name in ("maker_order_id", "taker_order_id")}
            for row in recent.fills
        ),
    )


def lower_is_maker(recent: Recent) -> Recent:
    sides = {row["id"]: row["side"] for row in recent.orders}

    def booked(row: Row) -> Row:
        ids = sorted(int(row[name] or 0) for name in ("maker_order_id", "taker_order_id"))
        maker, taker = map(str, ids)
        told = {"maker_order_id": maker, "taker_order_id": taker, "taker_side": sides[taker]}
        return dict(row) | told

    return replace(recent, fills=tuple(map(booked, recent.fills)))


def with_total(row: Row) -> Row:
    total = Decimal(row["price"] or 0) * Decimal(row["quantity"] or 0)
    return dict(row) | {"total": f"{total:f}"}


SWAPPED = {"0": "sell", "1": "buy"}
TOKYO, NEW_YORK = "Asia/Tokyo", "America/New_York"
COARSE = {**SCALES, BTC: replace(SCALES[BTC], tick=Decimal("0.1"))}
FINE = {**SCALES, BTC: replace(SCALES[BTC], tick=Decimal("0.0001"))}

# what is wrong: rows, mapping, instruments -> check, key, part of what is seen
CASES: dict[str, tuple[Recent, Mapping, dict[str, Scale], str, str, str]] = {
    "canceled orders said to be open": (
        *(RECENT, status(_0="open", _1="filled", _2="open"), SCALES),
        *("crossed book", "mapping.orders.status.map", "'2'"),
    ),
    "filled orders said to be open": (
        *(RECENT, status(_0="open", _1="open", _2="canceled"), SCALES),
        *("states", "mapping.orders.status.map", "state = '1'"),
    ),
    "filled orders said to be canceled": (
        *(RECENT, status(_0="open", _1="canceled", _2="canceled"), SCALES),
        *("states", "mapping.orders.status.map", "state = '1'"),
    ),
    "canceled orders said to be filled": (
        *(RECENT, status(_0="open", _1="filled", _2="filled"), SCALES),
        *("states", "mapping.orders.status.map", "state = '2'"),
    ),
    "a state left out": (
        *(RECENT, status(_0="open", _1="filled", _9="canceled"), SCALES),
        *("unreadable", "mapping.orders.status.map", "state = '2' is not in the map"),
    ),
    "a side left out": (
        RECENT,
        orders(side=Enumerated(column="side", map={"0": "buy", "2": "sell"})),
        SCALES,
        *("unreadable", "mapping.orders.side.map", "side = '1'"),
    ),
    "both sides mapped to one": (
        RECENT,
        orders(side=Enumerated(column="side", map={"0": "buy", "1": "buy", "2": "sell"})),
        SCALES,
        *("sides", "mapping.orders.side.map", "one side"),
    ),
    "sides swapped": (
        *(RECENT, orders(side=Enumerated(column="side", map=SWAPPED)), SCALES),
        *("sides", "mapping.orders.side.map", "the sides are swapped"),
    ),
    "the maker's side for the taker's": (
        *(RECENT, fills(taker_side=Enumerated(column="taker_side", map=SWAPPED)), SCALES),
        *("sides", "mapping.fills.taker_side.map", "taker_side is not the taker's side"),
    ),
    "buy and sell columns exchanged": (
        changed(
            fill=lambda row: (
                dict(row)
                | {
                    "ask_id" if row["taker_side"] == "0" else "bid_id": row["taker_order_id"],
                    "bid_id" if row["taker_side"] == "0" else "ask_id": row["maker_order_id"],
                }
            )
        ),
        fills(maker_order="", taker_order="", buy_order="bid_id", sell_order="ask_id"),
        SCALES,
        *("sides", "mapping.fills.buy_order", "bid_id names an order that sells"),
    ),
    "maker and taker exchanged": (
        *(RECENT, fills(maker_order="taker_order_id", taker_order="maker_order_id"), SCALES),
        *("makers", "mapping.fills.maker_order", "were not resting"),
    ),
    "the lower id booked as maker": (
        *(lower_is_maker(exchanged_pairs(RECENT)), MAPPING, SCALES),
        *("makers", "mapping.fills.maker_rule", "were not resting"),
    ),
    "who rested booked as maker, and the lower id expected": (
        *(exchanged_pairs(RECENT), fills(maker_rule="lower_id"), SCALES),
        *("makers", "mapping.fills.maker_rule", "have the higher id"),
    ),
    "prices of fills in another unit": (
        *(changed(fill=lambda row: times_ten(row, "price", 2)), MAPPING, SCALES),
        *("scale", "mapping.fills.price", "10^2 times"),
    ),
    "prices of orders in another unit": (
        *(changed(order=lambda row: times_ten(row, "price", 3)), MAPPING, SCALES),
        *("scale", "mapping.fills.price", "10^-3 times"),
    ),
    "quantities of fills in another unit": (
        *(changed(fill=lambda row: times_ten(row, "quantity", 1)), MAPPING, SCALES),
        *("leaves", "mapping.fills.quantity", "don't fit the fills"),
    ),
    "another column for the price": (
        changed(fill=lambda row: dict(row) | {"fee": "7.77"}),
        fills(price=Amount(column="fee")),
        SCALES,
        *("prices", "mapping.fills.price", "at the price of neither order"),
    ),
    "a tick that is too coarse": (
        *(RECENT, MAPPING, COARSE),
        *("unreadable", "instruments.tick", "price is no multiple of the tick 0.1 of BTC-USD"),
    ),
    "a tick that is too fine": (
        *(market(1200).recent(), MAPPING, FINE),
        *("steps", "instruments.tick", "of BTC-USD are multiples of 0.01"),
    ),
    "a filter that hides who trades": (
        *(RECENT, orders(where={"time_in_force": ("0",)}), SCALES),
        *("filter", "mapping.orders.where", "name orders that it hides"),
    ),
    "a filter that hides all": (
        *(RECENT, orders(where={"member_id": ("none",)}), SCALES),
        *("filter", "mapping.orders.where", "it lets none of"),
    ),
    "a filter that hides fills": (
        *(RECENT, fills(where={"taker_side": ("0",)}), SCALES),
        *("filter", "mapping.fills.where", "of orders that are let through"),
    ),
    "times that are said to be of the west": (
        *(RECENT, orders(created_at=Time(column="created_at", zone=NEW_YORK)), SCALES),
        *("times", "mapping.orders.created_at.zone", "h 0 min in the future"),
    ),
    "times that are said to be of the east": (
        *(RECENT, orders(created_at=Time(column="created_at", zone=TOKYO)), SCALES),
        *("times", "mapping.orders.created_at.zone", "9 h 0 min ago, to the minute"),
    ),
    "and of the east while orders come": (
        replace(RECENT, is_active=True),
        orders(created_at=Time(column="created_at", zone=TOKYO)),
        SCALES,
        *("times", "mapping.orders.created_at.zone", "orders come while we look"),
    ),
    "and of the east where commits have times": (
        replace(
            RECENT,
            now_us=RECENT.now_us + 3000 * S_US,
            orders_committed_us={len(RECENT.orders) - 1: RECENT.now_us},
        ),
        orders(created_at=Time(column="created_at", zone=TOKYO)),
        SCALES,
        *("times", "mapping.orders.created_at.zone", "before the row was committed"),
    ),
    "fills of another zone than orders": (
        *(RECENT, fills(created_at=Time(column="created_at", zone=TOKYO)), SCALES),
        *("times", "mapping.fills.created_at.zone", "before the order that took it"),
    ),
    "orders of a zone with half an hour": (
        *(RECENT, orders(created_at=Time(column="created_at", zone="Asia/Kolkata")), SCALES),
        *("times", "mapping.fills.created_at.zone", "5 h 30 min or more after the order"),
    ),
    "updated in another zone": (
        *(RECENT, orders(updated_at=Time(column="updated_at", zone=TOKYO)), SCALES),
        *("times", "mapping.orders.updated_at.zone", "before it was created"),
    ),
    "a price that is NULL": (
        *(one_order(price=None), MAPPING, SCALES),
        *("unreadable", "mapping.orders.price", "price is NULL"),
    ),
    "a market order with a price": (
        *(one_order(order_type="1"), MAPPING, SCALES),
        *("unreadable", "mapping.orders.ord_type.map", "a market order has a price"),
    ),
    "a negative quantity": (
        *(one_order(quantity="-1"), MAPPING, SCALES),
        *("unreadable", "mapping.orders.quantity", "quantity is negative"),
    ),
    "more decimals than the tick has": (
        *(one_order(price="1.001"), MAPPING, SCALES),
        *("unreadable", "instruments.tick", "tick 0.01 of"),
    ),
    "a price that is no number": (
        *(one_order(price="NaN"), MAPPING, SCALES),
        *("unreadable", "mapping.orders.price", "'NaN' is no plain decimal number"),
    ),
    "a time that is none": (
        *(one_order(created_at="infinity"), MAPPING, SCALES),
        *("unreadable", "mapping.orders.created_at", "'infinity' is no time"),
    ),
    "an account that is none": (
        *(one_order(member_id=None), MAPPING, SCALES),
        *("unreadable", "mapping.orders.account", "member_id is NULL"),
    ),
    "more left than was ordered": (
        *(one_order(remaining_quantity="2"), MAPPING, SCALES),
        *("unreadable", "mapping.orders.quantity", "remaining_quantity is more than quantity"),
    ),
    "no instrument that is configured": (
        *(RECENT, orders(symbol=Symbol(column="member_id")), SCALES),
        *("instruments", "mapping.orders.symbol", "no other orders"),
    ),
    "fills of other orders": (
        *(RECENT, fills(maker_order="id"), SCALES),
        *("symbols", "mapping.fills.symbol", "of another instrument"),
    ),
    "an order that is gone": (
        replace(
            RECENT,
            orders=tuple(
                row for row in RECENT.orders if row["id"] != RECENT.fills[0]["maker_order_id"]
            ),
        ),
        MAPPING,
        SCALES,
        *("fills without order", "mapping.fills.maker_order", "that is not there"),
    ),
    "what was filled for what is left": (
        *(changed(order=filled_instead_of_left), MAPPING, SCALES),
        *("leaves", "mapping.orders.leaves", "don't fit the fills"),
    ),
    "what is left for what was ordered": (
        *(RECENT, orders(quantity=Amount(column="remaining_quantity")), SCALES),
        *("leaves", "mapping.orders.quantity", "don't fit the fills"),
    ),
    "fills that are somewhere else": (
        replace(RECENT, fills=RECENT.fills[::2]),
        MAPPING,
        SCALES,
        *("leaves", "mapping.orders.leaves", "don't fit the fills"),
    ),
    "a total with a fee in it": (
        changed(fill=lambda row: times_ten(with_total(row), "total")),
        fills(total=Amount(column="total")),
        SCALES,
        *("totals", "mapping.fills.total", "total is not price times quantity"),
    ),
    "the taker's account for the maker's": (
        changed(fill=lambda row: dict(row) | {"account": "77"}),
        fills(maker_account="account"),
        SCALES,
        *("accounts", "mapping.fills.maker_account", "another account"),
    ),
    "ids that several rows have": (
        replace(RECENT, orders=(*RECENT.orders, RECENT.orders[-1])),
        MAPPING,
        SCALES,
        *("ids", "mapping.orders.id", "1 id of several rows"),
    ),
    "ids that don't grow with time": (
        one_order(created_at=RECENT.orders[0]["created_at"]),
        MAPPING,
        SCALES,
        *("ids", "mapping.orders.priority", "an order with a lower id"),
    ),
}


def found(recent: Recent, mapping: Mapping, scales: dict[str, Scale] = SCALES) -> Audit:
    return audit(recent, mapping, scales)


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found(name: str) -> None:
    recent, mapping, scales, check, key, seen = CASES[name]
    oddities = found(recent, mapping, scales).oddities
    shown = [(one.check, one.key, one.seen) for one in oddities]
    named = [one for one in oddities if (one.check, one.key) == (check, key) and seen in one.seen]
    assert named, shown
    assert all(one.consequence and one.next_step for one in named)


def test_good_rows_have_no_finding() -> None:
    made = found(RECENT, MAPPING)
    assert made.oddities == ()
    assert made.problems == 0
    assert (made.orders, made.fills) == (len(GOOD.orders), len(GOOD.fills))
    assert (made.hidden, made.unreadable, made.unconfigured) == (0, 0, 0)
    assert [one.symbol for one in made.instruments] == [BTC, ETH]


def test_problems_come_before_notes_and_name_rows() -> None:
    made = found(one_order(price=None, created_at=RECENT.orders[0]["created_at"]), MAPPING)
    assert [one.weight for one in made.oddities] == [Weight.PROBLEM, Weight.NOTE]
    assert made.oddities[0].rows == ("orders 900000",)
    assert made.problems == 1


def test_an_instrument_that_is_not_configured_is_a_note() -> None:
    (one,) = found(RECENT, MAPPING, {BTC: SCALES[BTC]}).oddities
    assert one.weight is Weight.NOTE
    assert "'ETH-USD'" in one.seen


def test_values_are_told_those_that_never_occur_too() -> None:
    mapping = status(_0="open", _1="filled", _2="canceled", _7="rejected")
    told = {(one.value, one.word): one.orders for one in found(RECENT, mapping).values}
    assert told["7", "rejected"] == 0
    assert told["1", "filled"] > 0


def test_a_lower_id_monolith_is_sound_by_its_own_rule() -> None:
    recent = lower_is_maker(exchanged_pairs(RECENT))
    assert found(recent, fills(maker_rule="lower_id")).oddities == ()


def test_orders_older_than_the_fills_read_are_not_summed() -> None:
    cut = replace(RECENT, fills=RECENT.fills[10:])
    assert any(one.check == "leaves" for one in found(cut, MAPPING).oddities)
    first = max(
        int(row[name] or 0)
        for row in RECENT.fills[:10]
        for name in ("maker_order_id", "taker_order_id")
    )
    assert not any(
        one.check == "leaves"
        for one in found(replace(cut, filled_from_id=first + 1), MAPPING).oddities
    )
    assert not any(
        one.check == "leaves" for one in found(replace(cut, filled_from_id=None), MAPPING).oddities
    )


def test_a_job_that_matches_later_may_leave_a_crossed_book_for_a_moment() -> None:
    row = dict(RECENT.orders[-1]) | {"state": "0", "order_type": "0", "time_in_force": "0"}
    row |= {"market_id": BTC, "quantity": "1", "remaining_quantity": "1"}
    young = [
        row | {"id": "900001", "side": "0", "price": "999"},
        row | {"id": "900002", "side": "1", "price": "1"},
    ]
    recent = replace(RECENT, orders=(*RECENT.orders, *young))
    assert any(one.check == "crossed book" for one in found(recent, MAPPING).oddities)
    later = replace(MAPPING, matching="later")
    assert not any(one.check == "crossed book" for one in found(recent, later).oddities)


def passed_over(count: int) -> Oddity:
    """So many bids that nobody would have left lying for those below them."""
    taken = next(row for row in RECENT.fills[-20:] if row["taker_side"] == "1")
    bid = dict(RECENT.orders[0]) | {"market_id": taken["market_id"], "side": "0", "state": "0"}
    bid |= {"order_type": "0", "time_in_force": "0", "quantity": "1", "remaining_quantity": "1"}
    asks = [
        Decimal(row["price"] or 0)
        for row in RECENT.orders
        if row["state"] == "0" and row["side"] == "1" and row["market_id"] == taken["market_id"]
    ]
    price = Decimal(taken["price"] or 0) + Decimal("0.01")
    assert price < min(asks)
    bids = [bid | {"id": str(900_000 + n), "price": f"{price:f}"} for n in range(count)]
    (one,) = [
        one
        for one in found(replace(RECENT, orders=(*RECENT.orders, *bids)), MAPPING).oddities
        if one.check == "passed over"
    ]
    return one


def test_open_orders_that_trades_passed_over_are_none() -> None:
    assert passed_over(1).weight is Weight.NOTE  # amended, perhaps
    assert passed_over(3).weight is Weight.PROBLEM
    assert passed_over(3).key == "mapping.orders.status.map"


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from((BTC, ETH)),
        st.sampled_from((Side.BUY, Side.SELL)),
        st.integers(95, 105),
        st.integers(1, 9),
        st.sampled_from(("limit", "limit", "limit", "ioc", "market", "cancel")),
    ),
    max_size=40,
)
MAPPINGS = {
    "all": MAPPING,
    "no leaves": orders(leaves=Amount()),
    "no quantity": orders(quantity=Amount()),
    "later": replace(MAPPING, matching="later"),
    "by lower id": fills(maker_rule="lower_id"),
    "total": fills(total=Amount(column="total")),
}


@settings(max_examples=60)
@given(operations=OPERATIONS, mapping=st.sampled_from(sorted(MAPPINGS)))
def test_rows_of_the_reference_book_never_have_a_finding(
    operations: list[tuple[str, Side, int, int, str]], mapping: str
) -> None:
    monolith = Monolith(SCALES, MAPPING)
    done = []
    for symbol, side, price, quantity, what in operations:
        monolith.at_us += 7 * S_US
        if what == "cancel":
            if monolith.images:
                done.append(monolith.cancel(next(iter(monolith.images))))
            continue
        market_order = what == "market"
        done.append(
            monolith.place(
                Order(
                    symbol=symbol,
                    account=price,
                    side=side,
                    qty_lots=quantity,
                    price_ticks=0 if market_order else price,
                    ord_type=OrderType.MARKET if market_order else OrderType.LIMIT,
                    tif=TimeInForce.GTC if what == "limit" else TimeInForce.IOC,
                )
            )
        )
    recent = written(done).recent()
    recent = replace(recent, fills=tuple(map(with_total, recent.fills)))
    empty = {"empty"} if not recent.orders else set()
    assert {one.check for one in found(recent, MAPPINGS[mapping]).oddities} == empty
