"""What the monolith did with an order against what the engine did: equal, or told what differs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_config import CONFIG

from bridge.bench.synthetic import Monolith, Order, open_for_shadow, random_flow
from engine.reference import PythonMarket
from engine.types import Command, CommandKind, Event, OrderType, Role, Side, TimeInForce
from engine.wire import decode_events, encode_command, session_command
from shadow import diff
from shadow.legacy.convert import scales as make_scales
from shadow.operation import Cancel, LegacyFill, OrderImage, Place, Status
from shadow.ordering import operations
from shadow.verdict import Difference, Kind

SCALES = make_scales(CONFIG.instruments)
SYMBOL = "BTC-USD"


class Engine:
    """The reference market, fed directly."""

    def __init__(self) -> None:
        self.market = PythonMarket()
        admin = session_command(session=1, name="admin", role=Role.ADMIN)
        feed = session_command(session=2, name="feed", role=Role.SHADOW)
        for command in (admin, feed, *open_for_shadow(SCALES.values(), session=1)):
            self.market.apply(encode_command(command), 1)

    def do(self, operation: Place | Cancel) -> list[Event]:
        order = operation.order
        command = Command(
            kind=CommandKind.NEW if isinstance(operation, Place) else CommandKind.CANCEL,
            session=2,
            instrument=SCALES[order.symbol].instrument,
            ref=self.market.last_seq + 1,
            account=order.account,
            order_id=order.order_id,
        )
        if isinstance(operation, Place):
            command = msgspec.structs.replace(
                command,
                side=order.side,
                ord_type=order.ord_type,
                tif=order.tif,
                price_ticks=order.price_ticks,
                qty_lots=order.qty_lots,
            )
        return list(decode_events(self.market.apply(encode_command(command), 1)))


def compare(operation: Place | Cancel, events: list[Event]) -> tuple[Difference, ...]:
    if isinstance(operation, Place):
        return diff.compare_place(operation, events)
    return diff.compare_cancel(operation, events)


def kinds(operation: Place | Cancel, events: list[Event]) -> list[Kind]:
    return [difference.kind for difference in compare(operation, events)]


def flow(seed: int, symbols: tuple[str, ...] = (SYMBOL,)) -> Iterator[Place | Cancel]:
    monolith = Monolith(SCALES, CONFIG.mapping)
    for done in random_flow(monolith, symbols, seed):
        (operation,) = operations(done.tx)
        assert isinstance(operation, Place | Cancel)
        yield operation


def trades(seed: int) -> Iterator[tuple[Place, list[Event]]]:
    """The orders of a random flow that traded, with the engine's events."""
    engine = Engine()
    for operation in flow(seed):
        events = engine.do(operation)
        if isinstance(operation, Place) and operation.fills:
            yield operation, events


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_random_legal_flow_gives_only_matches(seed: int) -> None:
    engine = Engine()
    symbols = ("BTC-USD", "ETH-USD")
    for _, operation in zip(range(150), flow(seed, symbols), strict=False):
        assert compare(operation, engine.do(operation)) == ()


Change = Callable[[Place, random.Random], Place]


def _fill(place: Place, chooser: random.Random, **changed: int) -> Place:
    index = chooser.randrange(len(place.fills))
    fills = list(place.fills)
    fills[index] = msgspec.structs.replace(fills[index], **changed)
    return msgspec.structs.replace(place, fills=tuple(fills))


def _image(place: Place, index: int, **changed: object) -> Place:
    after = list(place.after)
    after[index] = msgspec.structs.replace(after[index], **changed)
    return msgspec.structs.replace(place, after=tuple(after))


def _price(place: Place, chooser: random.Random) -> Place:
    return _fill(place, chooser, price_ticks=chooser.choice((13_337, 31_333)))


def _rounded_price(place: Place, chooser: random.Random) -> Place:
    """To ten ticks, or by one where it is a multiple of ten already."""
    index = chooser.randrange(len(place.fills))
    price = place.fills[index].price_ticks
    fills = list(place.fills)
    fills[index] = msgspec.structs.replace(
        fills[index], price_ticks=price // 10 * 10 if price % 10 else price - 1
    )
    return msgspec.structs.replace(place, fills=tuple(fills))


def _quantity(place: Place, chooser: random.Random) -> Place:
    return _fill(place, chooser, qty_lots=100_003)


def _maker(place: Place, chooser: random.Random) -> Place:
    return _fill(place, chooser, maker_order_id=999_999)


def _maker_elsewhere(place: Place, chooser: random.Random) -> Place:
    return _fill(place, chooser, maker_order_id=999_999, price_ticks=13_337)


def _missing_in_engine(place: Place, chooser: random.Random) -> Place:
    extra = msgspec.structs.replace(place.fills[0], maker_order_id=999_999, price_ticks=13_337)
    return msgspec.structs.replace(place, fills=(*place.fills, extra))


def _missing_in_monolith(place: Place, chooser: random.Random) -> Place:
    fills = list(place.fills)
    fills.pop(chooser.randrange(len(fills)))
    return msgspec.structs.replace(place, fills=tuple(fills))


def _taker_leaves(place: Place, chooser: random.Random) -> Place:
    return _image(place, 0, leaves_lots=100_003)


def _maker_leaves(place: Place, chooser: random.Random) -> Place:
    return _image(place, chooser.randrange(1, len(place.after)), leaves_lots=100_003)


def _maker_not_written(place: Place, chooser: random.Random) -> Place:
    after = list(place.after)
    after.pop(chooser.randrange(1, len(after)))
    return msgspec.structs.replace(place, after=tuple(after))


def _taker_status(place: Place, chooser: random.Random) -> Place:
    now = place.after[0].status
    other = chooser.choice(
        [one for one in (Status.OPEN, Status.FILLED, Status.CANCELED) if one is not now]
    )
    return _image(place, 0, status=other)


def _maker_status(place: Place, chooser: random.Random) -> Place:
    return _image(place, chooser.randrange(1, len(place.after)), status=Status.CANCELED)


def _rejected(place: Place, chooser: random.Random) -> Place:
    return _image(place, 0, status=Status.REJECTED)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_price, Kind.PRICE),
        (_rounded_price, Kind.ROUNDING),
        (_quantity, Kind.QUANTITY),
        (_maker, Kind.PRIORITY),
        (_maker_elsewhere, Kind.COUNTERPARTY),
        (_missing_in_engine, Kind.MISSING_FILL),
        (_missing_in_monolith, Kind.EXTRA_FILL),
        (_taker_leaves, Kind.LEAVES),
        (_maker_leaves, Kind.LEAVES),
        (_maker_not_written, Kind.LEAVES),
        (_taker_status, Kind.STATUS),
        (_maker_status, Kind.STATUS),
        (_rejected, Kind.REJECTED_BY_ONE),
    ],
)
@given(seed=st.integers(0, 2**32), which=st.integers(0, 8))
@settings(max_examples=12, deadline=None)
def test_one_altered_field_gives_exactly_its_kind(
    change: Change, kind: Kind, seed: int, which: int
) -> None:
    place, events = next(one for n, one in enumerate(trades(seed)) if n == which)
    assert kinds(place, events) == []
    assert kinds(change(place, random.Random(seed)), events) == [kind]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_fills_in_another_order_of_time_are_a_priority_difference(seed: int) -> None:
    place, events = next(
        one
        for one in trades(seed)
        if len(one[0].fills) > 1 and one[0].fills[0].price_ticks == one[0].fills[1].price_ticks
    )
    first, second, *rest = place.fills
    swapped = msgspec.structs.replace(place, fills=(second, first, *rest))
    assert kinds(swapped, events) == [Kind.PRIORITY]


def book(*quantities: int) -> tuple[Monolith, Engine]:
    """Sells at one price, oldest first, as orders 1, 2, 3, ..."""
    monolith, engine = Monolith(SCALES, CONFIG.mapping), Engine()
    for quantity in quantities:
        order = Order(symbol=SYMBOL, account=1, side=Side.SELL, qty_lots=quantity, price_ticks=100)
        engine.do(operations(monolith.place(order).tx)[0])  # type: ignore[arg-type]
    return monolith, engine


def bought(qty: int, *fills: tuple[int, int], leaves: dict[int, int]) -> Place:
    """The monolith's word for a buy at that price: fills as (maker, lots)."""
    order = OrderImage(
        symbol=SYMBOL,
        order_id=900,
        account=2,
        side=Side.BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=100,
        qty_lots=qty,
        leaves_lots=qty,
        status=Status.OPEN,
        created_at_us=1,
    )
    left = qty - sum(lots for _, lots in fills)
    final = msgspec.structs.replace(
        order, leaves_lots=left, status=Status.OPEN if left else Status.FILLED
    )
    makers = [
        msgspec.structs.replace(
            order,
            order_id=maker,
            leaves_lots=lots,
            status=Status.OPEN if lots else Status.FILLED,
        )
        for maker, lots in sorted(leaves.items())
    ]
    rows = tuple(
        LegacyFill(
            symbol=SYMBOL,
            fill_id=n,
            maker_order_id=maker,
            taker_order_id=900,
            price_ticks=100,
            qty_lots=lots,
        )
        for n, (maker, lots) in enumerate(fills)
    )
    return Place(order=order, fills=rows, after=(final, *makers))


def test_a_younger_order_served_first_is_one_priority_difference() -> None:
    """Last in first out: fills, leaves and statuses of both makers differ, from one cause."""
    _, engine = book(5, 5)
    place = bought(7, (2, 5), (1, 2), leaves={1: 3, 2: 0})
    found = compare(place, engine.do(place))
    assert [one.kind for one in found] == [Kind.PRIORITY]
    assert found[0].lasting


def test_a_younger_order_served_instead_names_both() -> None:
    _, engine = book(5, 5)
    place = bought(5, (2, 5), leaves={2: 0})
    (found,) = compare(place, engine.do(place))
    assert found.kind is Kind.PRIORITY
    assert "order 2 was met where order 1 is first" in found.what


def test_a_skipped_order_among_three_is_told_once() -> None:
    _, engine = book(5, 5, 5)
    place = bought(7, (3, 5), (1, 2), leaves={1: 3, 3: 0})
    assert kinds(place, engine.do(place)) == [Kind.PRIORITY]


def test_a_fill_too_few_explains_leaves_and_status() -> None:
    _, engine = book(5, 5)
    place = bought(10, (1, 5), leaves={1: 0})
    assert kinds(place, engine.do(place)) == [Kind.EXTRA_FILL]


def test_a_smaller_fill_explains_the_leaves_of_both_orders() -> None:
    _, engine = book(5_000)
    place = bought(5_000, (1, 3_333), leaves={1: 1_667})
    assert kinds(place, engine.do(place)) == [Kind.QUANTITY]


def test_a_rounded_quantity_is_rounding_and_lasts() -> None:
    _, engine = book(23_647)
    place = bought(23_647, (1, 23_650), leaves={1: 0})
    place = _image(place, 0, leaves_lots=0, status=Status.FILLED)
    (found,) = compare(place, engine.do(place))
    assert found.kind is Kind.ROUNDING
    assert found.lasting


def test_a_difference_in_price_alone_leaves_the_books_equal() -> None:
    _, engine = book(5)
    place = bought(5, (1, 5), leaves={1: 0})
    place = msgspec.structs.replace(
        place, fills=(msgspec.structs.replace(place.fills[0], price_ticks=37),)
    )
    (found,) = compare(place, engine.do(place))
    assert (found.kind, found.lasting) == (Kind.PRICE, False)


def test_an_order_that_only_the_engine_rejects_is_told_with_its_reason() -> None:
    _, engine = book()
    place = _image(bought(5, leaves={}), 0)
    engine.do(place)
    (found,) = compare(place, engine.do(place))
    assert found.kind is Kind.REJECTED_BY_ONE
    assert found.engine == "DUPLICATE_ORDER_ID"


def test_an_order_that_both_reject_agrees() -> None:
    _, engine = book()
    place = _image(bought(5, leaves={}), 0, status=Status.REJECTED)
    engine.do(place)
    assert kinds(place, engine.do(place)) == []


def test_a_cancel_of_another_quantity_is_a_leaves_difference() -> None:
    monolith, engine = book(5)
    canceled = msgspec.structs.replace(monolith.images[1], leaves_lots=4, status=Status.CANCELED)
    assert kinds(Cancel(order=canceled), engine.do(Cancel(order=canceled))) == [Kind.LEAVES]


def test_a_cancel_that_only_the_engine_refuses_is_told_with_its_reason() -> None:
    monolith, engine = book(5)
    canceled = msgspec.structs.replace(monolith.images[1], account=2, status=Status.CANCELED)
    (found,) = compare(Cancel(order=canceled), engine.do(Cancel(order=canceled)))
    assert (found.kind, found.engine) == (Kind.REJECTED_BY_ONE, "NOT_OWNER")


def test_a_request_for_something_else_names_the_fields() -> None:
    monolith, _ = book(5)
    image = monolith.images[1]
    command = Command(
        kind=CommandKind.NEW,
        side=image.side,
        ord_type=image.ord_type,
        tif=image.tif,
        instrument=1,
        account=image.account,
        price_ticks=image.price_ticks,
        qty_lots=image.qty_lots,
    )
    assert diff.compare_command(command, image, 1) == ()
    other = msgspec.structs.replace(command, price_ticks=99, account=3)
    (found,) = diff.compare_command(other, image, 1)
    assert found.kind is Kind.COMMAND
    assert found.legacy == {"account": 1, "price_ticks": 100}
    assert found.engine == {"account": 3, "price_ticks": 99}


def test_both_views_of_a_match_are_equal() -> None:
    place, events = next(trades(7))
    assert diff.legacy_view(place) == diff.engine_view(events)


# --- quantities that rows do not say, and whom they book as maker ---------------------------------


def untold(place: Place, *, with_makers: bool = True) -> Place:
    """Of a monolith whose rows say what was ordered and not what is left."""
    after = tuple(msgspec.structs.replace(one, leaves_lots=None) for one in place.after)
    return msgspec.structs.replace(place, after=after if with_makers else after[:1])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_what_the_rows_do_not_say_is_no_difference(seed: int) -> None:
    engine = Engine()
    for _, operation in zip(range(100), flow(seed), strict=False):
        events = engine.do(operation)
        if isinstance(operation, Place):
            assert compare(untold(operation), events) == ()
        else:
            order = msgspec.structs.replace(operation.order, leaves_lots=None)
            assert compare(Cancel(order=order), events) == ()


def test_without_a_leaves_column_a_maker_s_row_is_written_when_it_is_filled_and_not_before() -> (
    None
):
    _, engine = book(5, 5)
    place = bought(7, (1, 5), (2, 2), leaves={1: 0, 2: 3})
    events = engine.do(place)
    first_only = msgspec.structs.replace(untold(place), after=untold(place).after[:2])
    assert compare(first_only, events) == ()
    (found,) = compare(untold(place, with_makers=False), events)
    assert (found.kind, found.what) == (
        Kind.LEAVES,
        "order 1 was filled, but its row was not written again",
    )


def test_a_wrong_status_is_told_whatever_the_rows_say_of_quantities() -> None:
    _, engine = book(5)
    place = untold(bought(5, (1, 5), leaves={1: 0}))
    events = engine.do(place)
    wrong = _image(place, 0, status=Status.OPEN)
    assert kinds(wrong, events) == [Kind.STATUS]
    assert kinds(_image(place, 1, status=Status.OPEN), events) == [Kind.STATUS]


def test_a_fill_is_booked_by_the_monolith_s_own_rule() -> None:
    """Order 900 came in; it is the taker, and the maker only where the lower id is."""
    _, engine = book(5)
    place = bought(5, (1, 5), leaves={1: 0})
    events = engine.do(place)
    assert diff.compare_place(place, events, "resting") == ()
    assert diff.compare_place(place, events, "lower_id") == ()
    (fill,) = place.fills
    turned = msgspec.structs.replace(fill, maker_order_id=900, taker_order_id=1)
    swapped = msgspec.structs.replace(place, fills=(turned,))
    for rule in ("resting", "lower_id"):
        (found,) = diff.compare_place(swapped, events, rule)  # type: ignore[arg-type]
        assert found.kind is Kind.COUNTERPARTY
        assert found.what == "order 900 is booked as maker where order 1 should be"


def test_an_incoming_order_with_the_lower_id_is_booked_as_maker_where_that_is_the_rule() -> None:
    late = bought(5, (1, 5), leaves={1: 0})
    renumbered = Engine()
    maker = msgspec.structs.replace(late.after[1], order_id=901, side=Side.SELL, leaves_lots=5)
    renumbered.do(Place(order=msgspec.structs.replace(maker, qty_lots=5), fills=(), after=()))
    (fill,) = late.fills
    turned = msgspec.structs.replace(fill, maker_order_id=900, taker_order_id=901)
    place = msgspec.structs.replace(
        late,
        fills=(turned,),
        after=(late.after[0], msgspec.structs.replace(late.after[1], order_id=901)),
    )
    events = renumbered.do(place)
    assert diff.compare_place(place, events, "lower_id") == ()
    (found,) = diff.compare_place(place, events, "resting")
    assert found.kind is Kind.COUNTERPARTY
    assert diff.legacy_view(place)["fills"][0]["maker"] == 901
