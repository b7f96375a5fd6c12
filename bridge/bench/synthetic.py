"""A monolith in memory, for tests and benchmarks of the comparison: it matches with the reference
book, and tells what it did as a change stream and as captures, like the real one through its
database and the proxy.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from bridge.proxy.desk.dialect import Dialect
from engine.reference import PythonMarket
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    Mode,
    OrderType,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import (
    decode_events,
    decode_resting_orders,
    encode_command,
    instrument_command,
    session_command,
)
from shadow.answer import OrderView, canceled, placed
from shadow.answer_values import decimal_text
from shadow.capture import Capture, Outcome
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.operation import (
    Change,
    FillInserted,
    LegacyFill,
    LegacyTransaction,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Status,
    ordered_lots,
)

_SESSION = 1
_COMMIT_BYTES = 64  # between two commit records
_SIDE_WORDS = {Side.BUY: "buy", Side.SELL: "sell"}
_TYPE_WORDS = {OrderType.LIMIT: "limit", OrderType.MARKET: "market"}
_TIF_WORDS = {TimeInForce.GTC: "gtc", TimeInForce.IOC: "ioc"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    account: int
    side: Side
    qty_lots: int
    price_ticks: int = 0
    ord_type: OrderType = OrderType.LIMIT
    tif: TimeInForce = TimeInForce.GTC


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One operation as its two observers saw it."""

    tx: LegacyTransaction
    capture: Capture


class Monolith:
    """Order ids, fill ids and positions grow from where they are told to begin."""

    def __init__(
        self,
        scales: Mapping[str, Scale],
        mapping: LegacyMapping,
        *,
        lsn: int = 1_000_000,
        at_us: int = 1_700_000_000_000_000,
    ) -> None:
        self.lsn = lsn
        self.at_us = at_us
        self.images: dict[int, OrderImage] = {}  # open orders only
        self.owners: dict[int, tuple[str, int]] = {}  # symbol and account of every order
        self._scales = scales
        self._mapping = mapping
        self._dialect = Dialect(mapping.responses, mapping.words, scales)
        self._market = PythonMarket()
        self._next_order = 1
        self._next_fill = 1
        self._next_capture = 1
        self._prepare()

    def place(self, order: Order) -> Done:
        image = OrderImage(
            symbol=order.symbol,
            order_id=self._next_order,
            account=order.account,
            side=order.side,
            ord_type=order.ord_type,
            tif=order.tif,
            price_ticks=order.price_ticks,
            qty_lots=order.qty_lots,
            leaves_lots=order.qty_lots,
            status=Status.OPEN,
            created_at_us=self.at_us,
        )
        self._next_order += 1
        self.owners[image.order_id] = image.symbol, image.account
        events = self._apply(
            Command(
                kind=CommandKind.NEW,
                side=order.side,
                ord_type=order.ord_type,
                tif=order.tif,
                account=order.account,
                order_id=image.order_id,
                price_ticks=order.price_ticks,
                qty_lots=order.qty_lots,
            ),
            order.symbol,
        )
        view = placed(order.symbol, events, self.at_us * 1000)
        if not isinstance(view, OrderView):
            raise AssertionError(f"the synthetic flow is not legal: {view.name}")
        changes = list(self._placed_changes(image, view, events))
        return Done(tx=self.transaction(*changes), capture=self._place_capture(order, view))

    def cancel(self, order_id: int) -> Done:
        image = self.images.pop(order_id)
        command = Command(kind=CommandKind.CANCEL, account=image.account, order_id=order_id)
        event = self._apply(command, image.symbol)[0]
        final = msgspec.structs.replace(image, status=Status.CANCELED)
        view = canceled(
            image.symbol,
            event,
            self.at_us * 1000,
            qty_lots=ordered_lots(image),
            created_at_us=image.created_at_us,
        )
        status, body = self._dialect.render_canceled(view)
        capture = self.capture(
            "cancel", image.account, b"", status, body, path_params={"id": str(order_id)}
        )
        return Done(tx=self.transaction(OrderUpdated(order=final)), capture=capture)

    def open_orders(self, symbol: str) -> tuple[OrderImage, ...]:
        """Bids, then asks; best price first, then oldest first."""
        data = self._market.orders(self._scales[symbol].instrument)
        return tuple(self.images[order.order_id] for order in decode_resting_orders(data))

    def transaction(self, *changes: Change, ours: bool = False) -> LegacyTransaction:
        """The next one in commit order."""
        self.lsn += _COMMIT_BYTES
        self.at_us += 1_000
        return LegacyTransaction(
            commit_lsn=self.lsn,
            end_lsn=self.lsn + _COMMIT_BYTES // 2,
            xid=self.lsn,
            committed_at_us=self.at_us,
            ours=ours,
            changes=changes,
        )

    def capture(
        self,
        action: str,
        account: int,
        request: bytes,
        status: int,
        response: bytes,
        *,
        path_params: Mapping[str, str] | None = None,
        outcome: Outcome = Outcome.ANSWERED,
    ) -> Capture:
        """The next in the one worker's sequence."""
        routes = self._mapping.routes
        route = next(one for one in routes if one.action == action and not one.each)
        target = route.path
        for name, value in (path_params or {}).items():
            target = target.replace(f":{name}", value)
        number = self._next_capture
        self._next_capture += 1
        sent_ns = self.at_us * 1000
        return Capture(
            worker="synthetic",
            number=number,
            action=action,
            method=route.method,
            target=target,
            path_params=dict(path_params or {}),
            content_type="application/json" if request else "",
            request_body=request,
            account=account,
            request_id=f"synthetic-{number}",
            outcome=outcome,
            status=status,
            response_body=response,
            sent_mono_ns=sent_ns,
            answered_mono_ns=sent_ns + 900_000 if status else 0,
            sent_at_ns=sent_ns,
        )

    def request_body(self, order: Order) -> bytes:
        """A place request of the sandbox's shape for it."""
        scale = self._scales[order.symbol]
        fields = {
            "market": order.symbol,
            "side": _SIDE_WORDS[order.side],
            "order_type": _TYPE_WORDS[order.ord_type],
            "time_in_force": _TIF_WORDS[order.tif],
            "quantity": decimal_text(scale.quantity(order.qty_lots)),
        }
        if order.price_ticks:
            fields["price"] = decimal_text(scale.price(order.price_ticks))
        return msgspec.json.encode({"order": fields})

    def _place_capture(self, order: Order, view: OrderView) -> Capture:
        status, body = self._dialect.render_placed(view)
        return self.capture("place", order.account, self.request_body(order), status, body)

    def _placed_changes(
        self, image: OrderImage, view: OrderView, events: Sequence[Event]
    ) -> Iterator[Change]:
        yield OrderInserted(order=image)
        for event in events:
            if event.kind is EventKind.FILL:
                yield from self._fill_changes(image.symbol, event)
        final = msgspec.structs.replace(image, leaves_lots=view.leaves_lots, status=view.status)
        if final.status is Status.OPEN:
            self.images[final.order_id] = final
        if final != image:
            yield OrderUpdated(order=final)

    def _fill_changes(self, symbol: str, event: Event) -> Iterator[Change]:
        maker = self.images.pop(event.contra_id)
        left = event.contra_leaves_lots
        status = Status.OPEN if left else Status.FILLED
        maker = msgspec.structs.replace(maker, leaves_lots=left, status=status)
        if left:
            self.images[maker.order_id] = maker
        yield OrderUpdated(order=maker)
        yield FillInserted(
            fill=LegacyFill(
                symbol=symbol,
                fill_id=self._next_fill,
                maker_order_id=event.contra_id,
                taker_order_id=event.order_id,
                price_ticks=event.price_ticks,
                qty_lots=event.qty_lots,
            )
        )
        self._next_fill += 1

    def _apply(self, command: Command, symbol: str) -> list[Event]:
        command = msgspec.structs.replace(
            command,
            session=_SESSION,
            instrument=self._scales[symbol].instrument,
            ref=self._market.last_seq + 1,
        )
        return list(decode_events(self._market.apply(encode_command(command), self.at_us * 1000)))

    def _prepare(self) -> None:
        """The market as shadowing finds it: every instrument open to the shadow's session."""
        session = session_command(session=_SESSION, name="synthetic", role=Role.SHADOW)
        admin = session_command(session=_SESSION + 1, name="synthetic-admin", role=Role.ADMIN)
        commands = [session, admin, *open_for_shadow(self._scales.values(), session=_SESSION + 1)]
        self._market.apply(b"".join(map(encode_command, commands)), self.at_us * 1000)


def open_for_shadow(scales: Iterable[Scale], *, session: int) -> list[Command]:
    """What an ADMIN session sends before anything is fed; its references grow from 1."""
    commands: list[Command] = []
    for scale in scales:
        ref = len(commands) + 1
        define = instrument_command(
            instrument=scale.instrument,
            name=scale.symbol,
            price_ticks_max=scale.price_ticks_max,
            qty_lots_max=scale.qty_lots_max,
            ref=ref,
        )
        commands.append(msgspec.structs.replace(define, session=session))
        commands.append(
            Command(
                kind=CommandKind.MODE,
                session=session,
                instrument=scale.instrument,
                epoch=1,
                ref=ref + 1,
                aux=Mode.SHADOW,
            )
        )
    return commands


def random_flow(monolith: Monolith, symbols: Sequence[str], seed: int) -> Iterator[Done]:
    """Endless and seeded: limits around a price, a fifth of them crossing, some IOC and market
    orders, and a third of cancels."""
    chooser = random.Random(seed)
    own: dict[str, list[int]] = {symbol: [] for symbol in symbols}
    while True:
        symbol = chooser.choice(symbols)
        orders = own[symbol]
        if orders and chooser.random() < 0.35:
            order_id = orders.pop(chooser.randrange(len(orders)))
            if order_id in monolith.images:
                yield monolith.cancel(order_id)
            continue
        order = random_order(chooser, symbol)
        done = monolith.place(order)
        yield done
        if order.tif is TimeInForce.GTC:
            orders.append(_order_id(done))


def random_order(chooser: random.Random, symbol: str) -> Order:
    side = chooser.choice((Side.BUY, Side.SELL))
    account = chooser.randint(1, 50)
    qty_lots = chooser.randint(1, 40) * 5
    if chooser.random() < 0.05:
        return Order(
            symbol=symbol,
            account=account,
            side=side,
            qty_lots=qty_lots,
            ord_type=OrderType.MARKET,
            tif=TimeInForce.IOC,
        )
    away = chooser.randint(1, 20) if chooser.random() < 0.8 else -chooser.randint(0, 5)
    return Order(
        symbol=symbol,
        account=account,
        side=side,
        qty_lots=qty_lots,
        price_ticks=20_000 - away if side is Side.BUY else 20_000 + away,
        tif=TimeInForce.IOC if chooser.random() < 0.1 else TimeInForce.GTC,
    )


def _order_id(done: Done) -> int:
    first = done.tx.changes[0]
    assert isinstance(first, OrderInserted)
    return first.order.order_id
