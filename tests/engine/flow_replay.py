"""A recorded order flow through a market: what the exchange was asked, what it filled, and what we
fill.

Three things of the record are input: an order created, an order deleted while something of it was
open (a cancel), and an order that appears at another price (the exchange's market orders walk
through the book like that: each step is published before the fills at it). When such a step also
changes the amount, the order was one for a sum of money, counted anew at the new price: no trade
belongs to it. Every other drop of an open amount is a fill: what we compare with.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from market_driver import BTC, BUY, SELL, cancel, define, new, opened

from bridge.sandbox.flow import FlowEventKind, is_cancel, read_rows
from engine.market import Market
from engine.types import Command, EventKind
from engine.wire import decode_events, encode_command

TICKS, LOTS = 100, 10**8  # in a dollar, in a bitcoin
FIRST_BOOK_MS = 1_400  # when the first full book was published, after the first row


class Row(NamedTuple):
    number: int
    ms: int  # after the first row
    event: FlowEventKind
    order_id: int
    side: int
    price_ticks: int
    open_lots: int  # after the event; on a trade what was traded
    is_cancel: bool


class Level(NamedTuple):
    side: int
    price_ticks: int


def flow_directory() -> Path:
    """Skips the test, saying so, where the record is not there."""
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("RAILSWITCH_FLOW_DATA") or root.parent / "shared" / "data")
    directory = data / "bitstamp-2015-05-01"
    if not (directory / "events.csv.xz").is_file():
        pytest.skip(
            f"SKIPPED, not passed: there is no real order flow in {directory}; "
            "RAILSWITCH_FLOW_DATA names the directory that holds bitstamp-2015-05-01"
        )
    return directory


def recorded(directory: Path) -> list[Row]:
    sides = {"buy": BUY, "sell": SELL, "": 0}
    rows = list(read_rows(directory / "events.csv.xz"))
    return [
        Row(
            number,
            row.received_ms - rows[0].received_ms,
            row.event,
            row.order_id,
            sides[row.side],
            _exact(row.price, TICKS),
            _exact(row.amount, LOTS),
            is_cancel(row),
        )
        for number, row in enumerate(rows)
    ]


def first_book(directory: Path) -> dict[Level, int]:
    with (directory / "first_book.csv").open(newline="") as lines:
        return {
            Level(BUY if row["side"] == "buy" else SELL, _exact(row["price"], TICKS)): _exact(
                row["amount"], LOTS
            )
            for row in csv.DictReader(lines)
        }


def _exact(text: str, unit: int) -> int:
    scaled = Decimal(text) * unit
    assert scaled == int(scaled), f"{text} is not a whole number of 1/{unit}"
    return int(scaled)


class Flow:
    """The record, order by order."""

    def __init__(self, rows: Sequence[Row], book: Mapping[Level, int]) -> None:
        self.rows = rows
        self.trades = [row for row in rows if row.event is FlowEventKind.TRADE]
        self.of_order: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            if row.event is not FlowEventKind.TRADE:
                self.of_order[row.order_id].append(row)
        for own in self.of_order.values():
            # Rows of one moment come in any order: a creation belongs before all else.
            own.sort(key=lambda row: row.event is not FlowEventKind.CREATED)
        self.created = {
            order_id
            for order_id, own in self.of_order.items()
            if own[0].event is FlowEventKind.CREATED
        }
        self.start, self.unpublished = self._starting_book(book)

    def _starting_book(self, book: Mapping[Level, int]) -> tuple[dict[int, Row], list[int]]:
        """The orders open when the first book was published, with what was open of them; and those
        whose amount was never published.

        An order that is later canceled untouched had then what it has at the end. Otherwise it had
        what the first book shows at its price beyond the others there; of several such orders at
        one price only the sum is known, and the oldest stands for all.
        """
        start: dict[int, Row] = {}
        unknown: dict[Level, list[Row]] = defaultdict(list)
        known_lots: Counter[Level] = Counter()
        for order_id in sorted(self.of_order):
            first = self.of_order[order_id][0]
            level = Level(first.side, first.price_ticks)
            is_new = order_id in self.created
            if (first.ms < FIRST_BOOK_MS) != is_new:
                continue  # closed before the first book, or created after it
            if first.is_cancel:
                start[order_id] = first
                known_lots[level] += first.open_lots
            else:
                unknown[level].append(first)
        unpublished = []
        for level, firsts in unknown.items():
            rest_lots = book.get(level, 0) - known_lots[level]
            if rest_lots > 0:
                start[firsts[0].order_id] = firsts[0]._replace(open_lots=rest_lots)
                firsts = firsts[1:]
            if level not in book:
                unpublished += [first.order_id for first in firsts]
        return start, unpublished

    def start_lots(self) -> dict[Level, int]:
        lots: Counter[Level] = Counter()
        for row in self.start.values():
            lots[Level(row.side, row.price_ticks)] += row.open_lots
        return lots

    def fills(self) -> Iterator[tuple[Row, int]]:
        """Each row that published a fill since the first book, and how much of its order it was."""
        for order_id, own in self.of_order.items():
            if order_id not in self.start and order_id not in self.created:
                continue  # what it had before its first row is not known
            last = self.start.get(order_id, own[0])
            for row in own:
                if row.ms < FIRST_BOOK_MS:
                    continue
                if row.price_ticks == last.price_ticks and row.open_lots < last.open_lots:
                    yield row, last.open_lots - row.open_lots
                last = row

    def filled(self) -> dict[int, int]:
        """What the exchange filled, since the first book, of each order whose amounts we know."""
        lots = dict.fromkeys(self.created | set(self.start), 0)
        for row, drop_lots in self.fills():
            lots[row.order_id] += drop_lots
        return lots

    def dropped(self) -> dict[int, int]:
        """What a plain reading takes for fills: every drop of a new order that is no cancel."""
        return {
            order_id: self.of_order[order_id][0].open_lots - self.of_order[order_id][-1].open_lots
            for order_id in self.created
        }

    def recounted(self) -> set[int]:
        """Orders for a sum of money: their amount changed together with their price."""
        return {
            row.order_id
            for own in self.of_order.values()
            for last, row in pairwise(own)
            if row.price_ticks != last.price_ticks and row.open_lots != last.open_lots
        }

    def unpublished_from_trades(self) -> dict[int, int]:
        """What the trades say of the starting amounts that nobody published: the first row of such
        an order came with one trade at its price. An answer, to explain with: never an input.
        """
        amounts = {}
        for order_id in self.unpublished:
            first = self.of_order[order_id][0]
            near = [t for t in self.trades if t.price_ticks == first.price_ticks]
            trade = min(near, key=lambda trade: abs(trade.ms - first.ms))
            amounts[order_id] = first.open_lots + trade.open_lots
        return amounts


class Replay:
    """The record's inputs, one after the other, through a market."""

    def __init__(self, market: Market) -> None:
        self.filled_lots: Counter[int] = Counter()
        self.met: dict[int, set[int]] = defaultdict(set)
        self._market = market
        driver = opened(market)
        driver.send(define(BTC, "BTC-USD", price_ticks_max=10**9, qty_lots_max=10**15))
        self._ref = 0

    def naive(self, flow: Flow) -> None:
        """From an empty book, in file order, creations and cancels alone."""
        for row in flow.rows:
            if row.event is FlowEventKind.CREATED:
                self._place(row, row.open_lots)
            elif row.is_cancel:
                self._cancel(row)

    def run(self, flow: Flow, more: Mapping[int, int] | None = None) -> None:
        """From the starting book, with `more` orders of it (id to amount)."""
        start = dict(flow.start)
        for order_id, lots in (more or {}).items():
            start[order_id] = flow.of_order[order_id][0]._replace(open_lots=lots)
        last: dict[int, Row] = {}
        canceled: set[int] = set()
        for order_id in sorted(start):  # the exchange's ids ascend: the oldest comes first
            self._place(start[order_id], start[order_id].open_lots)
            last[order_id] = start[order_id]
        for row in flow.rows:
            if row.ms < FIRST_BOOK_MS or row.event is FlowEventKind.TRADE:
                continue
            if row.event is FlowEventKind.CREATED:
                if row.order_id not in canceled:  # else published after its own cancel
                    self._place(row, row.open_lots)
            elif row.is_cancel:
                self._cancel(row)
                canceled.add(row.order_id)
            elif row.order_id in last and row.price_ticks != last[row.order_id].price_ticks:
                self._move(row, last[row.order_id].open_lots - row.open_lots)
            last[row.order_id] = row

    def _place(self, row: Row, lots: int) -> None:
        self._send(new(row.order_id, row.side, row.price_ticks, lots, ref=self._next_ref()))

    def _cancel(self, row: Row) -> int:
        """Returns what was open."""
        return self._send(cancel(row.order_id, ref=self._next_ref()))

    def _move(self, row: Row, recounted_lots: int) -> None:
        """To the row's price, with what we (not the exchange) have open of it."""
        lots = self._cancel(row) - recounted_lots
        if lots > 0:
            self._place(row, lots)

    def _next_ref(self) -> int:
        self._ref += 1
        return self._ref

    def _send(self, command: Command) -> int:
        canceled_lots = 0
        for event in decode_events(self._market.apply(encode_command(command), self._ref)):
            if event.kind is EventKind.FILL:
                for order_id, other in (
                    (event.order_id, event.contra_id),
                    (event.contra_id, event.order_id),
                ):
                    self.filled_lots[order_id] += event.qty_lots
                    self.met[order_id].add(other)
            elif event.kind is EventKind.CANCELED:
                canceled_lots = event.qty_lots
        return canceled_lots

    def disagreeing(self, truth: Mapping[int, int]) -> list[int]:
        return sorted(each for each, lots in truth.items() if self.filled_lots[each] != lots)
