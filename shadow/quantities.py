"""What an order's rows do not say of its quantity, worked out from its fills. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shadow.operation import LegacyFill, OrderImage


def as_ordered(first: OrderImage, last: OrderImage, fills: Iterable[LegacyFill]) -> OrderImage:
    """The order as first written, with the quantity that was ordered. `last`: its final image;
    `fills`: its own as the taker, of the same operation.

    A row that says only what is open is written before it is matched, and again afterwards; or
    once, with what was left.
    """
    if first.qty_lots is not None or first.leaves_lots is None:
        return first
    qty_lots = first.leaves_lots
    if last.leaves_lots == first.leaves_lots:
        qty_lots += sum(fill.qty_lots for fill in fills)
    return msgspec.structs.replace(first, qty_lots=qty_lots)
