"""The only place where a NUMERIC becomes an integer, or the other way round: exactly, or not.

All arithmetic is on Python's unbounded integers: no decimal context, whatever its precision,
can round anything here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

import msgspec

from shadow.errors import NotExact
from shadow.legacy.mapping import Amount, InstrumentConfig
from shadow.limits import NUMERIC_CHARS_MAX, PRICE_TICKS_MAX, QTY_LOTS_MAX, SHOWN_CHARS_MAX

_PLAIN = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument's grid: its tick, its lot, and its largest price and quantity in them.

    >>> btc = Scale(symbol="BTC-USD", instrument=1, tick=Decimal("0.01"), lot=Decimal("0.001"),
    ...             price_ticks_max=10**9, qty_lots_max=10**9)
    >>> btc.ticks("236.47000000"), btc.lots("2"), btc.price(23647)
    (23647, 2000, Decimal('236.47'))
    """

    symbol: str
    instrument: int
    tick: Decimal
    lot: Decimal
    price_ticks_max: int
    qty_lots_max: int

    def ticks(self, price: str | Decimal) -> int:
        """Raises NotExact; the instrument's own maximum is not looked at."""
        return _steps(price, self.tick, PRICE_TICKS_MAX, self.symbol, "price", "tick")

    def lots(self, quantity: str | Decimal) -> int:
        """Raises NotExact; the instrument's own maximum is not looked at."""
        return _steps(quantity, self.lot, QTY_LOTS_MAX, self.symbol, "quantity", "lot")

    def payable(self, money: str | Decimal) -> int:
        """In ticks times lots, what is less than one left out. Raises NotExact."""
        return _whole_steps(money, self.tick * self.lot, self.symbol)

    def price(self, price_ticks: int) -> Decimal:
        return _value(price_ticks, self.tick)

    def quantity(self, qty_lots: int) -> Decimal:
        return _value(qty_lots, self.lot)


def decimal_of(text: str, amount: Amount) -> str:
    """The value of a column as a plain decimal, which is still to be checked. Raises NotExact.

    >>> decimal_of("23647", Amount(column="cents", form="integer", exponent=-2))
    '236.47'
    >>> decimal_of("-3", Amount(column="thousands", form="integer", exponent=3))
    '-3000'
    """
    if amount.form != "integer":
        return text
    if len(text) > NUMERIC_CHARS_MAX or not _INTEGER.fullmatch(text):
        raise NotExact(f"{_shown(text)} is not an integer")
    if amount.exponent >= 0:
        return text + "0" * amount.exponent
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.rjust(1 - amount.exponent, "0")
    return f"{sign}{digits[: amount.exponent]}.{digits[amount.exponent :]}"


def unit_of(amount: Amount) -> str:
    """What an integer of the column counts, as a plain decimal.

    >>> unit_of(Amount(column="cents", form="integer", exponent=-2))
    '0.01'
    """
    return decimal_of("1", msgspec.structs.replace(amount, form="integer"))


def is_multiple(value: Decimal, unit: str) -> bool:
    """
    >>> is_multiple(Decimal("0.05"), "0.01"), is_multiple(Decimal("0.005"), "0.01")
    (True, False)
    """
    digits, places = _unscaled(value)
    unit_digits, unit_places = _unscaled(unit)
    return digits * int(10**unit_places) % (unit_digits * int(10**places)) == 0


def scales(instruments: Iterable[InstrumentConfig]) -> dict[str, Scale]:
    """By symbol. Raises NotExact for what `check_mapping.problems` would have named."""
    return {one.symbol: _scale(one) for one in instruments}


def _scale(one: InstrumentConfig) -> Scale:
    for key, text in (("tick", one.tick), ("lot", one.lot)):
        if _unscaled(text)[0] <= 0:
            raise NotExact(f"{key} {text!r} of {one.symbol} is not positive")
    tick, lot = Decimal(one.tick), Decimal(one.lot)
    return Scale(
        symbol=one.symbol,
        instrument=one.id,
        tick=tick,
        lot=lot,
        price_ticks_max=_steps(
            one.price_max, tick, PRICE_TICKS_MAX, one.symbol, "price_max", "tick"
        ),
        qty_lots_max=_steps(one.quantity_max, lot, QTY_LOTS_MAX, one.symbol, "quantity_max", "lot"),
    )


def _steps(
    value: str | Decimal, step: Decimal, most: int, symbol: str, what: str, unit: str
) -> int:
    """How many steps the value is. `step` is positive."""
    digits, places = _unscaled(value)
    step_digits, step_places = _step(step)
    if digits < 0:
        raise NotExact(f"{what} {_shown(value)} of {symbol} is negative")
    if places > step_places:
        step_digits *= 10 ** (places - step_places)
    else:
        digits *= 10 ** (step_places - places)
    count, rest = divmod(digits, step_digits)
    if rest:
        raise NotExact(f"{what} {_shown(value)} of {symbol} is not a multiple of the {unit} {step}")
    if count > most:
        raise NotExact(f"{what} {_shown(value)} of {symbol} is more than {most} {unit}s")
    return count


def _whole_steps(money: str | Decimal, step: Decimal, symbol: str) -> int:
    digits, places = _unscaled(money)
    step_digits, step_places = _unscaled(step)
    if digits < 0:
        raise NotExact(f"funds {_shown(str(money))} of {symbol} are negative")
    return digits * int(10**step_places) // (step_digits * int(10**places))


@lru_cache(maxsize=16_384)  # prices and quantities come again and again; 3 MB at most
def _unscaled(value: str | Decimal) -> tuple[int, int]:
    """(digits, places): the value is exactly digits / 10**places, with places >= 0."""
    text = value if isinstance(value, str) else _plain_text(value)
    found = _PLAIN.fullmatch(text) if len(text) <= NUMERIC_CHARS_MAX else None
    if found is None:
        raise NotExact(f"{_shown(text)} is not a plain decimal number")
    sign, whole, fraction = found.groups(default="")
    return int(sign + whole + fraction), len(fraction)


def _plain_text(value: Decimal) -> str:
    """Its digits without an exponent; a value that would need very many of them stays as it is."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) <= NUMERIC_CHARS_MAX:
        return format(value, "f")
    return str(value)


@lru_cache(maxsize=4096)  # two for each instrument; asked for with every number
def _step(step: Decimal) -> tuple[int, int]:
    return _unscaled(step)


def _value(count: int, step: Decimal) -> Decimal:
    digits, places = _step(step)
    return Decimal(f"{count * digits}E-{places}")


def _shown(value: str | Decimal) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"
