"""What the clients of a load run asked for and were told: the client's side of the final audit."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from bridge.limits import LOAD_LATENCY_US_MAX, LOAD_SAMPLES_MAX


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a client asked for it, in the monolith's words."""

    symbol: str
    member: int
    side: str  # buy, sell
    order_type: str  # limit, market
    time_in_force: str  # gtc, ioc
    price: Decimal | None  # None for a market order
    quantity: Decimal


class FillTold(msgspec.Struct, frozen=True):
    """Decoded straight from an answer's `trades`."""

    price: Decimal
    quantity: Decimal
    maker_order_id: int


class ClientOrder(msgspec.Struct, kw_only=True):
    """An order that a client has an answer for. Only answers to cancels ever change it."""

    order_id: int
    wish: Wish
    phase: str  # of the load when it was sent
    state: str  # as answered: open, filled, cancelled
    remaining: Decimal  # as answered
    fills: tuple[FillTold, ...]  # in which it was the taker
    cancelled_remaining: Decimal | None = None  # as the answer to its cancel said
    request: str = ""  # whose answer told of it; a bulk request's told of several
    closed: bool = False  # an answer said that it is not open, or that nothing of its kind is left


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was not answered with success."""

    reason: str  # of the client, or "status 503"
    possible: bool  # that it had an effect; False: refused, or it never left
    wish: Wish | None = None  # of a place
    order_id: int = 0  # of a cancel


class Samples:
    """Every latency with its time and symbol, for curves; bounded, what is beyond is counted."""

    def __init__(self) -> None:
        self.at_s = array("d")  # wall clock of the answer
        self.symbol = array("H")  # index in `symbols`
        self.latency_us = array("I")  # from the scheduled time
        self.symbols: list[str] = []
        self.left_out = 0

    def add(self, at_s: float, symbol: str, latency_us: int) -> None:
        if len(self.at_s) >= LOAD_SAMPLES_MAX:
            self.left_out += 1
            return
        if symbol not in self.symbols:
            self.symbols.append(symbol)
        self.at_s.append(at_s)
        self.symbol.append(self.symbols.index(symbol))
        self.latency_us.append(min(latency_us, LOAD_LATENCY_US_MAX))


class LoadResult:
    """Grows while the load runs; `Load.stop` hands it out.

    `requests` = `answered` + the sum of `failed`. `latencies` counts every request that was
    answered, in microseconds from its scheduled time, by (phase, symbol).
    """

    def __init__(self) -> None:
        self.requests = 0
        self.answered = 0
        self.statuses: dict[int, int] = {}
        self.failed: dict[str, int] = {}  # no answer, by reason
        self.skipped: dict[str, int] = {}  # never sent, by reason: not among the requests
        self.orders: dict[int, ClientOrder] = {}
        self.unanswered: list[Unanswered] = []
        self.wrong: list[str] = []  # answers that contradict their request or an earlier answer
        self.members: set[int] = set()
        self.latencies: dict[tuple[str, str], Any] = {}  # HdrHistogram
        self.samples = Samples()

    def count_answer(
        self, status: int, at_s: float, phase: str, symbol: str, latency_us: int
    ) -> None:
        self.answered += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        histogram = self.latencies.get((phase, symbol))
        if histogram is None:
            histogram = self.latencies[(phase, symbol)] = new_histogram()
        histogram.record_value(max(1, min(latency_us, LOAD_LATENCY_US_MAX)))
        self.samples.add(at_s, symbol, latency_us)

    def count_failure(self, failure: Unanswered) -> None:
        self.failed[failure.reason] = self.failed.get(failure.reason, 0) + 1
        self.unanswered.append(failure)

    def count_skipped(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def latency(self, phase: str = "", symbol: str = "") -> Any:
        """One HdrHistogram of the phases and symbols asked for; "" stands for all."""
        merged = new_histogram()
        for (one_phase, one_symbol), histogram in self.latencies.items():
            if phase in ("", one_phase) and symbol in ("", one_symbol):
                merged.add(histogram)
        return merged


def new_histogram() -> Any:
    return HdrHistogram(1, LOAD_LATENCY_US_MAX, 3)


def orders_of(results: Iterable[LoadResult]) -> dict[int, ClientOrder]:
    """Of several runs, by id; an id that two runs were told is a contradiction of the first one."""
    orders: dict[int, ClientOrder] = {}
    for result in results:
        for order_id, order in result.orders.items():
            if order_id in orders:
                result.wrong.append(f"order id {order_id} was told twice")
            orders[order_id] = order
    return orders
