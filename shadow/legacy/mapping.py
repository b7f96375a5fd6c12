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
    """A value that is one of a few words. Without `column` it is always `other`."""

    column: str = ""
    map: dict[str, str] = {}  # database value as text -> our word; booleans are "true" and "false"
    null: str = ""  # our word for NULL; "": NULL is unreadable
    other: str = ""  # our word for every value that is not in `map`; "": such a one is unreadable


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An id. A UUID is known to the engine by 63 of its bits: `shadow.legacy.keys`."""

    column: str = ""  # "": there is none
    form: Literal["integer", "uuid"] = "integer"


class Amount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price or a quantity."""

    column: str = ""  # "": there is none
    form: Literal["numeric", "text", "integer"] = "numeric"  # text: a plain decimal in a string
    exponent: int = 0  # of integers: the value is the integer times 10**exponent; from -18 to 18


class Time(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    column: str = ""  # "": there is none
    form: Literal["timestamp", "epoch_s", "epoch_ms", "epoch_us"] = "timestamp"
    zone: str = "UTC"  # of a timestamp without time zone: a name of the tz database


class Symbol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which instrument. Either the column is the symbol, or `map` says it, or a row of another
    table: its `name` where its `key` is the column's value.
    """

    column: str
    map: dict[str, str] = {}  # database value as text -> symbol; {}: the value is the symbol
    table: str = ""  # "": no other table. `shadow.legacy.symbols` makes a `map` of it
    key: str = "id"
    name: str = "symbol"


class OrdersTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two of `quantity`, `leaves` and `filled` say all; one alone can do: what it does not say is
    then worked out from the fills, or not compared.
    """

    table: str
    id: Key
    id_sequence: str  # the sequence that new order ids are taken from
    symbol: Symbol
    account: Key
    side: Enumerated  # buy, sell
    ord_type: Enumerated  # limit, market
    tif: Enumerated  # gtc, ioc
    status: Enumerated  # pending, open, filled, canceled, rejected
    price: Amount
    quantity: Amount = Amount()  # as ordered
    leaves: Amount = Amount()  # still open
    filled: Amount = Amount()
    funds: Amount = Amount()  # what a market buy may spend, as it was when the order was written
    created_at: Time
    updated_at: Time = Time()
    lock_version: str = ""  # "" when there is none
    uuid: str = ""  # column of a UUID that clients know the order by besides its id
    priority: tuple[
        str, ...
    ]  # columns that order the queue of one price, e.g. ["created_at", "id"]
    where: dict[str, tuple[str, ...]] = {}  # column -> its values, as text; other rows are none
    write: dict[str, str] = {}  # column -> value, as text, that write-back gives new rows


class FillsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which orders met: `maker_order` and `taker_order`, or `buy_order` and `sell_order`."""

    table: str
    id: Key
    symbol: Symbol
    maker_order: str = ""
    taker_order: str = ""
    buy_order: str = ""
    sell_order: str = ""
    # Who is booked as maker: the order that rested, or the one with the lower id whoever rested.
    # Of buy and sell columns without a `taker_side` only the lower id can be told.
    maker_rule: Literal["resting", "lower_id"] = "resting"
    price: Amount
    quantity: Amount
    total: Amount = Amount()  # price times quantity
    taker_side: Enumerated = Enumerated()  # buy, sell
    maker_account: str = ""
    taker_account: str = ""
    buy_account: str = ""
    sell_account: str = ""
    created_at: Time
    updated_at: Time = Time()
    where: dict[str, tuple[str, ...]] = {}  # as in the orders
    write: dict[str, str] = {}


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route of the monolith. `fields` says where each value is: dots walk into the JSON or
    form body (`order.price`), `path.id` is a placeholder of the path, `query.symbol` a query
    parameter; of several places the first that has one counts. `each` makes it a bulk route;
    fields that begin with it are each element's own: `each.price`, or `each` alone where the
    element is the value.
    """

    action: Literal["place", "cancel", "cancel_all", "read"]
    method: str
    path: str  # with placeholders, e.g. "/api/v1/orders/:id"
    each: str = ""  # where the list stands: "orders", "order.ids", "_json" for a bare JSON array
    fields: dict[
        str, str | tuple[str, ...]
    ]  # symbol, side, ord_type, tif, price, quantity (place); order_id (cancel, read);
    # symbol and side (cancel_all): which of the account's open orders; without them all
    defaults: dict[str, str] = {}  # field -> what a request says that does not give it

    def places(self, field: str) -> tuple[str, ...]:
        """Where its value may be, the first that counts first; () for a field that has none."""
        where = self.fields.get(field, ())
        return (where,) if isinstance(where, str) else where

    def leaf(self, field: str) -> str:
        """The monolith's own name of it, as its errors show it."""
        return next(iter(self.places(field)), field).rpartition(".")[2]

    @property
    def all_places(self) -> tuple[str, ...]:
        return tuple(where for field in self.fields for where in self.places(field))


class Words(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request's and response's own words for ours: our word -> theirs."""

    side: dict[str, str]
    ord_type: dict[str, str] = msgspec.field(
        default_factory=lambda: {"limit": "limit", "market": "market"}
    )
    tif: dict[str, str] = msgspec.field(default_factory=lambda: {"gtc": "gtc", "ioc": "ioc"})
    status: dict[str, str]


class Responses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The monolith's answers. `order` and `fill`: JSON key -> value, in the monolith's order of
    keys. A value is one of ours, with a form of its own after a colon where it has one
    (`price:fixed8`), a text of the monolith's after an equals sign (`=spot`), or a number or
    boolean that stands there as it is. `shadow.answer_values` has the list.

    The answer to a bulk request is `{many_root: [...]}`, an element for each order in the order
    of the request: the order as `order` shows it, without `root`, or {"errors": {...}} where it
    was refused. The answer to a cancel_all lists the canceled orders by id.
    """

    root: str = ""  # key that the order is wrapped in; "" for none
    placed_status: int = 201
    canceled_status: int = 200
    many_root: str = "orders"  # key that the list of a bulk answer is wrapped in; "" for none
    placed_many_status: int = 201
    canceled_many_status: int = 200
    decimal: Literal["rails", "plain", "fixed", "number", "float"] = "rails"
    decimal_places: int = 8  # of "fixed"
    time: Literal["iso8601_ms", "iso8601_s", "iso8601_us", "epoch_s", "epoch_ms"] = "iso8601_ms"
    zone: str = "UTC"  # of times: a name of the tz database
    order: dict[str, str | int | bool]
    fill: dict[str, str | int | bool] = {}
    placed: dict[str, str | int | bool] = {}  # keys of `order` that a place's answer shows so
    canceled: dict[str, str | int | bool] = {}  # and a cancel's

    def key_of(self, ours: str) -> str:
        """The key that shows one of our values of an order, in whatever form; "" for none."""
        for key, value in self.order.items():
            if isinstance(value, str) and value.partition(":")[0] == ours:
                return key
        return ""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The monolith's answer to what it refuses for one reason. In the body's strings `%{field}` is
    the monolith's name of the field, `%{message}` what Rails says of it.
    """

    status: int
    body: str  # JSON; "" for an empty one


class Currencies(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an instrument, as the accounts table writes them."""

    base: str  # what is traded
    quote: str  # what prices are in


class FundsRefusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The monolith's answer to an order that its account can't pay for."""

    status: int = 422
    body: str = '{"errors":{"base":["insufficient funds"]}}'


class Accounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How orders lock money, with `funds = "legacy"`. Each statement is one SQL statement, with
    values as `:name`: `shadow.legacy.funds` says which, and what they are.
    """

    table: str = ""  # the accounts
    others: tuple[str, ...] = ()  # more tables that the statements read or write
    currencies: dict[str, Currencies] = {}  # symbol -> its currencies, for :base, :quote, :currency
    lock: str = ""  # takes the row locks of :accounts, in the monolith's order
    reserve: str = ""  # of a new order; no row changed: refused for want of funds
    opened: str = ""  # the row of a new order has been inserted; "": nothing more is to be done
    settle: str = ""  # one side of a fill
    settle_rows: int = 2  # that it changes
    release: str = ""  # what is left of an order's money when it is canceled or refused
    release_filled: bool = False  # and also when it is filled, whatever may be left then
    refusal: FundsRefusal = FundsRefusal()


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    orders: OrdersTable
    fills: FillsTable
    routes: tuple[Route, ...]
    identity_header: str  # set by the gateway in front; names the account
    method_override: bool = True  # the monolith runs Rack::MethodOverride
    matching: Literal["in_transaction", "later"] = "in_transaction"  # later: by a job or a daemon
    # A market buy, with `matching = "later"`, and its `orders.funds`: it stops at the first order
    # that they don't pay for whole (stop_level), or takes of that what they pay for.
    market_buy: Literal["quantity", "stop_level", "partial_by_funds"] = "quantity"
    # Whether orders lock money in a table of accounts: "legacy": there, before the engine has them;
    # "none": they lock none. "": nobody has said, and nothing can be flipped.
    funds: Literal["", "legacy", "none"] = ""
    accounts: Accounts = Accounts()
    words: Words
    responses: Responses
    errors: dict[str, ErrorAnswer] = {}  # reason, of `shadow.refusals`, -> answer
    adapter: str = ""  # "module:Class", see `shadow.legacy.adapter`; "": none

    @property
    def has_bulk(self) -> bool:
        """One request may be of several orders."""
        return any(route.each or route.action == "cancel_all" for route in self.routes)


class InstrumentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: str  # as the monolith writes it; 16 bytes at most
    id: int  # the engine's number for it, from 1
    tick: str  # decimal, e.g. "0.01"
    lot: str  # decimal, e.g. "0.00000001"
    price_max: str = "1000000000"
    quantity_max: str = "1000000000"
