"""Was an order passed over: did others trade at a price that it would have given sooner? Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal

from bridge.onboard.evidence import MARGIN_US, OrderSeen


class Passed:
    """Trades by instrument and time, asked for the best price that came after a moment."""

    def __init__(self, prints: Iterable[tuple[str, Decimal, int]]) -> None:
        by_symbol: dict[str, list[tuple[int, Decimal]]] = {}
        for symbol, price, at_us in prints:
            by_symbol.setdefault(symbol, []).append((at_us, price))
        self._extremes = {symbol: _extremes(sorted(one)) for symbol, one in by_symbol.items()}

    def is_passed(self, order: OrderSeen, side: str) -> bool:
        """A buyer by a trade below his limit, a seller by one above, after the last change of the
        order. False when that is not known.
        """
        since = order.updated_us
        if not side or order.price is None or since is None or order.symbol not in self._extremes:
            return False
        times, lowest, highest = self._extremes[order.symbol]
        at = bisect_right(times, since + MARGIN_US)
        if at == len(times):
            return False
        return lowest[at] < order.price if side == "buy" else highest[at] > order.price


def _extremes(
    prints: Sequence[tuple[int, Decimal]],
) -> tuple[list[int], list[Decimal], list[Decimal]]:
    """Times, and from each of them on the lowest and the highest price."""
    lowest, highest = [price for _, price in prints], [price for _, price in prints]
    for n in range(len(prints) - 2, -1, -1):
        lowest[n] = min(lowest[n], lowest[n + 1])
        highest[n] = max(highest[n], highest[n + 1])
    return [at for at, _ in prints], lowest, highest
