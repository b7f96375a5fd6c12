"""What an operator may change about an instrument or an account in the running engine: from words
to commands. Pure.

Prices and quantities come as the monolith writes them, and become ticks and lots exactly or are
refused.
"""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from bridge.errors import ConfigError
from engine.limits import DAY_S, U32_MAX, U64_MAX
from engine.snapshot import AccountState, InstrumentState
from engine.types import Command, CommandKind, MassCancelFlag, MassCancelScope
from engine.wire import (
    account_limits_command,
    instrument_limits_command,
    kill_switch_command,
    mass_cancel_command,
    price_band_command,
    trading_command,
)
from shadow.errors import NotExact
from shadow.legacy.convert import Scale

_HOUR = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class InstrumentWish(msgspec.Struct, frozen=True, kw_only=True):
    """None: as it is."""

    halted: bool | None = None
    band: tuple[str, str] | None = None  # lowest and highest price
    tick: str | None = None  # prices must be multiples of it
    lot: str | None = None
    quantity_max: str | None = None
    notional_max: str | None = None  # "0": none
    day_end: str | None = None  # HH:MM, UTC
    cancel_orders: bool = False


class AccountWish(msgspec.Struct, frozen=True, kw_only=True):
    """None: as it is; 0: no limit."""

    open_orders_max: int | None = None
    open_qty_max: int | None = None  # lots, of all instruments together
    rate_max: int | None = None  # new orders a second
    group: int | None = None
    killed: bool | None = None
    cancel_orders: bool = False


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One command, and what it does in words."""

    command: Command
    does: str


def instrument_acts(
    wish: InstrumentWish, now: InstrumentState, scale: Scale, symbol: str
) -> tuple[Act, ...]:
    """In the order in which they are safe: trading stops first and begins last.

    Raises ConfigError for a number that is not one, or does not lie on the instrument's grid.
    """
    try:
        return tuple(_instrument_acts(wish, now, scale, symbol))
    except NotExact as error:
        raise ConfigError(f"{error}: nothing was changed") from error


def _instrument_acts(
    wish: InstrumentWish, now: InstrumentState, scale: Scale, symbol: str
) -> list[Act]:
    acts: list[Act] = []
    number = now.instrument
    if wish.halted:
        halt = trading_command(instrument=number, halted=True)
        acts.append(Act(command=halt, does=f"halt {symbol}: cancels and reductions only"))
    if wish.band is not None:
        acts.append(_band(wish.band, number, scale, symbol))
    limits = _limits(wish, now, scale)
    if limits is not None:
        acts.append(Act(command=limits, does=f"{symbol}: {_limits_in_words(wish)}"))
    if wish.cancel_orders:
        cancel = mass_cancel_command(instrument=number, scope=MassCancelScope.INSTRUMENT)
        acts.append(Act(command=cancel, does=f"cancel every open order of {symbol}"))
    if wish.halted is False:
        reopen = trading_command(instrument=number, halted=False)
        acts.append(Act(command=reopen, does=f"open {symbol} for trading"))
    return acts


def account_acts(wish: AccountWish, now: AccountState) -> tuple[Act, ...]:
    """The kill switch goes on first, and off last."""
    acts: list[Act] = []
    account = now.account
    if wish.killed:
        kill = kill_switch_command(account=account, killed=True)
        acts.append(Act(command=kill, does=f"account {account}: no new orders"))
    wanted = {
        "open_orders_max": wish.open_orders_max,
        "open_qty_max": wish.open_qty_max,
        "rate_max": wish.rate_max,
        "group": wish.group,
    }
    changed = {name: value for name, value in wanted.items() if value is not None}
    if changed:
        for name, value in changed.items():
            if not 0 <= value <= (U32_MAX if name == "rate_max" else U64_MAX):
                raise ConfigError(f"{name} {value} is out of range: nothing was changed")
        limits = account_limits_command(
            account=account,
            open_orders_max=changed.get("open_orders_max", now.open_orders_max),
            open_qty_max=changed.get("open_qty_max", now.open_qty_max),
            rate_max=changed.get("rate_max", now.rate_max),
            group=changed.get("group", now.group),
        )
        told = ", ".join(f"{name} {value or 'none'}" for name, value in changed.items())
        acts.append(Act(command=limits, does=f"account {account}: {told}"))
    if wish.cancel_orders:
        cancel = mass_cancel_command(
            account=account,
            scope=MassCancelScope.ACCOUNT,
            flags=MassCancelFlag.EVERY_INSTRUMENT,
        )
        acts.append(Act(command=cancel, does=f"cancel every live order of account {account}"))
    if wish.killed is False:
        release = kill_switch_command(account=account, killed=False)
        acts.append(Act(command=release, does=f"account {account}: may place orders again"))
    return tuple(acts)


def repeats(act: Act) -> bool:
    """Whether one command may leave something to do: the engine bounds what one removes."""
    return act.command.kind == CommandKind.MASS_CANCEL


def _band(band: tuple[str, str], number: int, scale: Scale, symbol: str) -> Act:
    low, high = (scale.ticks(text) for text in band)
    if not 0 < low <= high:
        raise ConfigError(f"a price band from {band[0]} to {band[1]} holds no price")
    command = price_band_command(instrument=number, price_ticks_min=low, price_ticks_max=high)
    return Act(command=command, does=f"{symbol}: limit prices from {band[0]} to {band[1]}")


def _limits(wish: InstrumentWish, now: InstrumentState, scale: Scale) -> Command | None:
    if all(
        one is None
        for one in (wish.tick, wish.lot, wish.quantity_max, wish.notional_max, wish.day_end)
    ):
        return None
    return instrument_limits_command(
        instrument=now.instrument,
        tick_ticks=now.tick_ticks if wish.tick is None else _step(scale.ticks(wish.tick), "tick"),
        lot_lots=now.lot_lots if wish.lot is None else _step(scale.lots(wish.lot), "lot"),
        qty_lots_max=(
            now.qty_lots_max
            if wish.quantity_max is None
            else _step(scale.lots(wish.quantity_max), "largest quantity")
        ),
        notional_max=(
            now.notional_max if wish.notional_max is None else _notional(wish.notional_max, scale)
        ),
        day_end_s=now.day_end_s if wish.day_end is None else _second(wish.day_end),
    )


def _step(value: int, what: str) -> int:
    if not value:
        raise ConfigError(f"a {what} of 0 would refuse everything: nothing was changed")
    return value


def _notional(text: str, scale: Scale) -> int:
    """In ticks times lots, rounded down: an order of exactly so much money may pass."""
    try:
        money = Decimal(text)
    except ArithmeticError:
        raise ConfigError(f"{text!r} is no amount of money") from None
    steps = money / (scale.tick * scale.lot)
    if not 0 <= steps < 2**63:
        raise ConfigError(f"a largest notional of {text} is out of range")
    return int(steps)


def _second(text: str) -> int:
    found = _HOUR.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no time of day: write it as 22:00, in UTC")
    return (int(found[1]) * 3600 + int(found[2]) * 60) % DAY_S


def _limits_in_words(wish: InstrumentWish) -> str:
    told = {
        "tick": wish.tick,
        "lot": wish.lot,
        "largest quantity": wish.quantity_max,
        "largest notional (0: none)": wish.notional_max,
        "end of day (UTC)": wish.day_end,
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
