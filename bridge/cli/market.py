"""`railswitch market`: what the engine publishes of one instrument."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from bridge import app
from bridge.cli.common import Context, add_config_options, add_json_option, context
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, table
from engine.feed_reader import FeedReader, Picture
from engine.types import EventFlag, Side
from shadow.legacy.convert import Scale, scales

DESCRIPTION = """\
The best prices, the depth and the last trades of one instrument, as the engine publishes them to
Redis. Only the displayed part of icebergs is shown. It says so when nobody publishes.
"""

EXAMPLE = """\
  railswitch market BTC-USD
  railswitch market BTC-USD --watch
  railswitch market BTC-USD --json | jq '.bids[0]'"""

_WATCH_S = 0.25
_TRADES = 10


class Level(msgspec.Struct, frozen=True, kw_only=True):
    price: str
    quantity: str
    orders: int


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    sequence: int
    time_ns: int
    price: str
    quantity: str
    taker: str  # buy or sell
    live: bool  # False: what the engine would have traded


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints."""

    symbol: str
    published: bool  # False: nobody publishes, and this may be old
    sequence: int  # all up to here is published
    status: dict[str, str]
    bids: tuple[Level, ...]  # best first
    asks: tuple[Level, ...]
    trades: tuple[Trade, ...]  # newest first


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", metavar="SYMBOL", help="an instrument, such as BTC-USD")
    parser.add_argument(
        "--levels", type=int, default=10, metavar="N", help="prices a side (default: 10)"
    )
    parser.add_argument("--watch", action="store_true", help="show it as it changes")
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    where.instrument(args.symbol)
    if args.watch:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_show(where, args))
    else:
        asyncio.run(_show(where, args))
    return Exit.DONE


async def _show(where: Context, args: argparse.Namespace) -> None:
    scale = scales(where.config.instruments)[args.symbol]
    url, shard = app.redis_url(where.config), where.config.engine.shard
    async with FeedReader(url, shard=shard) as reader:
        if args.json:
            print_json(await _look(reader, scale, args.levels))
        elif args.watch:
            with Live(console=console(), auto_refresh=False) as live:
                while True:
                    live.update(_drawn(await _look(reader, scale, args.levels)), refresh=True)
                    await asyncio.sleep(_WATCH_S)
        else:
            console().print(_drawn(await _look(reader, scale, args.levels)))


async def _look(reader: FeedReader, scale: Scale, levels: int) -> Shown:
    picture = await reader.picture(scale.symbol)
    trades = await reader.newest_trades(scale.symbol, _TRADES)
    return Shown(
        symbol=scale.symbol,
        published=picture.is_alive,
        sequence=picture.seq,
        status=picture.status,
        bids=_levels(picture, Side.BUY, scale, levels),
        asks=_levels(picture, Side.SELL, scale, levels),
        trades=tuple(_trade(row, scale) for row in reversed(trades.tolist())),
    )


def _levels(picture: Picture, side: Side, scale: Scale, count: int) -> tuple[Level, ...]:
    rows = picture.levels[picture.levels["side"] == side][:count].tolist()
    return tuple(
        Level(price=f"{scale.price(price):f}", quantity=f"{scale.quantity(lots):f}", orders=orders)
        for _, price, lots, orders in rows
    )


def _trade(row: Any, scale: Scale) -> Trade:
    seq, time_ns, price_ticks, qty_lots, _, side, flags, _ = row
    return Trade(
        sequence=seq,
        time_ns=time_ns,
        price=f"{scale.price(price_ticks):f}",
        quantity=f"{scale.quantity(qty_lots):f}",
        taker=Side(side).name.lower(),
        live=bool(flags & EventFlag.LIVE),
    )


def _drawn(shown: Shown) -> RenderableType:
    status = shown.status
    halted = ", halted" if status.get("halted") == "1" else ""
    title = f"{shown.symbol} · {status['mode']}{halted}, epoch {status['epoch']}"
    parts: list[RenderableType] = [
        f"{title} · published up to {shown.sequence}",
        "",
        _book(shown),
    ]
    if shown.trades:
        parts += ["", _trades(shown)]
    if not shown.published:
        parts.insert(0, "[yellow]nobody publishes now: this may be old[/yellow]")
    return Group(*parts)


def _book(shown: Shown) -> Table:
    made = table(">orders", ">quantity", ">bid", "ask", "quantity", "orders")
    for at in range(max(len(shown.bids), len(shown.asks), 1)):
        bid = shown.bids[at] if at < len(shown.bids) else None
        ask = shown.asks[at] if at < len(shown.asks) else None
        made.add_row(
            *((str(bid.orders), bid.quantity, bid.price) if bid else ("", "", "-")),
            *((ask.price, ask.quantity, str(ask.orders)) if ask else ("-", "", "")),
        )
    return made


def _trades(shown: Shown) -> Table:
    made = table("last trades", ">price", ">quantity", "taker", "")
    for one in shown.trades:
        made.add_row(
            str(one.sequence), one.price, one.quantity, one.taker, "" if one.live else "in shadow"
        )
    return made
