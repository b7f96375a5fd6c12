"""An adapter takes over what it has methods for, and no more; what fails in it stays its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_side import MAPPING, SCALES, order_row, trade_row
from test_assemble import ORDERS, TABLES, TRADES, assembled, order, trade, values
from test_exchanges import BUY, EXCHANGES, capture

from bridge.proxy.desk.dialect import Dialect
from engine.types import OrderType, Side, TimeInForce
from shadow.answer import OrderView
from shadow.errors import AdapterFailed
from shadow.exchanges import Exchanges
from shadow.legacy.adapter import PLAIN, Adapted, Row
from shadow.legacy.assemble import Assembler
from shadow.legacy.mapping import Route
from shadow.legacy.pgoutput import Delete, Insert, Message, Update
from shadow.normalise import Fields, Refusal, request_fields
from shadow.operation import OrderInserted, OrderUpdated, Status, Unreadable

VIEW = OrderView(
    order_id=7,
    symbol="BTC-USD",
    side=Side.BUY,
    ord_type=OrderType.LIMIT,
    tif=TimeInForce.GTC,
    price_ticks=1,
    qty_lots=2,
    leaves_lots=2,
    status=Status.OPEN,
    created_at_us=0,
    updated_at_us=0,
)


class Identity:
    """Every method, each giving back what it was given."""

    order_columns = ("note",)
    fill_columns = ("note",)

    def order_row(self, row: Row) -> Row | None:
        return row

    def fill_row(self, row: Row) -> Row | None:
        return row

    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        return values

    def answer(self, action: str, body: Any) -> Any:
        return body


class Hiding:
    def order_row(self, row: Row) -> Row | None:
        return None if row["member_id"] == "42" else row

    def fill_row(self, row: Row) -> Row | None:
        return None


class Failing:
    def order_row(self, row: Row) -> Row | None:
        raise KeyError("odd")

    fill_row = order_row

    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        raise ValueError("no such price")

    def answer(self, action: str, body: Any) -> Any:
        raise ZeroDivisionError("oh")


class Wrong:
    def order_row(self, row: Row) -> Any:
        return {"id": 7}

    def request(self, route: Route, values: dict[str, object]) -> Any:
        return list(values)


IDENTITY, NOTHING = Adapted(Identity()), Adapted(object())

orders = st.builds(
    order_row,
    id=st.sampled_from(["7", "8", None, "x"]),
    market_id=st.sampled_from(["BTC-USD", "LTC-USD", None]),
    price=st.sampled_from(["236.47", "0.001", None]),
    state=st.sampled_from(["0", "1", "9"]),
)
trades = st.builds(trade_row, quantity=st.sampled_from(["0.5", "-1", None]))
messages = st.one_of(
    st.builds(lambda row: Insert(ORDERS, values(ORDERS, row)), orders),
    st.builds(lambda row: Insert(TRADES, values(TRADES, row)), trades),
    st.builds(
        lambda old, row, unchanged: Update(
            ORDERS,
            values(ORDERS, old) if old else None,
            bool(old),
            values(ORDERS, row, unchanged),
        ),
        st.one_of(st.none(), orders),
        orders,
        st.sampled_from([(), ("price",)]),
    ),
    st.builds(lambda row, whole: Delete(ORDERS, values(ORDERS, row), whole), orders, st.booleans()),
    st.builds(lambda row: Delete(TRADES, values(TRADES, row), True), trades),
)


@given(st.lists(messages, max_size=5), st.sampled_from([IDENTITY, NOTHING]))
def test_an_adapter_that_changes_nothing_changes_no_row(
    given_: list[Message], adapter: Adapted
) -> None:
    plain = assembled(*given_)
    assert assembled(*given_, assembler=Assembler(MAPPING, SCALES, adapter=adapter)) == plain


requests = st.one_of(
    st.binary(max_size=20),
    st.dictionaries(
        st.sampled_from(["order", "orders", "ids", "market", "side", "price"]),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=3), st.lists(st.just({"side": "buy"}))
        ),
    ).map(lambda one: json.dumps(one).encode()),
)


@given(st.sampled_from(MAPPING.routes), requests, st.sampled_from([IDENTITY, NOTHING]))
def test_an_adapter_that_changes_nothing_changes_no_request(
    route: Route, body: bytes, adapter: Adapted
) -> None:
    found = request_fields(route, {"id": "7"}, "", "application/json", body)
    if isinstance(found, Fields):
        seen = adapter.fields(found)
        assert (seen.route, seen.values, seen.as_sent) == (route, found.values, found.values)
        assert [one.values for one in seen.each] == [one.values for one in found.each]


@pytest.mark.parametrize("adapter", [IDENTITY, NOTHING])
def test_an_adapter_that_changes_nothing_changes_no_answer(adapter: Adapted) -> None:
    plain, other = dialect(PLAIN), dialect(adapter)
    refusal = Refusal(status=422, errors=(("price", "is odd"),), reasons=("invalid_price",))
    assert other.render_placed(VIEW) == plain.render_placed(VIEW)
    assert other.render_canceled(VIEW) == plain.render_canceled(VIEW)
    assert other.render_refusal(refusal) == plain.render_refusal(refusal)


def dialect(adapter: Adapted) -> Dialect:
    return Dialect(MAPPING.responses, MAPPING.words, SCALES, adapter=adapter)


def changes(adapter: object, *messages: Message) -> tuple[object, ...]:
    assembler = Assembler(MAPPING, SCALES, adapter=Adapted(adapter))
    transaction = assembled(*messages, assembler=assembler)
    return () if transaction is None else transaction.changes


def test_rows_that_the_adapter_hides_are_not_there() -> None:
    found = changes(
        Hiding(),
        Insert(ORDERS, order(id="8")),
        Insert(ORDERS, order(id="9", member_id="43")),
        Insert(TRADES, trade()),
        Update(ORDERS, order(), True, order(remaining_quantity="1")),
        Update(ORDERS, order(member_id="43"), True, order(member_id="43", remaining_quantity="1")),
        Delete(ORDERS, order(), True),
    )
    assert [type(one) for one in found] == [OrderInserted, OrderUpdated]


def test_an_order_that_is_hidden_from_now_on_is_nothing_that_can_be_followed() -> None:
    (one,) = changes(Hiding(), Update(ORDERS, order(member_id="43"), True, order()))
    assert isinstance(one, Unreadable)
    assert one.order_id == 7


@pytest.mark.parametrize(
    "message",
    [
        Insert(ORDERS, order()),
        Update(ORDERS, None, False, order()),
        Insert(TRADES, trade()),
        Delete(ORDERS, order(), True),
    ],
)
def test_a_row_that_the_adapter_fails_on_is_unreadable_with_the_reason(message: Message) -> None:
    (one,) = changes(Failing(), message)
    assert isinstance(one, Unreadable)
    assert (one.symbol, one.order_id) == ("BTC-USD", 9 if message.relation_id == TRADES else 7)
    assert "the adapter's order_row failed: KeyError: 'odd'" in one.reason.replace(
        "fill_row", "order_row"
    )


def test_a_row_that_is_none_is_unreadable() -> None:
    (one,) = changes(Wrong(), Insert(ORDERS, order()))
    assert isinstance(one, Unreadable)
    assert one.reason == "orders: the adapter's order_row gave no row of texts"


def test_columns_that_only_the_adapter_reads_are_there() -> None:
    class Noted(Identity):
        def order_row(self, row: Row) -> Row | None:
            return row | {"price": row["note"]}

    assert "note" in TABLES[ORDERS][1]
    (one,) = changes(Noted(), Insert(ORDERS, order(note="5.00")))
    assert isinstance(one, OrderInserted)
    assert one.order.price_ticks == 500


def test_a_request_that_the_adapter_fails_on_says_so() -> None:
    exchanges = Exchanges(MAPPING, SCALES, Adapted(Failing()))
    asked = capture("place", "POST", "/api/v1/orders", {"order": BUY}, 201, {"order": {"id": 7}})
    (told,) = EXCHANGES.read(asked)
    with pytest.raises(AdapterFailed, match="request failed: ValueError: no such price"):
        exchanges.asked(told)
    with pytest.raises(AdapterFailed, match="request gave list, not dict"):
        Exchanges(MAPPING, SCALES, Adapted(Wrong())).asked(told)


def test_an_answer_that_the_adapter_fails_on_says_so() -> None:
    with pytest.raises(AdapterFailed, match="answer failed: ZeroDivisionError: oh"):
        dialect(Adapted(Failing())).render_placed(VIEW)


def test_the_row_that_an_adapter_changes_is_its_own() -> None:
    class Emptying:
        def order_row(self, row: Row) -> Row | None:
            row.clear()
            return row

    row: Row = {"id": "7"}
    assert Adapted(Emptying()).order_row(row) == {}
    assert row == {"id": "7"}
