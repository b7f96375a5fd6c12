"""Orders of a monolith that matches later, in the order in which its daemon handled them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from harness import BTC, SCALES, Client, Shard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peatio import Exchange, Settings, Trade
from peatio_told import open_orders, transactions

from engine.types import Command
from engine.wire import decode_resting_orders
from shadow.book_check import compare_books
from shadow.diff import compare_cancel, compare_place
from shadow.feed import command_of, new_order
from shadow.later import Later, Told
from shadow.operation import (
    Cancel,
    LegacyTransaction,
    Marker,
    Operation,
    OrderInserted,
    OrderUpdated,
    Place,
    Requeue,
    Status,
    open_lots,
)
from shadow.verdict import Difference

RULES = {"3": "stop_level", "2015": "partial_by_funds"}


def taken(later: Later, txs: Iterable[LegacyTransaction]) -> list[Told]:
    return [later.take(tx, lambda symbol: symbol == BTC) for tx in txs]


def flow(settings: Settings, seed: int, actions: int) -> tuple[Exchange, list[Operation]]:
    exchange = Exchange(seed, settings)
    later = Later(RULES[settings.generation])  # type: ignore[arg-type]
    later.start(BTC, ())
    told = taken(later, transactions(exchange.run(actions)))
    return exchange, [operation for one in told for operation in one.ready]


class Reference:
    """The engine's own market, fed with what came out."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.client = Client(self.shard, "feed")
        self.ref = 0

    def load(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.client._send(command)

    def differences(self, operations: Sequence[Operation]) -> Iterator[object]:
        for operation in operations:
            if isinstance(operation, Place | Cancel | Requeue):
                command = command_of(operation, SCALES[BTC].instrument, 0)
                events = self.client._send(command).events
                if isinstance(operation, Place):
                    yield from compare_place(operation, events, "lower_id")
                elif isinstance(operation, Cancel):
                    yield from compare_cancel(operation, events)
                else:
                    assert events[0].order_id == operation.order.order_id
            else:
                yield operation


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    generation=st.sampled_from(["3", "2015"]),
    workers=st.integers(1, 3),
    lag_ms=st.sampled_from([1, 20, 100]),
    prices=st.integers(1, 6),
)
@example(seed=1, generation="3", workers=3, lag_ms=100, prices=2)
def test_what_comes_out_explains_every_fill(
    seed: int, generation: str, workers: int, lag_ms: int, prices: int
) -> None:
    exchange, operations = flow(
        Settings(
            generation=generation,  # type: ignore[arg-type]
            market=BTC,
            workers=workers,
            lag_ms=lag_ms,
            prices=prices,
        ),
        seed,
        150,
    )
    assert list(Reference().differences(operations)) == []
    places = [one for one in operations if isinstance(one, Place)]
    cancels = [one for one in operations if isinstance(one, Cancel)]
    assert sorted(one.order.order_id for one in places) == sorted(exchange.orders)
    assert sum(len(one.fills) for one in places) == len(exchange.trades)
    assert sum(one.reordered for one in places) <= exchange.swapped
    assert sum(one.reordered for one in cancels) <= len(cancels)


def test_without_workers_side_by_side_nothing_but_cancels_moves() -> None:
    _, operations = flow(Settings(market=BTC, workers=1), 7, 2000)
    assert not any(one.reordered for one in operations if isinstance(one, Place))


def test_a_running_market_is_taken_over_with_what_is_under_way() -> None:
    """Some fills of orders in the snapshot are written only afterwards."""
    exchange = Exchange(3, Settings(market=BTC, lag_ms=30, cancel_share=0.05, prices=12))
    txs = transactions(exchange.run(1500))
    for _ in range(900):
        next(txs)
    later, reference = Later("stop_level"), Reference()
    resting = later.start(BTC, open_orders(exchange))
    assert 0 < len(resting) < len(open_orders(exchange))
    instrument = SCALES[BTC].instrument
    reference.load(new_order(one, instrument, open_lots(one)) for one in resting)
    operations = [operation for one in taken(later, txs) for operation in one.ready]
    assert list(reference.differences(operations)) == []
    assert later.undecided(BTC) == 0


def test_at_any_moment_the_rows_explain_the_book_that_was_fed() -> None:
    exchange = Exchange(5, Settings(market=BTC, lag_ms=30))
    later, reference = Later("stop_level"), Reference()
    later.start(BTC, ())
    checked = 0
    for number, tx in enumerate(transactions(exchange.run(1800))):
        told = later.take(tx, lambda symbol: symbol == BTC)
        assert list(reference.differences(told.ready)) == []
        if number % 250 == 0:
            rows = later.as_fed(BTC, open_orders(exchange))
            book = decode_resting_orders(reference.shard.market.orders(SCALES[BTC].instrument))
            assert compare_books(rows, book, by_place=False).equal
            checked += bool(rows) and later.undecided(BTC) > 0
    assert checked > 3


def test_a_fill_at_another_price_than_the_daemons_is_shown() -> None:
    wrong: list[Trade] = []

    def cheat(trade: Trade) -> Trade:
        if len(wrong) == 30:
            return trade
        wrong.append(trade)
        return trade._replace(price=trade.price + 7) if len(wrong) == 30 else trade

    _, operations = flow(Settings(market=BTC, wrong=cheat), 9, 300)
    found = list(Reference().differences(operations))
    assert any("another price" in one.what for one in found if isinstance(one, Difference))


def test_a_market_buy_stops_where_the_rule_says_and_not_elsewhere() -> None:
    """The same flow, told with the rule of the other generation, does not agree."""
    exchange = Exchange(2, Settings(market=BTC, market_share=0.4))
    later = Later("partial_by_funds")
    later.start(BTC, ())
    told = taken(later, transactions(exchange.run(600)))
    found = list(Reference().differences([it for one in told for it in one.ready]))
    assert any(isinstance(one, Difference) for one in found)
    _, operations = flow(Settings(market=BTC, market_share=0.4), 2, 600)
    assert any(isinstance(one, Place) and one.cut_lots for one in operations)
    assert list(Reference().differences(operations)) == []


def test_a_fence_decides_at_once_what_waits() -> None:
    exchange = Exchange(4, Settings(market=BTC))
    later = Later("stop_level")
    later.start(BTC, ())
    txs = list(transactions(exchange.run(100)))[:-2]
    taken(later, txs)
    assert later.undecided(BTC) > 0
    marker = Marker(symbol=BTC, flip_id=1, owner="engine", epoch=2)
    told = later.take(msgspec.structs.replace(txs[-1], changes=(marker,)), lambda symbol: True)
    assert later.undecided(BTC) == 0
    assert list(Reference().differences(told.ready)) == []


def test_an_order_that_is_rejected_before_the_daemon_had_it_is_not_compared() -> None:
    first = next(transactions(Exchange(1, Settings(market=BTC)).run(1)))
    [change] = first.changes
    assert isinstance(change, OrderInserted)
    rejected = msgspec.structs.replace(change.order, status=Status.REJECTED)
    later = Later()
    later.start(BTC, ())
    told = taken(
        later, [first, msgspec.structs.replace(first, changes=(OrderUpdated(order=rejected),))]
    )
    assert [len(one.coming) for one in told] == [1, 0]
    assert [one.order.order_id for one in told[1].dropped] == [change.order.order_id]
    assert later.undecided(BTC) == 0
