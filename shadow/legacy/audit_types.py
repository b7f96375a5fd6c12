"""What an audit of the mapping reads, and what it finds. Plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from engine.types import OrderType
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.limits import AUDIT_SAMPLES_MAX
from shadow.operation import LegacyFill, OrderImage

Row = Mapping[str, str | None]  # column -> PostgreSQL's text, None for NULL


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The newest orders of the monolith and the fills that concern them, at one moment."""

    orders: tuple[Row, ...]  # in the order of their ids, the newest last
    others: tuple[Row, ...] = ()  # older orders that the fills name
    fills: tuple[Row, ...]  # in the order of their ids
    now_us: int  # the server's clock, when the transaction that read them began
    # Order ids from here on have all their fills among `fills`; None: no order has.
    filled_from_id: int | None = 0
    # Whether an order was inserted while we read: then the newest one is no older than that.
    is_active: bool = False
    # Where the server keeps commit times: of a row of `orders` or `fills`, by its place in it.
    orders_committed_us: Mapping[int, int] = {}
    fills_committed_us: Mapping[int, int] = {}


class Weight(StrEnum):
    PROBLEM = "problem"  # the mapping and the data are at odds
    NOTE = "note"  # may be as it should be; look at it


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not add up."""

    check: str  # a short name that stays
    weight: Weight = Weight.PROBLEM
    key: str  # of the configuration, e.g. "mapping.orders.side.map"
    seen: str
    rows: tuple[str, ...] = ()  # a few of those concerned, e.g. "orders 17"
    consequence: str
    next_step: str


class InstrumentTold(msgspec.Struct, frozen=True, kw_only=True):
    """What the mapping makes of one instrument: for a person to compare with what they know."""

    symbol: str
    orders: int
    fills: int
    open_buys: int
    open_sells: int
    best_bid: str  # "" when there is none among the orders read
    best_ask: str


class ValueTold(msgspec.Struct, frozen=True, kw_only=True):
    """One value of an enumerated column."""

    key: str
    value: str  # as the database has it; "NULL" for none
    word: str  # ours; "" when the mapping has none
    orders: int  # rows that have it


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    orders: int  # rows read, those counted below included
    hidden: int  # outside mapping.orders.where
    unconfigured: int  # of instruments that are not configured
    unreadable: int
    fills: int
    instruments: tuple[InstrumentTold, ...]
    values: tuple[ValueTold, ...]
    oddities: tuple[Oddity, ...]  # problems first

    @property
    def problems(self) -> int:
        return sum(one.weight is Weight.PROBLEM for one in self.oddities)


class SeenOrder(msgspec.Struct, frozen=True, kw_only=True):
    image: OrderImage
    row: Row
    is_recent: bool  # one of `Recent.orders`

    @property
    def limit_ticks(self) -> int | None:
        """None for a market order."""
        return self.image.price_ticks if self.image.ord_type == OrderType.LIMIT else None


class SeenFill(msgspec.Struct, frozen=True, kw_only=True):
    fill: LegacyFill
    row: Row


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """A fill whose two orders are both known."""

    seen: SeenFill
    maker: SeenOrder
    taker: SeenOrder

    @property
    def price_ticks(self) -> int:
        return self.seen.fill.price_ticks


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The rows as the mapping reads them."""

    recent: Recent
    mapping: LegacyMapping
    orders: dict[int, SeenOrder]  # readable ones, by id
    fills: tuple[SeenFill, ...]
    met: tuple[Met, ...]
    inside: tuple[Row, ...]  # orders read that the filter lets through
    broken: tuple[tuple[Row, str], ...]  # unreadable orders of configured instruments, and why
    broken_fills: tuple[tuple[Row, str], ...]
    repeated: tuple[int, ...]  # order ids that several rows have
    hidden_ids: frozenset[int]  # orders outside the filter
    broken_ids: frozenset[int]
    strangers: Mapping[str, int]  # orders by symbols that are not configured
    stranger_ids: frozenset[int]
    hidden_fills: tuple[Row, ...]  # outside the filter of the fills

    def order_names(self, ids: Iterable[int]) -> tuple[str, ...]:
        """A few of them, as an oddity shows them."""
        return few(f"{self.mapping.orders.table} {one}" for one in sorted(ids))

    def fill_names(self, fills: Iterable[SeenFill]) -> tuple[str, ...]:
        return few(f"{self.mapping.fills.table} {one.fill.fill_id}" for one in fills)

    def row_names(self, rows: Iterable[Row], *, fills: bool = False) -> tuple[str, ...]:
        of = self.mapping.fills if fills else self.mapping.orders
        return few(f"{of.table} {row.get(of.id.column)}" for row in rows)


def few(names: Iterable[str]) -> tuple[str, ...]:
    listed = list(dict.fromkeys(names))
    more = len(listed) - AUDIT_SAMPLES_MAX
    if more <= 0:
        return tuple(listed)
    return (*listed[:AUDIT_SAMPLES_MAX], f"and {more} more")


def counted(number: int, what: str) -> str:
    """
    >>> counted(1, "order"), counted(3, "fill")
    ('1 order', '3 fills')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")
