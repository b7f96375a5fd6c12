"""The final audit finds what it is for: each way in which three witnesses can disagree."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest

from bridge.sandbox.audit import AuditResult, audit
from bridge.sandbox.audit_rows import Fill, LegacyOrder, LegacyRows, LegacyTrade
from bridge.sandbox.told import ClientOrder, FillTold, LoadResult, Unanswered, Wish
from engine.types import Event, EventFlag, EventKind
from shadow.legacy.convert import Scale

BTC = Scale(
    symbol="BTC-USD",
    instrument=1,
    tick=Decimal("0.01"),
    lot=Decimal("0.1"),
    price_ticks_max=10**9,
    qty_lots_max=10**9,
)
ONE, TWO = Decimal(1), Decimal(2)
PRICE = Decimal("100.00")


class World:
    """Order 1 of member 7 rests, order 2 of member 8 takes half of it while the engine answers.

    Order 3 of member 7 was cancelled.
    """

    def __init__(self) -> None:
        sell, buy = wish(7, "sell", TWO), wish(8, "buy", ONE)
        fill = Fill(PRICE, ONE, 1)
        self.result = LoadResult()
        self.result.members = {7, 8}
        self.result.orders = {
            1: client_order(1, sell, "open", TWO),
            2: client_order(2, buy, "filled", Decimal(0), FillTold(*fill)),
            3: client_order(3, sell, "open", TWO),
        }
        self.result.orders[3].cancelled_remaining = TWO
        self.orders = {
            1: LegacyOrder(wish=sell, remaining=ONE, state="open"),
            2: LegacyOrder(wish=buy, remaining=Decimal(0), state="filled"),
            3: LegacyOrder(wish=sell, remaining=TWO, state="cancelled"),
        }
        self.trades = [LegacyTrade(symbol="BTC-USD", taker_order_id=2, taker_side="buy", fill=fill)]
        self.events = [event(EventKind.ACCEPTED, contra_id=8), event(EventKind.FILL, contra_id=1)]

    def audit(self) -> AuditResult:
        rows = LegacyRows(orders=self.orders, trades=tuple(self.trades))
        return audit([self.result], rows, self.events, {"BTC-USD": BTC})

    def change_row(self, order_id: int, **change: object) -> None:
        self.orders[order_id] = msgspec.structs.replace(self.orders[order_id], **change)


def wish(member: int, side: str, quantity: Decimal) -> Wish:
    return Wish(
        symbol="BTC-USD",
        member=member,
        side=side,
        order_type="limit",
        time_in_force="gtc",
        price=PRICE,
        quantity=quantity,
    )


def client_order(
    order_id: int, asked: Wish, state: str, remaining: Decimal, *fills: FillTold
) -> ClientOrder:
    return ClientOrder(
        order_id=order_id, wish=asked, phase="x", state=state, remaining=remaining, fills=fills
    )


def event(kind: EventKind, *, contra_id: int, flags: int = EventFlag.LIVE) -> Event:
    """Of order 2: buys 10 lots at 10,000 ticks."""
    return Event(
        kind=kind,
        side=1,
        ord_type=2,
        tif=1,
        flags=flags,
        instrument=1,
        order_id=2,
        contra_id=contra_id,
        price_ticks=10_000,
        qty_lots=10,
    )


def test_witnesses_that_agree_pass() -> None:
    result = World().audit()
    assert result.ok, result.checks
    assert (result.answered, result.lost, result.duplicated) == (3, 0, 0)
    assert (result.fills, result.live_orders, result.live_fills) == (1, 1, 1)


def lose_an_order(world: World) -> None:
    del world.orders[3]


def lose_a_trade(world: World) -> None:
    world.trades.clear()


def write_a_trade_twice(world: World) -> None:
    world.trades *= 2


def round_a_trade(world: World) -> None:
    trade = world.trades[0]
    wrong = trade.fill._replace(price=Decimal("100.1"))
    world.trades[0] = msgspec.structs.replace(trade, fill=wrong)


def change_the_owner(world: World) -> None:
    world.change_row(1, wish=wish(9, "sell", TWO))


def open_a_cancelled_order(world: World) -> None:
    world.change_row(3, state="open")


def leave_open_what_was_told_to_be_closed(world: World) -> None:
    world.result.orders[1].closed = True


def leave_too_much(world: World) -> None:
    world.change_row(1, remaining=TWO)


def tell_another_fill(world: World) -> None:
    world.result.orders[2].fills = (FillTold(PRICE, ONE, 3),)


def journal_another_quantity(world: World) -> None:
    world.events[1] = msgspec.structs.replace(world.events[1], qty_lots=9)


def journal_an_order_that_was_not_written(world: World) -> None:
    world.events.append(msgspec.structs.replace(world.events[0], order_id=50))


def answer_something_else(world: World) -> None:
    world.result.wrong.append("order id 2 was told twice")


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lose_an_order, "every answered order is in the database"),
        (lose_a_trade, "the journal's live fills are there exactly once"),
        (write_a_trade_twice, "the journal's live fills are there exactly once"),
        (write_a_trade_twice, "orders and their trades add up"),
        (round_a_trade, "trades are as the takers were told"),
        (round_a_trade, "volumes agree between clients, database and journal"),
        (change_the_owner, "orders are as they were asked for"),
        (open_a_cancelled_order, "cancelled orders are as they were told"),
        (
            leave_open_what_was_told_to_be_closed,
            "orders that were told to be closed are closed",
        ),
        (leave_too_much, "orders and their trades add up"),
        (leave_too_much, "positions add up to zero"),
        (leave_too_much, "members' positions agree between orders and trades"),
        (tell_another_fill, "clients were told what the journal holds"),
        (journal_another_quantity, "the journal's live fills are there exactly once"),
        (journal_an_order_that_was_not_written, "the journal's live orders are in the database"),
        (answer_something_else, "answers agree with their requests"),
    ],
)
def test_each_contradiction_fails_the_check_that_names_it(
    harm: Callable[[World], None], found: str
) -> None:
    world = World()
    harm(world)
    result = world.audit()
    assert not result.ok
    assert found in [check.name for check in result.checks if not check.ok]


def test_lost_and_duplicated_orders_are_counted() -> None:
    world = World()
    del world.orders[3]
    world.orders[4] = LegacyOrder(wish=wish(8, "buy", ONE), remaining=ONE, state="open")
    result = world.audit()
    assert (result.lost, result.duplicated) == (1, 1)


def test_an_order_whose_answer_was_lost_is_no_duplicate_but_a_second_one_is() -> None:
    world = World()
    asked = wish(8, "buy", ONE)
    world.result.unanswered.append(Unanswered(reason="connection lost", possible=True, wish=asked))
    world.orders[4] = LegacyOrder(wish=asked, remaining=ONE, state="open")
    assert world.audit().ok
    world.orders[5] = world.orders[4]
    assert world.audit().duplicated == 1
    world.result.unanswered[0] = msgspec.structs.replace(
        world.result.unanswered[0], reason="status 422", possible=False
    )
    assert world.audit().duplicated == 2


def test_orders_of_others_need_nobody_who_was_told_of_them() -> None:
    world = World()
    world.orders[4] = LegacyOrder(wish=wish(100, "buy", ONE), remaining=ONE, state="open")
    assert world.audit().ok


def test_what_the_journal_holds_of_the_shadow_is_left_out() -> None:
    world = World()
    world.events.append(event(EventKind.FILL, contra_id=3, flags=EventFlag.LAST))
    assert world.audit().ok
