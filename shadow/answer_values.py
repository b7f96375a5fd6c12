"""How an answer writes what it shows of an order: the decimals, times and ids of the mapping's own
forms. Pure, and exact: no number passes through a float.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from zoneinfo import ZoneInfo

import msgspec

from engine.types import OrderType, Side, TimeInForce
from shadow.answer import FillView, OrderView, uuid_of
from shadow.answer_check import NOT_KNOWN
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import InstrumentConfig, Responses, Words
from shadow.legacy.times import is_zone
from shadow.limits import DECIMAL_PLACES_MAX, FLOAT_WHOLE_DIGITS_MAX, FLOAT_ZEROS_MAX

Template = Mapping[str, str | int | bool]
OrderValue = Callable[[Scale, OrderView], object]
FillValue = Callable[[Scale, FillView], object]
_Written = Callable[[Decimal], object]

_AMOUNTS = ("price", "quantity", "leaves", "filled", "average_price", "total")
_TIMES = ("created_at", "updated_at")
_IDS = ("id", "maker_order_id", "taker_order_id", "trades_count")
ORDER_VALUES = (
    *("id", "uuid", "symbol", "side", "ord_type", "tif", "price", "quantity", "leaves", "filled"),
    *("status", "average_price", "trades_count", "created_at", "updated_at", "fills", "null"),
)
FILL_VALUES = ("price", "quantity", "total", "maker_order_id", "taker_order_id", "null")
_DECIMALS = ("rails", "plain", "fixed", "number", "float")
_CLOCKS = ("iso8601_ms", "iso8601_s", "iso8601_us", "epoch_s", "epoch_ms")
_PLACED = re.compile(r"(fixed|round)([0-9]{1,2})")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}
_ORDER_TYPES = {OrderType.MARKET: "market", OrderType.LIMIT: "limit"}
_TIMES_IN_FORCE = {TimeInForce.GTC: "gtc", TimeInForce.IOC: "ioc"}


def decimal_text(number: Decimal) -> str:
    """BigDecimal#as_json: no exponent, no trailing zeros, at least one decimal.

    >>> decimal_text(Decimal("100")), decimal_text(Decimal("1.500")), decimal_text(Decimal("1E-8"))
    ('100.0', '1.5', '0.00000001')
    """
    text = format(number, "f")
    if "." not in text:
        return f"{text}.0"
    text = text.rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def plain_text(number: Decimal) -> str:
    """
    >>> plain_text(Decimal("100")), plain_text(Decimal("1.500")), plain_text(Decimal("1E-8"))
    ('100', '1.5', '0.00000001')
    """
    return decimal_text(number).removesuffix(".0")


def fixed_text(number: Decimal, places: int) -> str:
    """The number has no more places than these: `problems` has seen to that.

    >>> fixed_text(Decimal("1.5"), 3), fixed_text(Decimal("100"), 0)
    ('1.500', '100')
    """
    whole, _, fraction = plain_text(number).partition(".")
    return f"{whole}.{fraction:0<{places}}" if places else whole


def float_text(number: Decimal) -> str:
    """As Ruby writes the Float of a number with up to 15 digits that count: small and large ones
    with an exponent.

    >>> float_text(Decimal("100")), float_text(Decimal("0.0001")), float_text(Decimal("0.000012"))
    ('100.0', '0.0001', '1.2e-05')
    """
    text = decimal_text(number)
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, fraction = text.partition(".")
    zeros = len(fraction) - len(fraction.lstrip("0"))
    small = whole == "0" and fraction != "0" and zeros > FLOAT_ZEROS_MAX
    if not small and len(whole) <= FLOAT_WHOLE_DIGITS_MAX:
        return sign + text
    digits = (whole + fraction).strip("0")
    exponent = -zeros - 1 if small else len(whole) - 1
    return f"{sign}{digits[0]}.{digits[1:] or '0'}e{'-' if small else '+'}{abs(exponent):02d}"


def time_text(at_us: int, zone: str = "UTC", digits: int = 3) -> str:
    """ActiveSupport::TimeWithZone#as_json: milliseconds, or so many digits, cut off, not rounded.

    >>> time_text(1_714_521_600_123_999), time_text(1_714_521_600_123_999, "Europe/Paris", 0)
    ('2024-05-01T00:00:00.123Z', '2024-05-01T02:00:00+02:00')
    """
    at = _EPOCH + timedelta(microseconds=at_us)
    timespec = {0: "seconds", 3: "milliseconds", 6: "microseconds"}[digits]
    if zone == "UTC":
        return f"{at.replace(tzinfo=None).isoformat(timespec=timespec)}Z"
    return at.astimezone(ZoneInfo(zone)).isoformat(timespec=timespec)


class AnswerValues:
    """The templates of the mapping, each value made a function once."""

    def __init__(self, responses: Responses, words: Words) -> None:
        self._responses = responses
        self._words = words
        self._fill = [(key, self._fill_value(one)) for key, one in responses.fill.items()]
        self.placed = self._order(template_of(responses, responses.placed))
        self.canceled = self._order(template_of(responses, responses.canceled))

    def _order(self, template: Template) -> list[tuple[str, OrderValue]]:
        return [(key, self._order_value(value)) for key, value in template.items()]

    def _order_value(self, value: str | int | bool) -> OrderValue:
        if not isinstance(value, str) or value.startswith("="):
            constant = value[1:] if isinstance(value, str) else value
            return lambda scale, view: constant
        name, _, form = value.partition(":")
        if name in _AMOUNTS:
            return self._amount(name, form)
        if name in _TIMES:
            written, at_us = self._clock(form or self._responses.time), attrgetter(f"{name}_us")
            return lambda scale, view: written(at_us(view))
        if name in _IDS:
            wrap = str if form == "text" else int
            return lambda scale, view: _counted(name, wrap, view)
        return self._word(name)

    def _amount(self, name: str, form: str) -> OrderValue:
        if name == "average_price":
            return self._average(form)
        write = self._decimal(form)
        if name == "price":
            return lambda scale, view: (
                write(scale.price(view.price_ticks)) if view.price_ticks else None
            )
        lots: dict[str, Callable[[OrderView], int]] = {
            "quantity": lambda view: view.qty_lots,
            "leaves": lambda view: view.leaves_lots,
            "filled": lambda view: view.qty_lots - view.leaves_lots,
        }
        count = lots[name]
        return lambda scale, view: write(scale.quantity(count(view)))

    def _average(self, form: str) -> OrderValue:
        """Over all its fills, rounded half up: to the places of the tick unless the form says."""
        found = _PLACED.fullmatch(form)
        write = self._decimal("" if found is not None and found[1] == "round" else form)

        def average(scale: Scale, view: OrderView) -> object:
            if view.traded is None:
                return NOT_KNOWN
            if found is not None:
                places = int(found[2])
            elif not form and self._responses.decimal == "fixed":
                places = self._responses.decimal_places
            else:
                places = places_of(scale.tick)
            ticks, lots = view.traded.ticks_times_lots, view.qty_lots - view.leaves_lots
            return write(_rounded(ticks, lots, scale.tick, places) if lots else Decimal(0))

        return average

    def _word(self, name: str) -> OrderValue:
        words = self._words
        values: dict[str, OrderValue] = {
            "uuid": lambda scale, view: uuid_of(view.order_id),
            "symbol": lambda scale, view: view.symbol,
            "side": lambda scale, view: words.side[_SIDES[Side(view.side)]],
            "ord_type": lambda scale, view: words.ord_type[_ORDER_TYPES[OrderType(view.ord_type)]],
            "tif": lambda scale, view: words.tif[_TIMES_IN_FORCE[TimeInForce(view.tif)]],
            "status": lambda scale, view: words.status[view.status],
            "null": lambda scale, view: None,
            "fills": lambda scale, view: [
                {key: value(scale, fill) for key, value in self._fill} for fill in view.fills
            ],
        }
        return values[name]

    def _fill_value(self, value: str | int | bool) -> FillValue:
        if not isinstance(value, str) or value.startswith("="):
            constant = value[1:] if isinstance(value, str) else value
            return lambda scale, fill: constant
        name, _, form = value.partition(":")
        if name in _IDS:
            wrap = str if form == "text" else int
            return lambda scale, fill: wrap(getattr(fill, name))
        write = self._decimal(form)
        values: dict[str, FillValue] = {
            "price": lambda scale, fill: write(scale.price(fill.price_ticks)),
            "quantity": lambda scale, fill: write(scale.quantity(fill.qty_lots)),
            "total": lambda scale, fill: write(
                _times(scale.price(fill.price_ticks), scale.quantity(fill.qty_lots))
            ),
            "null": lambda scale, fill: None,
        }
        return values[name]

    def _decimal(self, form: str) -> _Written:
        found = _PLACED.fullmatch(form)
        if found is not None:
            places = int(found[2])
            return lambda number: fixed_text(number, places)
        form, places = form or self._responses.decimal, self._responses.decimal_places
        writers: dict[str, _Written] = {
            "rails": decimal_text,
            "plain": plain_text,
            "fixed": lambda number: fixed_text(number, places),
            "number": lambda number: msgspec.Raw(plain_text(number).encode()),
            "float": lambda number: msgspec.Raw(float_text(number).encode()),
        }
        return writers[form]

    def _clock(self, form: str) -> Callable[[int], object]:
        if form.startswith("epoch"):
            unit_us = {"epoch_s": 1_000_000, "epoch_ms": 1_000}[form]
            return lambda at_us: at_us // unit_us
        zone, digits = self._responses.zone, {"_s": 0, "ms": 3, "us": 6}[form[-2:]]
        return lambda at_us: time_text(at_us, zone, digits)


def template_of(responses: Responses, changes: Template) -> dict[str, str | int | bool]:
    """What one kind of answer shows: keys that only it has stand at the end."""
    return {**responses.order, **changes}


def names_of(template: Template) -> set[str]:
    """Our values in it, without their forms."""
    return {value.partition(":")[0] for value in template.values() if isinstance(value, str)}


def times_and_uuids(responses: Responses) -> frozenset[str]:
    """The keys whose values two sides can't have in common: they are compared by their form."""
    both = {**responses.order, **responses.placed, **responses.canceled}
    return frozenset(
        key
        for key, value in both.items()
        if isinstance(value, str) and value.partition(":")[0] in (*_TIMES, "uuid")
    )


def problems(responses: Responses, instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    """A sentence for each value that can't be shown as the templates ask for it."""
    if not is_zone(responses.zone):
        yield f'`mapping.responses.zone` = "{responses.zone}" is no name of the tz database'
    if not 0 <= responses.decimal_places <= DECIMAL_PLACES_MAX:
        yield f"`mapping.responses.decimal_places`: from 0 to {DECIMAL_PLACES_MAX}"
    shown = False
    for where, template, known in (
        ("order", responses.order, ORDER_VALUES),
        ("placed", responses.placed, ORDER_VALUES),
        ("canceled", responses.canceled, ORDER_VALUES),
        ("fill", responses.fill, FILL_VALUES),
    ):
        shown = shown or "fills" in names_of(template)
        for key, value in template.items():
            if isinstance(value, str) and not value.startswith("="):
                place = f'`mapping.responses.{where}.{key}` = "{value}"'
                yield from _value(place, value, known, responses, instruments)
    if shown and not responses.fill:
        yield "`mapping.responses.fill`: an answer shows fills, and nothing says how"


def _value(
    where: str,
    value: str,
    known: Sequence[str],
    responses: Responses,
    instruments: Sequence[InstrumentConfig],
) -> Iterator[str]:
    name, colon, form = value.partition(":")
    if name not in known:
        yield f"{where} is not one of {', '.join(sorted(known))}"
        return
    found = _PLACED.fullmatch(form)
    forms: tuple[str, ...] = ("rails", "plain", "number", "float", "fixedN")
    if name == "average_price":
        forms = (*forms, "roundN")
    elif name in _TIMES:
        forms = _CLOCKS
    elif name in _IDS:
        forms = ("text",)
    elif name not in _AMOUNTS:
        forms = ()
    if colon and (f"{found[1]}N" if found is not None else form) not in forms:
        said = f"one of {', '.join(forms)}" if forms else "none: it has one form only"
        yield f"{where}: the form after the colon is {said}"
    elif name in _AMOUNTS and (found or not form) and name != "average_price":
        fixed = int(found[2]) if found is not None else responses.decimal_places
        if found is not None or responses.decimal == "fixed":
            yield from _too_fine(where, name, fixed, instruments)


def _too_fine(
    where: str, name: str, places: int, instruments: Sequence[InstrumentConfig]
) -> Iterator[str]:
    for one in instruments:
        try:
            price, quantity = places_of(one.tick), places_of(one.lot)
        except InvalidOperation:
            continue  # it is named elsewhere
        needed = {"price": price, "total": price + quantity}.get(name, quantity)
        if needed > places:
            yield f"{where}: a {name} of {one.symbol} has {needed} decimal places, not {places}"


def places_of(step: Decimal | str) -> int:
    """Digits behind the point that its multiples can have."""
    return len(plain_text(Decimal(step)).partition(".")[2])


def _counted(name: str, wrap: type[str] | type[int], view: OrderView) -> object:
    if name == "id":
        return wrap(view.order_id)
    return NOT_KNOWN if view.traded is None else wrap(view.traded.count)


def _rounded(ticks_times_lots: int, lots: int, tick: Decimal, places: int) -> Decimal:
    """Half up, as BigDecimal#round."""
    numerator, denominator = tick.as_integer_ratio()
    numerator *= ticks_times_lots * 10**places
    denominator *= lots
    return Decimal(f"{(2 * numerator + denominator) // (2 * denominator)}E-{places}")


def _times(one: Decimal, other: Decimal) -> Decimal:
    """Exact, which a decimal context is not."""
    (_, digits, exponent), (_, more, shift) = one.as_tuple(), other.as_tuple()
    product = int("".join(map(str, digits))) * int("".join(map(str, more)))
    return Decimal(f"{product}E{int(exponent) + int(shift)}")
