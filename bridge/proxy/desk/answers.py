"""Which orders the monolith has just taken, as its own answers say. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shadow.legacy.keys import id_or_zero
from shadow.legacy.mapping import Responses, Route

_Placed = tuple[int, str]


class PlacedAnswers:
    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._one = _reader(responses, responses.root, many=False)
        self._many = _reader(responses, responses.many_root, many=True)

    def read(self, route: Route, status: int, body: bytes) -> list[_Placed]:
        """Ids and symbols of the new orders; none where the answer has none that can be read."""
        many = bool(route.each)
        wanted = self._responses.placed_many_status if many else self._responses.placed_status
        if route.action != "place" or status != wanted or not body:
            return []
        try:
            return self._many(body) if many else self._one(body)
        except msgspec.MsgspecError:
            return []


def _reader(responses: Responses, root: str, *, many: bool) -> Callable[[bytes], list[_Placed]]:
    """Reads these two of an answer, and nothing else of it."""
    id_key, symbol_key = responses.key_of("id"), responses.key_of("symbol")
    if not id_key or not symbol_key:
        return _read_nothing
    order: Any = msgspec.defstruct(
        "PlacedOrder",
        [("id", int | str, 0), ("symbol", str, "")],  # an element that was refused has neither
        rename={"id": id_key, "symbol": symbol_key},
    )
    shown: Any = list[order] if many else order
    answer = msgspec.defstruct("Placed", [("shown", shown)], rename={"shown": root or "shown"})
    decoder = msgspec.json.Decoder(answer if root else shown)

    def read(body: bytes) -> list[_Placed]:
        found: Any = decoder.decode(body)
        found = found.shown if root else found
        orders = found if many else [found]
        ids = [(id_or_zero(str(one.id)), one.symbol) for one in orders]
        return [pair for pair in ids if pair[0]]

    return read


def _read_nothing(body: bytes) -> list[_Placed]:
    return []
