"""The Rails exchange by itself: it is a monolith to be believed, with and without funds."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from rails_world import Caller
from running_rails import Console, Rails, running_console, running_rails

SELLER, BUYER = 1, 2


@pytest.fixture(scope="module")
def rails(exchange_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rails]:
    directory = tmp_path_factory.mktemp("rails")
    with running_rails(directory, exchange_database, RESERVE_FUNDS=1) as running:
        yield running


@pytest.fixture(scope="module")
def console(exchange_database: str) -> Iterator[Console]:
    with running_console(exchange_database) as running:
        yield running


def funds(console: Console, member: int, currency: str) -> tuple[Decimal, Decimal]:
    """What changed since the seeds: what can be spent, and what is locked."""
    own = f"Account.find_by(member_id: {member}, currency: '{currency}')"
    balance, locked = console.say(f"{own}.then {{ |one| [one.balance, one.locked] }}")
    return Decimal(balance) - 1_000_000, Decimal(locked)


def test_orders_lock_money_and_trades_settle_it(rails: Rails, console: Console) -> None:
    seller, buyer = Caller(rails.url, SELLER), Caller(rails.url, BUYER)
    market = {"market": "ETH-USD"}
    cheap = seller.place(**market, side="sell", price="10", quantity="1").json()["order"]
    assert funds(console, SELLER, "ETH") == (-1, 1)
    dear = seller.place(**market, side="sell", price="11", quantity="1").json()["order"]
    bought = buyer.place(**market, side="buy", price="12", quantity="3").json()["order"]
    assert [one["maker_order_id"] for one in bought["trades"]] == [cheap["id"], dear["id"]]
    assert (bought["remaining_quantity"], bought["state"]) == ("1.0", "open")
    assert funds(console, BUYER, "ETH") == (2, 0)
    assert funds(console, BUYER, "USD") == (-33, 12)
    assert funds(console, SELLER, "USD") == (21, 0)
    assert funds(console, SELLER, "ETH") == (-2, 0)
    canceled = buyer.ask("DELETE", f"/orders/{bought['id']}").json()["order"]
    assert canceled["state"] == "cancelled"
    assert funds(console, BUYER, "USD") == (-21, 0)


def test_what_nobody_can_pay_is_refused_and_leaves_nothing(rails: Rails, console: Console) -> None:
    before = console.say("Order.count")
    order = {"market": "SOL-USD", "side": "sell", "price": "1", "quantity": "2000000"}
    refused = Caller(rails.url, SELLER).place(**order)
    assert refused.status_code == 422
    assert refused.json() == {"errors": {"base": ["insufficient funds"]}}
    assert console.say("Order.count") == before
    assert funds(console, SELLER, "SOL") == (0, 0)
