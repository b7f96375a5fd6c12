"""`railswitch limits`: what instruments and accounts may do in the running engine."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from rich.markup import escape

from bridge import app
from bridge.cli.common import (
    Context,
    add_config_options,
    add_execute_option,
    add_json_option,
    context,
)
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, table
from bridge.engine_limits import (
    AccountWish,
    Act,
    InstrumentWish,
    account_acts,
    instrument_acts,
    repeats,
)
from bridge.errors import ConfigError, EngineRefused, NotConfigured
from bridge.limits import ENGINE_CONTROL_S
from engine.client import EngineClient
from engine.snapshot import AccountState, InstrumentState
from engine.types import EventKind, Role
from shadow.legacy.convert import Scale, scales

T = TypeVar("T")

DESCRIPTION = """\
Shows, and with --execute changes, the limits that the running engine keeps: of an instrument its
price band, tick, lot, largest quantity and notional, whether it is halted; of an account its open
orders, open quantity, rate, self-trade group and kill switch. Changes are journalled and hold
over restarts, until they are changed again; putting an instrument into shadow (`railswitch stage
SYMBOL shadow`) is such a change: it sets the largest price and quantity of railswitch.toml again.
They hold for the engine, not for the monolith, and bind the shadow's orders too: change an
instrument or account in shadow only if the monolith has the same limit, or the two will differ.
--kill stops new orders; what the account has open, resting orders and pending stops, stays open
unless --cancel-orders is given too.
"""

EXAMPLE = """\
  railswitch limits                                        # what holds now
  railswitch limits BTC-USD --halt --execute
  railswitch limits BTC-USD --band 180.00 300.00           # what would be done
  railswitch limits --account 42 --kill --cancel-orders --execute"""

_SESSION = "operator"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", nargs="?", help="the instrument (default: show them all)")
    of_one = parser.add_argument_group("of an instrument")
    halting = of_one.add_mutually_exclusive_group()
    halting.add_argument("--halt", action="store_true", help="cancels and reductions only")
    halting.add_argument("--open", action="store_true", help="trade again")
    of_one.add_argument("--band", nargs=2, metavar=("LOW", "HIGH"), help="of limit prices")
    of_one.add_argument("--tick", metavar="PRICE", help="prices must be multiples of it")
    of_one.add_argument("--lot", metavar="QUANTITY", help="quantities must be multiples of it")
    of_one.add_argument("--quantity-max", metavar="QUANTITY")
    of_one.add_argument("--notional-max", metavar="MONEY", help="price times quantity; 0: none")
    of_one.add_argument("--day-end", metavar="HH:MM", help="when day orders expire, UTC")
    account = parser.add_argument_group("of an account; 0 means none")
    account.add_argument("--account", type=int, metavar="ID")
    account.add_argument("--open-orders", type=int, metavar="N")
    account.add_argument("--open-quantity", type=int, metavar="LOTS", help="of all instruments")
    account.add_argument("--rate", type=int, metavar="N", help="new orders a second")
    account.add_argument("--group", type=int, metavar="N", help="whose orders never meet its own")
    killing = account.add_mutually_exclusive_group()
    killing.add_argument("--kill", action="store_true", help="no new orders; what is open stays")
    killing.add_argument("--release", action="store_true", help="new orders again")
    parser.add_argument(
        "--cancel-orders",
        action="store_true",
        help="cancel what the instrument or account has open",
    )
    add_execute_option(parser)
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    wish = _instrument_wish(args), _account_wish(args)
    if args.symbol and args.account is not None:
        raise ConfigError("an instrument or an account, not both at once: use the verb twice")
    if wish[0] != InstrumentWish() and not args.symbol:
        raise ConfigError("which instrument? Name it: `railswitch limits SYMBOL ...`")
    if wish[1] != AccountWish() and args.account is None:
        raise ConfigError("which account? Name it: `railswitch limits --account ID ...`")
    if args.cancel_orders and not args.symbol and args.account is None:
        raise ConfigError("whose orders? Name an instrument, or --account ID")
    if args.symbol:
        return _of_instrument(args, where, wish[0])
    if args.account is not None:
        return _of_account(args, where, wish[1])
    _show_instruments(args, where, None)
    return Exit.DONE


def _instrument_wish(args: argparse.Namespace) -> InstrumentWish:
    return InstrumentWish(
        halted=True if args.halt else False if args.open else None,
        band=tuple(args.band) if args.band else None,
        tick=args.tick,
        lot=args.lot,
        quantity_max=args.quantity_max,
        notional_max=args.notional_max,
        day_end=args.day_end,
        cancel_orders=bool(args.cancel_orders and args.symbol),
    )


def _account_wish(args: argparse.Namespace) -> AccountWish:
    return AccountWish(
        open_orders_max=args.open_orders,
        open_qty_max=args.open_quantity,
        rate_max=args.rate,
        group=args.group,
        killed=True if args.kill else False if args.release else None,
        cancel_orders=bool(args.cancel_orders and args.account is not None),
    )


def _of_instrument(args: argparse.Namespace, where: Context, wish: InstrumentWish) -> Exit:
    symbol = where.instrument(args.symbol)
    if wish == InstrumentWish():
        _show_instruments(args, where, symbol)
        return Exit.DONE
    scale = scales(where.config.instruments)[symbol]
    now = _states(where, scale)
    return _carry_out(args, where, instrument_acts(wish, now, scale, symbol))


def _states(where: Context, scale: Scale) -> InstrumentState:
    status = _with_engine(where, lambda client: client.status(timeout_s=ENGINE_CONTROL_S))
    for one in status.instruments:
        if one.instrument == scale.instrument:
            return one
    raise NotConfigured(
        f"the engine does not know {scale.symbol} yet: put it into shadow first, with "
        f"`railswitch stage {scale.symbol} shadow --execute`"
    )


def _of_account(args: argparse.Namespace, where: Context, wish: AccountWish) -> Exit:
    now = _with_engine(where, lambda client: client.account(args.account))
    if wish == AccountWish():
        _show_account(args, now)
        return Exit.DONE
    acts = account_acts(wish, now)
    if not wish.killed or wish.cancel_orders:
        return _carry_out(args, where, acts)

    def left_open() -> int:
        return _with_engine(where, lambda client: client.account(args.account)).open_orders

    return _carry_out(args, where, acts, left_open)


# --- acting


def _carry_out(
    args: argparse.Namespace,
    where: Context,
    acts: tuple[Act, ...],
    left_open: Callable[[], int] | None = None,
) -> Exit:
    """`left_open`: how many orders stay open whatever is done, if that is to be told."""
    if not args.execute:
        lines = [f"would: {act.does}" for act in acts]
        _tell(args, {"would": [act.does for act in acts]}, lines, left_open)
        if not args.json:
            console().print("Nothing was changed; --execute does it.")
        return Exit.DONE

    async def work(client: EngineClient) -> list[dict[str, Any]]:
        return [await _done(client, act) for act in acts]

    done = _with_engine(where, work)
    lines = [
        f"done: {one['did']}" + (f" ({one['orders']} orders)" if "orders" in one else "")
        for one in done
    ]
    _tell(args, {"done": done}, lines, left_open)
    return Exit.DONE


def _tell(
    args: argparse.Namespace,
    document: dict[str, Any],
    lines: list[str],
    left_open: Callable[[], int] | None,
) -> None:
    if left_open is not None:
        document["left_open"] = left = left_open()
        lines.append(f"stay open: {left} orders and pending stops; --cancel-orders cancels them")
    if args.json:
        print_json(document)
        return
    for line in lines:
        console().print(escape(line))


async def _done(client: EngineClient, act: Act) -> dict[str, Any]:
    """Raises EngineRefused; what was done before it stays."""
    removed = 0
    while True:
        (answer,) = await client.send([act.command], timeout_s=ENGINE_CONTROL_S)
        last = answer.events[-1]
        if last.kind is EventKind.REJECTED:
            raise EngineRefused(
                f"the engine refused ({act.does}): {last.reason.name.lower()}, see "
                f"docs/reference/reject-reasons.md. What was to be done before it has been done"
            )
        if not repeats(act):
            return {"did": act.does, "seq": answer.seq}
        removed += last.qty_lots
        if not last.leaves_lots:
            return {"did": act.does, "seq": answer.seq, "orders": removed}


def _with_engine(where: Context, ask: Callable[[EngineClient], Awaitable[T]]) -> T:
    """Raises EngineUnavailable, LoginRefused."""

    async def asked() -> T:
        client = app.engine_client(where.config, name=_SESSION, role=Role.ADMIN)
        try:
            await client.start(timeout_s=ENGINE_CONTROL_S)
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(asked())


# --- showing


def _show_instruments(args: argparse.Namespace, where: Context, symbol: str | None) -> None:
    status = _with_engine(where, lambda client: client.status(timeout_s=ENGINE_CONTROL_S))
    grid = {one.instrument: one for one in scales(where.config.instruments).values()}
    shown = [
        one
        for one in status.instruments
        if symbol is None or (one.instrument in grid and grid[one.instrument].symbol == symbol)
    ]
    if args.json:
        print_json([msgspec.to_builtins(one) for one in shown])
        return
    rows = table(
        "instrument",
        "mode",
        "trading",
        ">lowest",
        ">highest",
        ">tick",
        ">lot",
        ">largest",
        ">notional",
        ">day ends",
        ">open",
        ">stops",
    )
    for one in shown:
        rows.add_row(*_instrument_row(one, grid.get(one.instrument)))
    console().print(rows)


def _instrument_row(one: InstrumentState, scale: Scale | None) -> tuple[str, ...]:
    def price(ticks: int) -> str:
        return str(scale.price(ticks)) if scale else str(ticks)

    def quantity(lots: int) -> str:
        return str(scale.quantity(lots)) if scale else str(lots)

    notional = one.notional_max * scale.tick * scale.lot if scale else one.notional_max
    hours, minutes = divmod(one.day_end_s // 60, 60)
    return (
        escape(one.name),
        one.mode.name.lower(),
        "halted" if one.halted else "open",
        price(one.price_ticks_min),
        price(one.price_ticks_max),
        price(one.tick_ticks),
        quantity(one.lot_lots),
        quantity(one.qty_lots_max),
        f"{notional:f}" if scale and one.notional_max else str(one.notional_max or "-"),
        f"{hours:02d}:{minutes:02d}",
        str(one.open_orders),
        str(one.pending_stops),
    )


def _show_account(args: argparse.Namespace, now: AccountState) -> None:
    if args.json:
        print_json(msgspec.to_builtins(now))
        return
    rows = table("account", "orders", ">open", ">most", ">lots open", ">most", ">rate", ">group")
    rows.add_row(
        str(now.account),
        "killed" if now.killed else "may place",
        str(now.open_orders),
        str(now.open_orders_max or "-"),
        str(now.open_qty),
        str(now.open_qty_max or "-"),
        f"{now.rate_max}/s" if now.rate_max else "-",
        str(now.group or "-"),
    )
    console().print(rows)
