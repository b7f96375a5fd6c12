"""Captures without an answer: how long they are kept for the operations that may be of them."""

from __future__ import annotations

import pytest
from sandbox_config import CONFIG

from engine.types import OrderType, Side, TimeInForce
from shadow.capture import Capture, Outcome
from shadow.exchanges import Exchanges
from shadow.joins import Joins
from shadow.legacy.convert import scales
from shadow.operation import Cancel, OrderImage, Status
from shadow.work import Held, Item, StreamEntry

SCALES = scales(CONFIG.instruments)
SCALE = SCALES["BTC-USD"]
EXCHANGES = Exchanges(CONFIG.mapping, SCALES)
ALL = "/api/v1/orders"
_S = 1_000_000_000


def held(target: str, *, account: int = 7, generation: int = 0, read_s: int = 0) -> Held:
    """A cancel that was not answered: of an order by its path, or of everything."""
    order_id = target.partition("?")[0].removeprefix(ALL).removeprefix("/")
    capture = Capture(
        worker="w",
        number=1,
        action="cancel" if order_id else "cancel_all",
        method="DELETE",
        target=target,
        path_params={"id": order_id} if order_id else {},
        content_type="",
        request_body=b"",
        account=account,
        request_id="r",
        outcome=Outcome.UPSTREAM_FAILED,
        status=0,
        response_body=b"",
        sent_mono_ns=1,
        answered_mono_ns=0,
        sent_at_ns=3,
    )
    (told,) = EXCHANGES.read(capture)
    return Held(told, StreamEntry("1-0", {}), generation, read_s * _S)


def cancel(order_id: int, *, account: int = 7, read_s: int = 0, side: Side = Side.BUY) -> Item:
    image = OrderImage(
        symbol="BTC-USD",
        order_id=order_id,
        account=account,
        side=side,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=100,
        qty_lots=10,
        leaves_lots=10,
        status=Status.CANCELED,
        created_at_us=1,
    )
    return Item(Cancel(order=image), read_s * _S)


@pytest.mark.parametrize("target", [f"{ALL}/5", ALL])
def test_it_is_kept_while_an_operation_from_before_the_mark_waits(target: str) -> None:
    joins = Joins(EXCHANGES)
    joins.add(held(target))
    item = cancel(5, read_s=1)
    joins.want(item)
    for generation in range(1, 5):
        assert joins.take_unanswered(generation, 100 * _S, (100 + generation) * _S) == []
    found = joins.give_up(item, SCALE)
    assert found is not None
    assert found.told.order_id == 5


@pytest.mark.parametrize("target", [f"{ALL}/5", ALL])
def test_it_is_let_go_when_only_later_operations_wait(target: str) -> None:
    joins = Joins(EXCHANGES)
    kept = held(target)
    joins.add(kept)
    first = cancel(6, account=9, read_s=1)
    joins.want(first)
    assert joins.take_unanswered(1, 100 * _S, 2 * _S) == []
    joins.want(cancel(7, account=9, read_s=3))
    assert joins.give_up(first, SCALE) is None
    # The mark that came at 2 s is decided: all that waits was read after it.
    assert joins.take_unanswered(2, 100 * _S, 4 * _S) == [kept]
    assert joins.waiting == 0


def test_it_is_let_go_when_nothing_waits() -> None:
    joins = Joins(EXCHANGES)
    both = [held(f"{ALL}/5", generation=3), held(ALL, generation=3)]
    for one in both:
        joins.add(one)
    assert joins.take_unanswered(3, 100 * _S, 200 * _S) == []  # the mark may be older than it
    assert joins.take_unanswered(4, 0, 200 * _S) == []  # its row may still come
    assert joins.take_unanswered(4, 100 * _S, 200 * _S) == both


def test_it_is_let_go_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadow.joins.CAPTURES_HELD_MAX", 2)
    joins = Joins(EXCHANGES)
    joins.want(cancel(5, read_s=1))
    joins.add(held(ALL))
    assert joins.take_unanswered(1, 100 * _S, 200 * _S) == []
    joins.add(held(ALL))
    assert joins.is_full
    assert len(joins.take_unanswered(2, 100 * _S, 200 * _S)) == 2


@pytest.mark.parametrize("target", [f"{ALL}/5", ALL])
def test_a_request_that_was_made_again_is_kept_for_its_own_time(target: str) -> None:
    joins = Joins(EXCHANGES)
    first, again = held(target, read_s=0), held(target, read_s=9)
    joins.add(first)
    joins.add(again)
    joins.add(held(f"{ALL}/6", read_s=5))
    assert joins.take_unanswered(1, 1 * _S, 11 * _S) == [first]
    assert joins.waiting == 2
    assert len(joins.take_unanswered(2, 6 * _S, 16 * _S)) == 1
    assert joins.take_unanswered(3, 10 * _S, 20 * _S) == [again]


def test_a_cancel_of_everything_is_of_its_account_and_of_what_it_names() -> None:
    joins = Joins(EXCHANGES)
    kept = held(f"{ALL}?market=BTC-USD&side=sell")
    joins.add(kept)
    joins.add(held(ALL, account=9))
    assert joins.give_up(cancel(5, side=Side.SELL), SCALE) is not None
    assert joins.give_up(cancel(6, side=Side.SELL), SCALE) is not None
    assert joins.give_up(cancel(7, side=Side.BUY), SCALE) is None
    assert joins.give_up(cancel(8, account=8, side=Side.SELL), SCALE) is None
    assert kept.entry.open == 3  # itself, and what the two orders hold of it
