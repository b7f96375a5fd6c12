"""The reference market: what every command does, in plain Python. It is the specification of the
Rust core's market.

A command is checked completely before anything changes: it applies whole, or it is rejected whole
with the first reason that holds in the numeric order of `engine.reject`.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from engine import limits, rules
from engine.book import Book, Order, resting
from engine.errors import UnknownInstrument
from engine.reject import Reason
from engine.snapshot import (
    InstrumentState,
    MarketState,
    SessionState,
    decode_state,
    encode_state,
)
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Mode,
    OrderType,
    RestingOrder,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    encode_event,
    encode_resting_order,
    instrument_name,
    session_name,
)


class _Session:
    def __init__(self, *, name: str, role: Role, last_ref: int = 0) -> None:
        self.name = name
        self.role = role
        self.last_ref = last_ref


class _Instrument:
    """Begins closed at epoch 0."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = Mode.CLOSED
        self.epoch = 0
        self.price_ticks_max = 0
        self.qty_lots_max = 0
        self.book = Book()


class PythonMarket:
    """See `engine.market.Market`."""

    implementation: Final = "python"

    def __init__(
        self,
        *,
        open_orders_per_book_max: int = limits.OPEN_ORDERS_PER_BOOK_MAX,
        open_orders_max: int = limits.OPEN_ORDERS_MAX,
    ) -> None:
        self.last_seq = 0
        self.last_ts_ns = 0
        self._open_orders_per_book_max = open_orders_per_book_max
        self._open_orders_max = open_orders_max
        self._sessions: dict[int, _Session] = {}
        self._instruments: dict[int, _Instrument] = {}
        self._numbers: dict[str, int] = {}  # of the instruments, by name
        self._orders: dict[int, Order] = {}  # the open orders of all instruments, by id

    def apply(self, commands: bytes | memoryview, ts_ns: int) -> bytes:
        view = memoryview(commands)
        count, rest = divmod(view.nbytes, COMMAND_BYTES)
        if rest:
            raise ValueError(f"a batch of {view.nbytes} bytes is not made of 64-byte commands")
        if not 0 <= ts_ns <= limits.U64_MAX:
            raise ValueError(f"{ts_ns} is no time: it does not fit 64 bits")
        if self.last_seq + count > limits.U64_MAX:
            raise ValueError("the sequence numbers are used up")
        if not count:
            return b""
        happened_ns = min(ts_ns + limits.COMMAND_STEP_NS * (count - 1), limits.U64_MAX)
        self.last_ts_ns = max(self.last_ts_ns, happened_ns)
        rows = np.frombuffer(view, COMMAND_DTYPE).tolist()
        return b"".join(
            self._applied(Command(**dict(zip(rules.NAMES, row, strict=True)))) for row in rows
        )

    def _applied(self, command: Command) -> bytes:
        self.last_seq += 1
        reason = self._refusal(command)
        self._note_ref(command)
        events = self._perform(command) if reason is Reason.NONE else [_rejected(command, reason)]
        instrument = self._instruments.get(command.instrument)
        is_live = instrument is not None and instrument.mode is Mode.LIVE
        # A session belongs to no instrument, though the number in its field may name one.
        flags = EventFlag(EventFlag.LIVE if is_live and command.kind != CommandKind.SESSION else 0)
        last = len(events) - 1
        return b"".join(
            encode_event(
                msgspec.structs.replace(
                    event,
                    seq=self.last_seq,
                    ref=command.ref,
                    instrument=command.instrument,
                    sub=sub,
                    flags=flags | EventFlag.LAST if sub == last else flags,
                )
            )
            for sub, event in enumerate(events)
        )

    def _note_ref(self, command: Command) -> None:
        """A reference is used up by whatever was sent under it, rejected or not."""
        session = self._sessions.get(command.session)
        if session is not None and command.kind != CommandKind.SESSION:
            session.last_ref = max(session.last_ref, command.ref)

    # --- may it? Each method returns the first reason that holds, in the order of engine.reject

    def _refusal(self, command: Command) -> Reason:
        if command.kind not in rules.FIELDS:
            return Reason.UNKNOWN_KIND
        if not rules.well_formed(command):
            return Reason.BAD_FIELD
        session = self._sessions.get(command.session)
        if command.kind == CommandKind.SESSION:
            return self._session_refusal(command)
        if session is None:
            return Reason.NOT_PERMITTED
        if command.ref <= session.last_ref:
            return Reason.REF_NOT_INCREASING
        if command.kind not in rules.PERMITTED[session.role]:
            return Reason.NOT_PERMITTED
        instrument = self._instruments.get(command.instrument)
        if command.kind == CommandKind.INSTRUMENT:
            return self._instrument_refusal(command)
        if instrument is None:
            return Reason.UNKNOWN_INSTRUMENT
        if command.kind == CommandKind.MODE:
            return rules.mode_refusal(command, instrument.mode, instrument.epoch)
        if command.kind == CommandKind.CLEAR:
            return Reason.INSTRUMENT_LIVE if instrument.mode is Mode.LIVE else Reason.NONE
        reason = rules.entry_refusal(command, session.role, instrument.mode, instrument.epoch)
        if reason is not Reason.NONE:
            return reason
        if command.kind == CommandKind.CANCEL:
            return self._cancel_refusal(command)
        return self._new_refusal(command, instrument)

    def _session_refusal(self, command: Command) -> Reason:
        name = session_name(command)
        taken = command.session in self._sessions or any(
            each.name == name for each in self._sessions.values()
        )
        return Reason.NOT_PERMITTED if taken else Reason.NONE

    def _instrument_refusal(self, command: Command) -> Reason:
        """One number, one name, for good; what may change are the limits."""
        name = instrument_name(command)
        known = self._instruments.get(command.instrument)
        if known is not None and known.name != name:
            return Reason.INSTRUMENT_MISMATCH
        if self._numbers.get(name, command.instrument) != command.instrument:
            return Reason.INSTRUMENT_MISMATCH
        if command.price_ticks <= 0:
            return Reason.BAD_PRICE
        if command.qty_lots == 0:
            return Reason.BAD_QUANTITY
        if known is None and len(self._instruments) >= limits.INSTRUMENTS_MAX:
            return Reason.BOOK_FULL
        return Reason.NONE

    def _cancel_refusal(self, command: Command) -> Reason:
        order = self._orders.get(command.order_id)
        if order is None or order.instrument != command.instrument:
            return Reason.UNKNOWN_ORDER
        return Reason.NOT_OWNER if order.account != command.account else Reason.NONE

    def _new_refusal(self, command: Command, instrument: _Instrument) -> Reason:
        if command.order_id in self._orders:
            return Reason.DUPLICATE_ORDER_ID
        reason = rules.number_refusal(command, instrument.price_ticks_max, instrument.qty_lots_max)
        if reason is not Reason.NONE:
            return reason
        # An order that trades either fills, or fills a maker and so makes room for itself.
        full = (
            len(instrument.book) >= self._open_orders_per_book_max
            or len(self._orders) >= self._open_orders_max
        )
        if full and command.tif == TimeInForce.GTC:
            crosses = instrument.book.crosses(Side(command.side), command.price_ticks)
            return Reason.NONE if crosses else Reason.BOOK_FULL
        return Reason.NONE

    # --- it may: do it

    def _perform(self, command: Command) -> list[Event]:
        if command.kind == CommandKind.NEW:
            return self._new(command)
        if command.kind == CommandKind.CANCEL:
            return self._cancel(command)
        if command.kind == CommandKind.INSTRUMENT:
            return self._define_instrument(command)
        if command.kind == CommandKind.MODE:
            return self._change_mode(command)
        if command.kind == CommandKind.CLEAR:
            return self._clear(command)
        return self._define_session(command)

    def _new(self, command: Command) -> list[Event]:
        book = self._instruments[command.instrument].book
        side = Side(command.side)
        taker = Event(
            kind=EventKind.FILL,
            side=side,
            ord_type=command.ord_type,
            tif=command.tif,
            order_id=command.order_id,
            price_ticks=command.price_ticks,
            qty_lots=command.qty_lots,
            leaves_lots=command.qty_lots,
        )
        events = [
            msgspec.structs.replace(taker, kind=EventKind.ACCEPTED, contra_id=command.account)
        ]
        leaves_lots = command.qty_lots
        limit_ticks = None if command.ord_type == OrderType.MARKET else command.price_ticks
        for trade in book.match(side, limit_ticks, command.qty_lots):
            leaves_lots -= trade.qty_lots
            if trade.maker_leaves_lots == 0:
                del self._orders[trade.maker_id]
            events.append(
                msgspec.structs.replace(
                    taker,
                    contra_id=trade.maker_id,
                    price_ticks=trade.price_ticks,
                    qty_lots=trade.qty_lots,
                    leaves_lots=leaves_lots,
                    contra_leaves_lots=trade.maker_leaves_lots,
                )
            )
        if leaves_lots and command.tif == TimeInForce.GTC:
            self._rest(command, side, leaves_lots)
        elif leaves_lots:
            events.append(
                msgspec.structs.replace(
                    taker,
                    kind=EventKind.CANCELED,
                    reason=Reason.UNFILLED,
                    contra_id=command.account,
                    qty_lots=leaves_lots,
                    leaves_lots=0,
                )
            )
        return events

    def _rest(self, command: Command, side: Side, leaves_lots: int) -> None:
        order = Order(
            instrument=command.instrument,
            order_id=command.order_id,
            account=command.account,
            side=side,
            price_ticks=command.price_ticks,
            qty_lots=command.qty_lots,
            leaves_lots=leaves_lots,
        )
        self._instruments[command.instrument].book.rest(order)
        self._orders[order.order_id] = order

    def _cancel(self, command: Command) -> list[Event]:
        order = self._orders.pop(command.order_id)
        self._instruments[command.instrument].book.remove(order)
        return [
            Event(
                kind=EventKind.CANCELED,
                reason=Reason.BY_REQUEST,
                side=order.side,
                ord_type=OrderType.LIMIT,  # nothing else rests
                tif=TimeInForce.GTC,
                order_id=order.order_id,
                contra_id=order.account,
                price_ticks=order.price_ticks,
                qty_lots=order.leaves_lots,
            )
        ]

    def _define_instrument(self, command: Command) -> list[Event]:
        """Its limits hold for orders to come; what rests already stays."""
        instrument = self._instruments.get(command.instrument)
        if instrument is None:
            instrument = self._add_instrument(command.instrument, instrument_name(command))
        instrument.price_ticks_max = command.price_ticks
        instrument.qty_lots_max = command.qty_lots
        return [
            Event(
                kind=EventKind.INSTRUMENT,
                order_id=command.order_id,  # with the account: the name, as in the command
                contra_id=command.account,
                price_ticks=command.price_ticks,
                qty_lots=command.qty_lots,
            )
        ]

    def _add_instrument(self, number: int, name: str) -> _Instrument:
        instrument = self._instruments[number] = _Instrument(name)
        self._numbers[name] = number
        return instrument

    def _change_mode(self, command: Command) -> list[Event]:
        instrument = self._instruments[command.instrument]
        instrument.mode = Mode(command.aux)
        instrument.epoch = command.epoch
        return [Event(kind=EventKind.MODE, contra_id=command.aux, leaves_lots=command.epoch)]

    def _clear(self, command: Command) -> list[Event]:
        instrument = self._instruments[command.instrument]
        for order in instrument.book.orders():
            del self._orders[order.order_id]
        removed = len(instrument.book)
        instrument.book = Book()
        return [Event(kind=EventKind.CLEARED, qty_lots=removed)]

    def _define_session(self, command: Command) -> list[Event]:
        self._sessions[command.session] = _Session(
            name=session_name(command), role=Role(command.aux)
        )
        return [
            Event(
                kind=EventKind.SESSION,
                order_id=command.order_id,  # with three more fields: the name, as in the command
                contra_id=command.account,
                price_ticks=command.price_ticks,
                qty_lots=command.qty_lots,
                leaves_lots=command.aux,
                contra_leaves_lots=command.session,
            )
        ]

    # --- what it is

    def orders(self, instrument: int) -> bytes:
        return b"".join(map(encode_resting_order, self._resting(instrument)))

    def instruments(self) -> tuple[InstrumentState, ...]:
        return tuple(
            InstrumentState(
                instrument=number,
                name=each.name,
                mode=each.mode,
                epoch=each.epoch,
                open_orders=len(each.book),
                price_ticks_max=each.price_ticks_max,
                qty_lots_max=each.qty_lots_max,
            )
            for number, each in sorted(self._instruments.items())
        )

    def sessions(self) -> tuple[SessionState, ...]:
        return tuple(
            SessionState(session=number, name=each.name, role=each.role, last_ref=each.last_ref)
            for number, each in sorted(self._sessions.items())
        )

    def snapshot(self) -> bytes:
        return encode_state(
            MarketState(
                last_seq=self.last_seq,
                last_ts_ns=self.last_ts_ns,
                sessions=self.sessions(),
                instruments=self.instruments(),
                books=tuple(self._resting(each) for each in sorted(self._instruments)),
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes | memoryview) -> PythonMarket:
        """Raises SnapshotUnreadable, with what is wrong and where."""
        state = decode_state(snapshot)
        market = cls()
        market.last_seq = state.last_seq
        market.last_ts_ns = state.last_ts_ns
        for session in state.sessions:
            market._sessions[session.session] = _Session(
                name=session.name, role=session.role, last_ref=session.last_ref
            )
        for each, book in zip(state.instruments, state.books, strict=True):
            instrument = market._add_instrument(each.instrument, each.name)
            instrument.mode = each.mode
            instrument.epoch = each.epoch
            instrument.price_ticks_max = each.price_ticks_max
            instrument.qty_lots_max = each.qty_lots_max
            for record in book:
                order = _restored(each.instrument, record)
                instrument.book.rest(order)
                market._orders[order.order_id] = order
        return market

    def check(self) -> None:
        ids: list[int] = []
        for number, instrument in self._instruments.items():
            instrument.book.check()
            for order in instrument.book.orders():
                assert order.instrument == number, f"order {order.order_id} is in a strange book"
                assert self._orders.get(order.order_id) is order, f"{order.order_id} is not indexed"
                ids.append(order.order_id)
            assert len(instrument.book) <= self._open_orders_per_book_max, f"{number} is too full"
        names = {each.name: number for number, each in self._instruments.items()}
        assert names == self._numbers, "the index of names differs from the instruments"
        assert len(ids) == len(self._orders), "the index holds orders that no book has"
        assert len(ids) <= self._open_orders_max, "the shard is too full"

    def _resting(self, instrument: int) -> tuple[RestingOrder, ...]:
        if instrument not in self._instruments:
            raise UnknownInstrument(f"the market has no instrument {instrument}")
        return tuple(map(resting, self._instruments[instrument].book.orders()))


def _rejected(command: Command, reason: Reason) -> Event:
    return Event(
        kind=EventKind.REJECTED,
        side=command.side,
        ord_type=command.ord_type,
        tif=command.tif,
        reason=reason,
        order_id=command.order_id,
        contra_id=command.account,
        price_ticks=command.price_ticks,
        qty_lots=command.qty_lots,
    )


def _restored(instrument: int, record: RestingOrder) -> Order:
    return Order(
        instrument=instrument,
        order_id=record.order_id,
        account=record.account,
        side=Side(record.side),
        price_ticks=record.price_ticks,
        qty_lots=record.qty_lots,
        leaves_lots=record.leaves_lots,
    )
