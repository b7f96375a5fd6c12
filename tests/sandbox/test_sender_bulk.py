"""What a client believes after an answer to a bulk request, whole or cut short: the audit goes by
it, order by order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bridge.sandbox.client import HttpAnswer
from bridge.sandbox.flow_random import BulkWish
from bridge.sandbox.sender import Sender
from bridge.sandbox.told import ClientOrder, LoadResult, Wish

BTC, ETH = "BTC-USD", "ETH-USD"
UNKNOWN = {"errors": {"base": ["outcome unknown"]}}
NOT_SENT = {"errors": {"base": ["was not sent"]}}
NOT_OPEN = {"errors": {"state": ["is not open"]}}
REFUSED = {"errors": {"price": ["is not a number"]}}
MEMBER = 7


class Scripted:
    """A connection on which one answer comes after the other."""

    def __init__(self) -> None:
        self.answers: Iterator[tuple[int, Any]] = iter(())

    async def exchange(self, *request: bytes) -> HttpAnswer:
        status, body = next(self.answers)
        return HttpAnswer(status, msgspec.json.encode(body), 1)

    def close(self) -> None:
        pass


class Client:
    def __init__(self) -> None:
        self.result = LoadResult()
        self._connection = Scripted()
        self._sender = Sender(self._connection, self.result)  # type: ignore[arg-type]

    def ask(self, wish: BulkWish, status: int, *parts: Any) -> list[ClientOrder]:
        """`parts`: of the answer; a word instead of them: the answer lists nothing."""
        body = {"error": parts[0]} if parts[:1] == ("no list",) else {"orders": parts}
        self._connection.answers = iter([(status, body)])
        return asyncio.run(self._sender.bulk(MEMBER, wish, 0, "x"))

    def place(self, *symbols: str, first_id: int) -> list[int]:
        parts = [told(n, symbol) for n, symbol in enumerate(symbols, first_id)]
        taken = self.ask(places(*symbols), 201, *parts)
        return [order.order_id for order in taken]

    @property
    def unanswered(self) -> list[tuple[bool, bool]]:
        """Of each: of a place, and whether it may have had an effect."""
        return [(one.wish is not None, one.possible) for one in self.result.unanswered]


def places(*symbols: str) -> BulkWish:
    wishes = tuple(
        Wish(
            symbol=symbol,
            member=MEMBER,
            side="buy",
            order_type="limit",
            time_in_force="gtc",
            price=Decimal(100),
            quantity=Decimal(2),
        )
        for symbol in symbols
    )
    return BulkWish(symbols[0], places=wishes)


def told(order_id: int, market: str = BTC, state: str = "open") -> dict[str, object]:
    numbers = {"price": "100.0", "quantity": "2.0", "remaining_quantity": "2.0"}
    return {
        "id": order_id,
        "market": market,
        "side": "buy",
        "order_type": "limit",
        "time_in_force": "gtc",
        **numbers,
        "filled_quantity": "0.0",
        "state": state,
        "trades": [],
    }


def gone(order_id: int, market: str = BTC) -> dict[str, object]:
    return told(order_id, market, "cancelled")


def test_a_list_of_new_orders_that_was_cut_short_tells_of_each_what_became_of_it() -> None:
    client = Client()
    wish = places(BTC, ETH, ETH, BTC)
    taken = client.ask(wish, 504, told(1), UNKNOWN, NOT_SENT, REFUSED)
    assert [order.order_id for order in taken] == [1]
    assert client.result.orders.keys() == {1}
    assert client.unanswered == [(True, True), (True, False), (True, False)]
    assert client.result.wrong == []


@pytest.mark.parametrize(("status", "possible"), [(503, False), (500, True), (504, True)])
def test_an_answer_without_a_list_says_the_same_of_every_order(status: int, possible: bool) -> None:
    """503 says that nothing was done."""
    client = Client()
    assert client.ask(places(BTC, ETH), status, "no list") == []
    assert client.unanswered == [(True, possible)] * 2
    assert client.result.wrong == []


def test_orders_of_one_answer_are_known_by_its_request() -> None:
    client = Client()
    client.place(BTC, ETH, first_id=1)
    client.place(BTC, first_id=3)
    requests = [order.request for order in client.result.orders.values()]
    assert requests[0] == requests[1] != requests[2]


def test_a_list_of_cancels_tells_of_each_what_became_of_it() -> None:
    client = Client()
    ids = client.place(BTC, ETH, BTC, BTC, first_id=1)
    wish = BulkWish(BTC, cancels=tuple(ids))
    client.ask(wish, 504, gone(1), NOT_OPEN, UNKNOWN, NOT_SENT)
    orders = client.result.orders
    assert [one.cancelled_remaining for one in orders.values()] == [2, None, None, None]
    assert [one.closed for one in orders.values()] == [False, True, False, False]
    assert client.unanswered == [(False, True), (False, False)]
    assert client.result.wrong == []


def test_a_cancel_of_everything_leaves_nothing_open_of_its_symbol_unless_it_was_cut_short() -> None:
    client = Client()
    client.place(BTC, ETH, BTC, first_id=1)
    client.ask(BulkWish(BTC), 504, gone(1), UNKNOWN)
    assert not any(one.closed for one in client.result.orders.values())
    client.ask(BulkWish(BTC), 200, gone(3), gone(9))  # 9: its own answer was lost
    assert [one.closed for one in client.result.orders.values()] == [True, False, True]
    cancelled = [one.cancelled_remaining for one in client.result.orders.values()]
    assert cancelled == [2, None, 2]
    assert client.result.wrong == []


@pytest.mark.parametrize(
    ("wish", "status", "parts", "found"),
    [
        (places(BTC, BTC), 201, [told(5), told(5)], "order id 5 was told twice"),
        (places(BTC, BTC), 201, [told(5)], "was answered with 1 orders"),
        (places(BTC, ETH), 201, [told(5, ETH), told(6)], "was answered with"),
        (places(BTC), 201, ["no list"], "can't be read"),
        (BulkWish(BTC, cancels=(1, 2)), 200, [gone(2), gone(1)], "cancel of order 1"),
        (BulkWish(BTC, cancels=(1,)), 200, [told(1)], "cancel of order 1"),
        (
            BulkWish(BTC, cancels=(1,)),
            200,
            [{"errors": {"base": ["Not Found"]}}],
            "order 1 was not found",
        ),
        (BulkWish(BTC, cancels=(1, 1)), 200, [gone(1), gone(1)], "order 1 was told twice"),
        (BulkWish(BTC), 200, [gone(2), gone(1)], "orders [2, 1]"),
        (BulkWish(BTC), 200, [gone(1), gone(1)], "a cancel of everything"),
        (BulkWish(BTC), 200, [UNKNOWN], "1 parts"),
        (BulkWish(ETH), 200, [gone(1)], "the cancel of ETH-USD"),
    ],
)
def test_what_contradicts_its_request_or_an_earlier_answer_is_wrong(
    wish: BulkWish, status: int, parts: list[Any], found: str
) -> None:
    client = Client()
    client.place(BTC, BTC, first_id=1)
    client.ask(wish, status, *parts)
    assert any(found in text for text in client.result.wrong), client.result.wrong
