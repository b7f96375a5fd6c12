"""What the tests of the market share: a market with sessions and an instrument, spoken to in
commands and events.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.core_market import RustMarket
from engine.errors import EngineImplementationUnavailable
from engine.market import Market, create_market, restore_market
from engine.reference import PythonMarket
from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    Mode,
    OrderType,
    RestingOrder,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import (
    decode_events,
    decode_resting_orders,
    encode_commands,
    instrument_command,
    session_command,
)

CONTROL, PROXY, SHADOW, READER = 1, 2, 3, 4  # session numbers
BTC, ETH = 1, 2  # instrument numbers
PRICE_MAX, QTY_MAX = 1_000_000, 1_000
SELL, BUY = Side.SELL, Side.BUY


def market_or_skip(implementation: str) -> Market:
    try:
        return create_market(implementation)
    except EngineImplementationUnavailable as error:
        pytest.skip(f"SKIPPED, not passed: {error}")


def restore_or_skip(implementation: str, snapshot: bytes) -> Market:
    market_or_skip(implementation)
    return restore_market(implementation, snapshot)


def bounded_market(implementation: str, *, per_book: int, shard: int) -> Market:
    """A market whose bounds can be reached in a test."""
    market_or_skip(implementation)
    kind = PythonMarket if implementation == "python" else RustMarket
    return kind(open_orders_per_book_max=per_book, open_orders_max=shard)


def new(
    order_id: int,
    side: int = BUY,
    price_ticks: int = 100,
    qty_lots: int = 5,
    *,
    session: int = PROXY,
    instrument: int = BTC,
    epoch: int = 1,
    ref: int = 0,
    account: int = 7,
    ord_type: int = OrderType.LIMIT,
    tif: int = TimeInForce.GTC,
) -> Command:
    return Command(
        kind=CommandKind.NEW,
        side=side,
        ord_type=ord_type,
        tif=tif,
        session=session,
        instrument=instrument,
        epoch=epoch,
        ref=ref,
        account=account,
        order_id=order_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
    )


def ioc(order_id: int, side: int, price_ticks: int, qty_lots: int, **rest: int) -> Command:
    return new(order_id, side, price_ticks, qty_lots, tif=TimeInForce.IOC, **rest)


def market_order(order_id: int, side: int, qty_lots: int, **rest: int) -> Command:
    return new(order_id, side, 0, qty_lots, ord_type=OrderType.MARKET, tif=TimeInForce.IOC, **rest)


def cancel(
    order_id: int,
    *,
    session: int = PROXY,
    instrument: int = BTC,
    epoch: int = 1,
    ref: int = 0,
    account: int = 7,
) -> Command:
    return Command(
        kind=CommandKind.CANCEL,
        session=session,
        instrument=instrument,
        epoch=epoch,
        ref=ref,
        account=account,
        order_id=order_id,
    )


def set_mode(mode: int, epoch: int, *, instrument: int = BTC, session: int = CONTROL) -> Command:
    return Command(
        kind=CommandKind.MODE, session=session, instrument=instrument, epoch=epoch, aux=mode
    )


def clear(*, instrument: int = BTC, session: int = SHADOW) -> Command:
    return Command(kind=CommandKind.CLEAR, session=session, instrument=instrument)


def define(
    instrument: int,
    name: str,
    *,
    price_ticks_max: int = PRICE_MAX,
    qty_lots_max: int = QTY_MAX,
    session: int = CONTROL,
) -> Command:
    command = instrument_command(
        instrument=instrument,
        name=name,
        price_ticks_max=price_ticks_max,
        qty_lots_max=qty_lots_max,
    )
    return changed(command, session=session)


def changed(command: Command, **fields: int) -> Command:
    return Command(**{name: getattr(command, name) for name in command.__struct_fields__} | fields)


class Driver:
    """Sends commands with the next reference of their session, unless they bring one."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.refs: dict[int, int] = {}

    def batch(self, commands: Sequence[Command]) -> list[list[Event]]:
        """The events of each command."""
        data = encode_commands(self.referenced(command) for command in commands)
        first_seq = self.market.last_seq + 1
        answers: list[list[Event]] = [[] for _ in commands]
        for event in decode_events(self.market.apply(data, self.market.last_ts_ns + 1_000)):
            answers[event.seq - first_seq].append(event)
        self.market.check()
        return answers

    def send(self, command: Command) -> list[Event]:
        return self.batch([command])[0]

    def reason(self, command: Command) -> Reason:
        """Why it was rejected; NONE if it was not."""
        event = self.send(command)[0]
        return event.reason if event.kind is EventKind.REJECTED else Reason.NONE

    def referenced(self, command: Command) -> Command:
        if command.ref or command.kind == CommandKind.SESSION:
            return command
        self.refs[command.session] = self.refs.get(command.session, 0) + 1
        return changed(command, ref=self.refs[command.session])

    def orders(self, instrument: int = BTC) -> list[RestingOrder]:
        return list(decode_resting_orders(self.market.orders(instrument)))

    def ids(self, instrument: int = BTC) -> list[int]:
        return [order.order_id for order in self.orders(instrument)]

    def fills(self, command: Command) -> list[tuple[int, int, int]]:
        """(maker, price, quantity) of each fill of a new order."""
        return [
            (event.contra_id, event.price_ticks, event.qty_lots)
            for event in self.send(command)
            if event.kind is EventKind.FILL
        ]


def opened(market: Market) -> Driver:
    """One session of each role; BTC-USD live at epoch 1, ETH-USD closed."""
    driver = Driver(market)
    driver.batch(
        [
            session_command(session=CONTROL, name="control", role=Role.ADMIN),
            session_command(session=PROXY, name="proxy-0", role=Role.TRADE),
            session_command(session=SHADOW, name="shadow-feed", role=Role.SHADOW),
            session_command(session=READER, name="reader", role=Role.READ_ONLY),
            define(BTC, "BTC-USD"),
            define(ETH, "ETH-USD"),
            set_mode(Mode.LIVE, 1),
        ]
    )
    return driver
