"""What an enemy of the engine would send: books and commands that cost the most, one at a time.

Each scenario fills a book of its own, gives the operations that are to be timed singly, and empties
the book again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.bench.workload import EPOCH, Rows
from bridge.bench.workload_pair import PRICE_TICKS_MAX, IntArray
from engine.limits import LEVELS_PER_SIDE_MAX, MASS_CANCEL_MAX, STOPS_PER_BOOK_MAX
from engine.types import CommandKind, MassCancelScope, OrderType, Side, TimeInForce
from engine.wire import COMMAND_DTYPE

ONE_PRICE = 50_000
LEVELS = 100_000
SWEEP = 5_000
STOPS = 10_000
TIMED = 1_000  # operations of a kind, where one does not use the book up
SWEEPS = 20
MIDDLE = PRICE_TICKS_MAX // 2
CROWD, ENEMY = 1, 2  # accounts

assert LEVELS + TIMED <= LEVELS_PER_SIDE_MAX
assert STOPS <= STOPS_PER_BOOK_MAX


class Operations(NamedTuple):
    what: str
    rows: Rows  # each to be timed alone


class Scenario(NamedTuple):
    before: Rows
    timed: tuple[Operations, ...]
    after: Rows  # empties the book


def scenarios(size: float = 1.0) -> list[Scenario]:
    """One for each instrument, from 1 on; `size` 1 is an enemy's, less is for a quick look."""
    makers = [_one_price, _levels, _sweep_one_price, _sweep_levels]
    makers += [_stops_in_a_chain, _stops_at_once, _mass_cancel]
    return [make(number, size) for number, make in enumerate(makers, 1)]


def _one_price(instrument: int, size: float) -> Scenario:
    """All orders in one queue."""
    count, timed = _scaled(ONE_PRICE, size), _scaled(TIMED, size)
    ids = _ids(instrument, count)
    middle = count // 2
    again = _orders(instrument, ids[-timed:], Side.BUY, MIDDLE)
    canceled = (ids[:timed], ids[middle : middle + timed], ids[-timed:])
    left = np.setdiff1d(ids, np.concatenate(canceled))
    names = ("the oldest", "one in the middle", "the newest")
    return Scenario(
        before=_orders(instrument, ids, Side.BUY, MIDDLE),
        timed=(
            Operations(f"an id that is open, {count:,} orders", again),
            *(
                Operations(f"cancel {name} of {count:,} at one price", _cancels(instrument, those))
                for name, those in zip(names, canceled, strict=True)
            ),
        ),
        after=_cancels(instrument, left),
    )


def _levels(instrument: int, size: float) -> Scenario:
    """Every order at a price of its own; the worst prices move all others aside."""
    count, timed = _scaled(LEVELS, size), _scaled(TIMED, size)
    ids = _ids(instrument, count + timed)
    prices = MIDDLE + 2 * np.arange(count)
    far, between = ids[count : count + timed // 2], ids[count + timed // 2 :]
    gaps = MIDDLE + 1 + 2 * (np.arange(len(between)) * (count // len(between)))
    worse = MIDDLE - 1 - np.arange(len(far))
    held = f"{count:,} prices"
    return Scenario(
        before=_orders(instrument, ids[:count], Side.BUY, prices),
        timed=(
            Operations(f"a worse price than {held}", _orders(instrument, far, Side.BUY, worse)),
            Operations(f"a new price between {held}", _orders(instrument, between, Side.BUY, gaps)),
            Operations(f"cancel the worst of {held}", _cancels(instrument, far[::-1])),
            Operations(f"cancel between {held}", _cancels(instrument, between)),
        ),
        after=_cancels(instrument, ids[:count][::-1]),
    )


def _sweep_one_price(instrument: int, size: float) -> Scenario:
    count, sweeps = _scaled(SWEEP, size), _scaled(SWEEPS, size)
    ids = _ids(instrument, sweeps * (count + 1))
    makers, takers = ids[: sweeps * count], ids[sweeps * count :]
    return Scenario(
        before=_orders(instrument, makers, Side.SELL, MIDDLE),
        timed=(
            Operations(
                f"one IOC fills {count:,} orders at one price",
                _orders(instrument, takers, Side.BUY, MIDDLE, qty=count, tif=TimeInForce.IOC),
            ),
        ),
        after=_none(),
    )


def _sweep_levels(instrument: int, size: float) -> Scenario:
    count, sweeps = _scaled(SWEEP, size), _scaled(SWEEPS, size)
    ids = _ids(instrument, sweeps * (count + 1))
    makers, takers = ids[: sweeps * count], ids[sweeps * count :]
    prices = MIDDLE + np.arange(len(makers))[::-1]
    return Scenario(
        before=_orders(instrument, makers, Side.SELL, prices),
        timed=(
            Operations(
                f"one IOC fills {count:,} orders at {count:,} prices",
                _orders(
                    *(instrument, takers, Side.BUY, PRICE_TICKS_MAX),
                    qty=count,
                    tif=TimeInForce.IOC,
                ),
            ),
        ),
        after=_none(),
    )


def _stops_in_a_chain(instrument: int, size: float) -> Scenario:
    """Each stop's trade triggers the next one."""
    count = _scaled(STOPS, size)
    prices = MIDDLE + np.arange(count + 1)
    return _stops(instrument, prices, prices[:-1], f"{count:,} stops, each triggers the next")


def _stops_at_once(instrument: int, size: float) -> Scenario:
    count = _scaled(STOPS, size)
    prices = np.full(count + 1, MIDDLE)
    return _stops(instrument, prices, prices[:-1], f"{count:,} stops, one trade triggers all")


def _stops(instrument: int, prices: IntArray, stop_prices: IntArray, what: str) -> Scenario:
    """Sell orders of one lot at `prices`, and one stop that buys for each but the first."""
    count = len(stop_prices)
    ids = _ids(instrument, 2 * count + 4)
    calm, taker = ids[-3:-1], ids[-1:]
    stops = _orders(instrument, ids[count + 1 : 2 * count + 1], Side.BUY, 0)
    stops["ord_type"] = OrderType.STOP
    stops["aux"] = stop_prices
    return Scenario(
        before=np.concatenate(
            (
                # a trade far below: no stop may be triggered by what an earlier round left
                _orders(instrument, calm[:1], Side.SELL, 1),
                _orders(instrument, calm[1:], Side.BUY, 1, tif=TimeInForce.IOC),
                _orders(instrument, ids[: count + 1], Side.SELL, prices),
                stops,
            )
        ),
        timed=(
            Operations(
                what, _orders(instrument, taker, Side.BUY, int(prices[0]), tif=TimeInForce.IOC)
            ),
        ),
        after=_none(),
    )


def _mass_cancel(instrument: int, size: float) -> Scenario:
    """One account's orders, as many as one command may cancel, among those of others."""
    count, others = _scaled(MASS_CANCEL_MAX, size), _scaled(ONE_PRICE, size)
    ids = _ids(instrument, count + others)
    orders = _orders(instrument, ids, Side.BUY, MIDDLE - np.arange(len(ids)) % 1_000)
    enemy = np.random.default_rng(1).permutation(len(ids))[:count]
    orders["account"][enemy] = ENEMY
    mass = np.zeros(1, COMMAND_DTYPE)
    mass["kind"] = CommandKind.MASS_CANCEL
    mass["instrument"], mass["epoch"] = instrument, EPOCH
    mass["account"], mass["aux"] = ENEMY, MassCancelScope.ACCOUNT
    return Scenario(
        before=orders,
        timed=(Operations(f"mass cancel {count:,} of {len(ids):,} orders", mass),),
        after=_cancels(instrument, np.delete(ids, enemy)),
    )


# --- rows


def _scaled(count: int, size: float) -> int:
    return max(2, int(count * size))


def _ids(instrument: int, count: int) -> IntArray:
    return instrument * 10**6 + np.arange(count)


def _none() -> Rows:
    return np.zeros(0, COMMAND_DTYPE)


def _orders(
    instrument: int,
    ids: IntArray,
    side: Side,
    prices: IntArray | int,
    *,
    qty: int = 1,
    tif: TimeInForce = TimeInForce.GTC,
) -> Rows:
    rows: npt.NDArray[Any] = np.zeros(len(ids), COMMAND_DTYPE)
    rows["kind"], rows["side"] = CommandKind.NEW, side
    rows["ord_type"], rows["tif"] = OrderType.LIMIT, tif
    rows["instrument"], rows["epoch"] = instrument, EPOCH
    rows["account"], rows["order_id"] = CROWD, ids
    rows["price_ticks"], rows["qty_lots"] = prices, qty
    return rows


def _cancels(instrument: int, ids: IntArray) -> Rows:
    rows: npt.NDArray[Any] = np.zeros(len(ids), COMMAND_DTYPE)
    rows["kind"] = CommandKind.CANCEL
    rows["instrument"], rows["epoch"] = instrument, EPOCH
    rows["account"], rows["order_id"] = CROWD, ids
    return rows
