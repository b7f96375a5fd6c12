"""Cancels that name their order by the UUID that the monolith has given it beside the id."""

from __future__ import annotations

from bridge.limits import ORDERS_KNOWN_MAX
from shadow.legacy.keys import number_of
from shadow.normalise import Fields, order_id_of


class OrderUuids:
    """The ids of those that have been looked up, the newest of them."""

    def __init__(self, *, are_mapped: bool, orders_max: int = ORDERS_KNOWN_MAX) -> None:
        self._are_mapped = are_mapped
        self._orders_max = orders_max
        self._ids: dict[str, int] = {}

    def order_id_of(self, fields: Fields) -> int:
        """0 for what is no order's, or has to be looked up first."""
        return order_id_of(fields) or self._ids.get(_named(fields), 0)

    def to_look_up(self, fields: Fields) -> str:
        """A UUID of which nothing is known yet; "" where there is nothing to look up."""
        named = _named(fields)
        if not self._are_mapped or self.order_id_of(fields) or not number_of(named, "uuid"):
            return ""
        return named

    def put(self, uuid: str, order_id: int) -> None:
        self._ids[uuid] = order_id
        if len(self._ids) > self._orders_max:
            del self._ids[next(iter(self._ids))]


def _named(fields: Fields) -> str:
    value = fields.values.get("order_id")
    return value.lower() if isinstance(value, str) else ""
