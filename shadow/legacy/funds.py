"""Money that orders lock in the monolith's accounts: how much, and the statements that move it.
Pure.

A buy order locks its price times its quantity, in the quote currency; a sell order its quantity, in
the base currency. What is locked at any time is therefore told by the order's limit price and what
is left of it. A market order to buy has no limit price, and can't be reserved for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from engine.types import Side
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Accounts, InstrumentConfig, Mapping
from shadow.limits import FUNDS_STATEMENT_CHARS_MAX

# The values of each statement, with the type that PostgreSQL is told.
_ORDER = {
    "order_id": "bigint",
    "account": "bigint",
    "symbol": "text",
    "side": "text",  # buy, sell
    "amount": "numeric",  # reserve, opened: to be locked; settle, release: to be taken off the lock
    "currency": "text",  # that `amount` is in: the quote of a buy order, the base of a sell order
    "base": "text",
    "quote": "text",
}
_NEW = _ORDER | {"price": "numeric", "quantity": "numeric"}  # price: NULL for a market order
PARAMETERS: dict[str, dict[str, str]] = {
    "lock": {"accounts": "bigint[]"},
    "reserve": _NEW,
    "opened": _NEW,
    "settle": _ORDER
    | {
        "role": "text",  # maker, taker
        "fill_id": "bigint",  # the monolith's
        "price": "numeric",  # of the fill
        "quantity": "numeric",
        "total": "numeric",  # price times quantity
        "leaves": "numeric",  # of the order, after it
        "paid": "numeric",  # of `amount`: what goes to the other side
        "refund": "numeric",  # the rest of it: a buy order that got a better price than its own
        "received": "numeric",  # in the other currency
    },
    "release": _ORDER | {"leaves": "numeric"},
}
REQUIRED = ("lock", "reserve", "settle", "release")
_CURRENCIES = {"currency", "base", "quote"}
_BEGINS = re.compile(r"(with|select|insert|update|delete|merge)\b", re.IGNORECASE)
_SKIPPED = r"""
      (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<dollar>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
    | (?P<line>--[^\n]*)
    | (?P<block>/\*.*?\*/)
    | (?P<cast>::)
    | (?P<word>[A-Za-z_0-9$\])]+(?::(?!:))?)
"""
# A colon right after a word or a bracket is of a slice, and no value's.
_TOKEN = re.compile(
    rf"(?P<skipped>{_SKIPPED})|:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<end>;)|(?P<open>['\"]|/\*)",
    re.VERBOSE | re.DOTALL,
)


class Statement(msgspec.Struct, frozen=True):
    query: str  # as psycopg takes it: %(name)s with the value's type
    names: frozenset[str]


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What a new order locks."""

    order_id: int
    symbol: str
    account: int
    side: int
    price: Decimal | None  # None of a market order
    quantity: Decimal
    amount: Decimal


class Fill(NamedTuple):
    """One side of it, as `settle` is told."""

    order_id: int
    account: int
    side: int
    is_maker: bool
    limit_ticks: int | None  # the order's own price; None: a market order
    price_ticks: int
    qty_lots: int
    leaves_lots: int
    symbol: str


def statement(name: str, text: str) -> Statement:
    """Raises ValueError, saying what is wrong with it.

    >>> statement("lock", "SELECT 1 FROM a WHERE m = ANY(:accounts) AND n LIKE '5%'").query
    "SELECT 1 FROM a WHERE m = ANY(%(accounts)s::bigint[]) AND n LIKE '5%%'"
    """
    text = text.strip().removesuffix(";").rstrip()
    if len(text) > FUNDS_STATEMENT_CHARS_MAX:
        raise ValueError(f"is longer than {FUNDS_STATEMENT_CHARS_MAX} characters")
    if not _BEGINS.match(text):
        raise ValueError("must begin with SELECT, INSERT, UPDATE, DELETE, MERGE or WITH")
    known, names = PARAMETERS[name], set()
    pieces: list[str] = []
    at = 0
    for found in _TOKEN.finditer(text):
        pieces.append(text[at : found.start()].replace("%", "%%"))
        at = found.end()
        if found["end"]:
            raise ValueError("must be one statement: there is a ; in it")
        if found["open"]:
            raise ValueError(f"has a {found['open']} that nothing closes")
        value = found["name"]
        if value is None:
            pieces.append(found[0].replace("%", "%%"))
        elif value not in known:
            raise ValueError(f"has no value :{value}; there are {_listed(known)}")
        else:
            names.add(value)
            pieces.append(f"%({value})s::{known[value]}")
    pieces.append(text[at:].replace("%", "%%"))
    return Statement("".join(pieces), frozenset(names))


def statements(accounts: Accounts) -> dict[str, Statement]:
    """Those that are configured. Raises ValueError for what `problems` would have named."""
    return {
        name: statement(name, getattr(accounts, name))
        for name in PARAMETERS
        if getattr(accounts, name)
    }


def amount_of(scale: Scale, side: int, price_ticks: int | None, lots: int) -> Decimal | None:
    """What so many lots of an order lock; None where only the market can tell.

    >>> btc = Scale(symbol="BTC-USD", instrument=1, tick=Decimal("0.01"), lot=Decimal("0.001"),
    ...             price_ticks_max=10**9, qty_lots_max=10**9)
    >>> amount_of(btc, Side.BUY, 23647, 1500), amount_of(btc, Side.SELL, 23647, 1500)
    (Decimal('354.70500'), Decimal('1.500'))
    """
    if side == Side.SELL:
        return scale.quantity(lots)
    if price_ticks is None:
        return None
    return product(scale.price(price_ticks), scale.quantity(lots))


def product(price: Decimal, quantity: Decimal) -> Decimal:
    """Exact whatever the decimal context is."""
    (left, left_exponent), (right, right_exponent) = _digits(price), _digits(quantity)
    return Decimal(f"{left * right}E{left_exponent + right_exponent}")


def reservation_values(one: Reservation, accounts: Accounts) -> dict[str, Any]:
    """Of `reserve` and `opened`."""
    return {
        **_common(one.order_id, one.symbol, one.account, one.side, one.amount, accounts),
        "price": one.price,
        "quantity": one.quantity,
    }


def release_values(
    order_id: int,
    symbol: str,
    account: int,
    side: int,
    amount: Decimal,
    leaves: Decimal,
    accounts: Accounts,
) -> dict[str, Any]:
    return {**_common(order_id, symbol, account, side, amount, accounts), "leaves": leaves}


def settle_values(fill: Fill, fill_id: int, scale: Scale, accounts: Accounts) -> dict[str, Any]:
    """Raises ValueError for a market order to buy: what it locked is not known."""
    amount = amount_of(scale, fill.side, fill.limit_ticks, fill.qty_lots)
    if amount is None:
        raise ValueError(f"order {fill.order_id} is a market order to buy, which locks no amount")
    price, quantity = scale.price(fill.price_ticks), scale.quantity(fill.qty_lots)
    total = product(price, quantity)
    is_buy = fill.side == Side.BUY
    better_ticks = (fill.limit_ticks or 0) - fill.price_ticks if is_buy else 0
    paid = total if is_buy else quantity
    return {
        **_common(fill.order_id, scale.symbol, fill.account, fill.side, amount, accounts),
        "role": "maker" if fill.is_maker else "taker",
        "fill_id": fill_id,
        "price": price,
        "quantity": quantity,
        "total": total,
        "leaves": scale.quantity(fill.leaves_lots),
        "paid": paid,
        "refund": product(scale.price(better_ticks), quantity),
        "received": quantity if is_buy else total,
    }


def example_values(name: str) -> dict[str, Any]:
    """For trying a statement that must not do anything."""
    examples: dict[str, Any] = {"bigint": 0, "text": "", "numeric": Decimal(0), "bigint[]": [0]}
    return {value: examples[kind] for value, kind in PARAMETERS[name].items()}


def problems(mapping: Mapping, instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    """One sentence for each, naming the key."""
    accounts = mapping.accounts
    if mapping.funds != "legacy":
        if accounts != Accounts():
            yield '`mapping.accounts` is only read with `mapping.funds` = "legacy"'
        return
    if not accounts.table:
        yield "`mapping.accounts.table`: name the table of the accounts"
    for name in REQUIRED:
        if not getattr(accounts, name):
            yield f'`mapping.accounts.{name}`: `mapping.funds` = "legacy" needs this statement'
    used: set[str] = set()
    for name in PARAMETERS:
        text = getattr(accounts, name)
        try:
            used |= statement(name, text).names if text else set()
        except ValueError as error:
            yield f"`mapping.accounts.{name}` {error}"
    if accounts.settle_rows < 1:
        yield "`mapping.accounts.settle_rows` must be at least 1"
    if not 400 <= accounts.refusal.status < 500:
        yield "`mapping.accounts.refusal.status` must be from 400 to 499"
    symbols = {one.symbol for one in instruments}
    for symbol in accounts.currencies.keys() - symbols:
        yield f'`mapping.accounts.currencies`: "{symbol}" is no configured instrument'
    lacking = symbols - accounts.currencies.keys()
    if used & _CURRENCIES and lacking:
        yield (
            f"`mapping.accounts.currencies` lacks {_listed(lacking)}, and the statements use "
            f"{_listed(f':{name}' for name in used & _CURRENCIES)}"
        )


def _common(
    order_id: int, symbol: str, account: int, side: int, amount: Decimal, accounts: Accounts
) -> dict[str, Any]:
    currencies = accounts.currencies.get(symbol)
    base, quote = (currencies.base, currencies.quote) if currencies else (None, None)
    return {
        "order_id": order_id,
        "account": account,
        "symbol": symbol,
        "side": "buy" if side == Side.BUY else "sell",
        "amount": amount,
        "currency": quote if side == Side.BUY else base,
        "base": base,
        "quote": quote,
    }


def _digits(number: Decimal) -> tuple[int, int]:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits)))
    return (-value if sign else value), exponent


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
