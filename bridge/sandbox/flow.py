"""Recorded order flow: a public feed of every order that an exchange handled, read row by row.

The file is CSV (or CSV in xz) with the columns received_ms, event, order_id, side, price, amount.
`read_rows` gives what was published; `read_flow` gives what clients must have asked for.
"""

from __future__ import annotations

import csv
import lzma
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import IO, Literal

import msgspec

from bridge.errors import FlowUnreadable

COLUMNS = ("received_ms", "event", "order_id", "side", "price", "amount")


class FlowEventKind(StrEnum):
    CREATED = "order_created"
    CHANGED = "order_changed"
    DELETED = "order_deleted"
    TRADE = "trade"


class FlowRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row as published; the file's order is the order of publication."""

    received_ms: int  # since 1970, the recorder's clock
    event: FlowEventKind
    order_id: int  # the exchange's; on a trade the trade's
    side: str  # "buy", "sell"; "" on a trade
    price: str  # decimal, as published; on a trade the traded price
    amount: str  # decimal: still open after the event; on a trade the traded amount


class FlowEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One request that a client made."""

    kind: Literal["place", "cancel"]
    order_id: int  # the recorded exchange's
    side: str  # "buy" or "sell"
    price: str  # decimal, as published
    quantity: str  # decimal; place: as ordered; cancel: what was open then
    received_ms: int


def read_rows(path: Path) -> Iterator[FlowRow]:
    """Raises FlowUnreadable, with the line, for what is no such file."""
    try:
        with _opened(path) as lines:
            reader = csv.reader(lines)
            header = tuple(next(reader, ()))
            if header != COLUMNS:
                raise FlowUnreadable(
                    f"{path}: its columns are {', '.join(header) or 'missing'}; "
                    f"an order flow has {', '.join(COLUMNS)}"
                )
            for number, fields in enumerate(reader, start=2):
                yield _row(path, number, fields)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, csv.Error) as error:
        raise FlowUnreadable(f"{path}: the order flow can't be read: {error}") from error


def read_flow(path: Path) -> Iterator[FlowEvent]:
    """A new order for each that was created, a cancel for each that was deleted while open.

    In file order, but for this: rows of the same few milliseconds are published in any order, and
    the deletion of an order may come before its creation; such a cancel follows its order. Left out
    are deletions that were published before, and those of orders older than the recording. Raises
    FlowUnreadable.
    """
    created: set[int] = set()
    deleted: dict[int, FlowRow] = {}
    for row in read_rows(path):
        if row.event is FlowEventKind.CREATED:
            created.add(row.order_id)
            yield _event("place", row)
            if row.order_id in deleted:
                yield _event("cancel", deleted[row.order_id])
        elif is_cancel(row) and row.order_id not in deleted:
            deleted[row.order_id] = row
            if row.order_id in created:
                yield _event("cancel", row)


def is_cancel(row: FlowRow) -> bool:
    """Whether it took a part that was still open out of the book."""
    return row.event is FlowEventKind.DELETED and row.amount.strip("0.") != ""


def _event(kind: Literal["place", "cancel"], row: FlowRow) -> FlowEvent:
    return FlowEvent(
        kind=kind,
        order_id=row.order_id,
        side=row.side,
        price=row.price,
        quantity=row.amount,
        received_ms=row.received_ms,
    )


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _row(path: Path, number: int, fields: list[str]) -> FlowRow:
    try:
        received_ms, event, order_id, side, price, amount = fields
        row = FlowRow(
            received_ms=int(received_ms),
            event=FlowEventKind(event),
            order_id=int(order_id),
            side=side,
            price=_plain(price),
            amount=_plain(amount),
        )
        if side not in (("",) if row.event is FlowEventKind.TRADE else ("buy", "sell")):
            raise ValueError(f"side {side!r} does not belong to {event}")
    except ValueError as error:
        raise FlowUnreadable(f"{path}, line {number}: {error}") from None
    return row


def _plain(text: str) -> str:
    """As published, or without the exponent that some rows carry (1e-06): exchanges take none."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal") from None
    if not number.is_finite() or number < 0:
        raise ValueError(f"{text!r} is neither a price nor an amount")
    return f"{number:f}"
