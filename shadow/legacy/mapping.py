"""How the monolith's tables and routes are described in `railswitch.toml`. Plain values; nothing
here reads a file.

`docs/reference/config.md` explains each key. Enumerated columns map the database's value,
written as text, to our word for it: `map = { "0" = "buy", "1" = "sell" }`. Nothing is guessed: a
value that is not in the map is unreadable.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Enumerated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    column: str
    map: dict[str, str]  # database value as text -> our word


class OrdersTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    table: str
    id: str
    id_sequence: str  # the sequence that new order ids are taken from
    symbol: str
    account: str
    side: Enumerated  # buy, sell
    ord_type: Enumerated  # limit, market
    tif: Enumerated  # gtc, ioc
    status: Enumerated  # pending, open, filled, canceled, rejected
    price: str
    quantity: str  # as ordered
    leaves: str
    created_at: str
    updated_at: str
    lock_version: str = ""  # "" when there is none
    priority: tuple[
        str, ...
    ]  # columns that order the queue of one price, e.g. ["created_at", "id"]


class FillsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    table: str
    id: str
    symbol: str
    maker_order: str
    taker_order: str
    price: str
    quantity: str
    taker_side: Enumerated  # buy, sell
    created_at: str
    updated_at: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route of the monolith. `fields` says where each value is: dots walk into the JSON or
    form body (`order.price`), `path.id` is a placeholder of the path, `query.symbol` a query
    parameter.
    """

    action: Literal["place", "cancel", "read"]
    method: str
    path: str  # with placeholders, e.g. "/api/v1/orders/:id"
    fields: dict[
        str, str
    ]  # symbol, side, ord_type, tif, price, quantity (place); order_id (cancel, read)


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request's and response's own words for ours: our word -> theirs."""

    side: dict[str, str]
    ord_type: dict[str, str]
    tif: dict[str, str]
    status: dict[str, str]


class Responses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The monolith's answers. `order` and `fill`: JSON key -> our value, in the monolith's order
    of keys.

    Order values: id symbol side ord_type tif price quantity leaves filled status created_at
    updated_at fills. Fill values: price quantity maker_order_id taker_order_id.
    """

    root: str = ""  # key that the order is wrapped in; "" for none
    placed_status: int = 201
    canceled_status: int = 200
    order: dict[str, str]
    fill: dict[str, str]


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    orders: OrdersTable
    fills: FillsTable
    routes: tuple[Route, ...]
    identity_header: str  # set by the gateway in front; names the account
    words: Words
    responses: Responses


class InstrumentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: str  # as the monolith writes it; 16 bytes at most
    id: int  # the engine's number for it, from 1
    tick: str  # decimal, e.g. "0.01"
    lot: str  # decimal, e.g. "0.00000001"
    price_max: str = "1000000000"
    quantity_max: str = "1000000000"
