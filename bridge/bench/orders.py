"""A stationary flow of orders for the benchmarks, made as whole arrays.

A cycle of commands is made once; each repetition shifts its order ids. Every resting order is
canceled later in the same cycle, so that books stay as large as the flow makes them and no larger.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.outcomes import Rows
from engine.types import CommandKind, OrderType, Side, TimeInForce
from engine.wire import COMMAND_DTYPE

CYCLE = 2**18
LIFE_COMMANDS_MIN = 4_096  # between an order and its cancel: it must not overtake the order
LIFE_COMMANDS_MEAN = 16_384
MID_TICKS = 100_000
SHARE_TAKING = 0.2  # of what is not a cancel: IOC, of which some are market orders
SHARE_MARKET = 0.2
CROSSING = 0.10  # of the limit orders

IntArray = npt.NDArray[np.int64]


class OrderFlow:
    def __init__(self, *, instruments: int, epoch: int, seed: int, first_order_id: int = 1) -> None:
        self._cycle = _cycle(np.random.default_rng(seed), instruments, epoch)
        self._shift = first_order_id
        self._at = 0
        kinds, tifs = self._cycle["kind"], self._cycle["tif"]
        is_market = self._cycle["ord_type"] == OrderType.MARKET
        shares = {
            "limit_gtc": tifs == TimeInForce.GTC,
            "limit_ioc": (tifs == TimeInForce.IOC) & ~is_market,
            "market": is_market,
            "cancel": kinds == CommandKind.CANCEL,
        }
        self.mix = {name: round(float(chosen.mean()), 3) for name, chosen in shares.items()}

    def take(self, count: int) -> Rows:
        """The next commands, without references."""
        parts = []
        while count:
            rows = self._cycle[self._at : self._at + count].copy()
            rows["order_id"] += np.uint64(self._shift)
            parts.append(rows)
            count -= len(rows)
            self._at += len(rows)
            if self._at == CYCLE:
                self._at = 0
                self._shift += CYCLE
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _cycle(random: np.random.Generator, instruments: int, epoch: int) -> Rows:
    rows = np.zeros(CYCLE, COMMAND_DTYPE)
    order_of, rests = _cancels(random)
    is_cancel = order_of >= 0
    orders = np.flatnonzero(~is_cancel)
    rows["kind"] = np.where(is_cancel, CommandKind.CANCEL, CommandKind.NEW)
    rows["epoch"] = epoch
    rows["order_id"] = np.where(is_cancel, order_of, np.arange(CYCLE))
    rows["instrument"] = random.integers(1, instruments + 1, CYCLE)
    rows["account"] = random.integers(1, 10_000, CYCLE)
    canceled = order_of[is_cancel]
    for name in ("instrument", "account"):
        rows[name][is_cancel] = rows[name][canceled]
    _fill_orders(random, rows, orders, rests)
    return rows


def _cancels(random: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Which positions cancel which earlier one, -1 for orders; and which orders rest."""
    order_of: IntArray = np.full(CYCLE, -1, np.int64)
    rests = np.zeros(CYCLE, np.bool_)
    lives = LIFE_COMMANDS_MIN + random.exponential(LIFE_COMMANDS_MEAN, CYCLE).astype(np.int64)
    takes = (random.random(CYCLE) < SHARE_TAKING).tolist()
    due: list[tuple[int, int]] = []  # (when to cancel, the order)
    for at, life in enumerate(lives.tolist()):
        is_ending = CYCLE - at - 1 <= len(due)  # no room to cancel another one later
        if due and (due[0][0] <= at or is_ending):
            order_of[at] = heapq.heappop(due)[1]
        elif not takes[at] and not is_ending:
            rests[at] = True
            heapq.heappush(due, (at + life, at))
    return order_of, rests


def _fill_orders(
    random: np.random.Generator, rows: Rows, orders: IntArray, rests: npt.NDArray[Any]
) -> None:
    count = len(orders)
    side = random.integers(Side.BUY, Side.SELL + 1, count)
    away = 1 + random.geometric(0.05, count)
    away = np.where(random.random(count) < CROSSING, -away // 4, away)
    is_market = ~rests[orders] & (random.random(count) < SHARE_MARKET)
    away = np.where(rests[orders], away, -5)  # what does not rest comes to trade
    price = MID_TICKS - np.where(side == Side.BUY, away, -away)
    rows["side"][orders] = side
    rows["qty_lots"][orders] = random.integers(1, 101, count)
    rows["ord_type"][orders] = np.where(is_market, OrderType.MARKET, OrderType.LIMIT)
    rows["price_ticks"][orders] = np.where(is_market, 0, price)
    rows["tif"][orders] = np.where(rests[orders], TimeInForce.GTC, TimeInForce.IOC)
