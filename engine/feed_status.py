"""The status of an instrument as market data: its mode, epoch and limits, brought up to date by the
events that change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from engine.snapshot import InstrumentState
from engine.types import Command, CommandKind, Event, EventKind, Mode
from engine.wire import instrument_name


class InstrumentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Begins as a market's new instrument does: closed, at epoch 0, without limits of its own."""

    instrument: int
    name: str
    seq: int = 0  # of the last change
    mode: Mode = Mode.CLOSED
    epoch: int = 0
    halted: bool = False
    price_ticks_min: int = 1
    price_ticks_max: int = 0
    qty_lots_max: int = 0
    tick_ticks: int = 1  # prices are multiples of it
    lot_lots: int = 1  # quantities are multiples of it
    notional_max: int = 0  # price_ticks * qty_lots of one order; 0: no limit
    day_end_s: int = 0  # second of the UTC day


def changed_status(status: InstrumentStatus | None, event: Event) -> InstrumentStatus:
    """After an event of kind INSTRUMENT, MODE, TRADING, INSTRUMENT_LIMITS or PRICE_BAND. None: the
    event defines the instrument.
    """
    if status is None:
        status = InstrumentStatus(instrument=event.instrument, name=_name(event))
    return msgspec.structs.replace(status, seq=event.seq, **_changes(status, event))


def _changes(status: InstrumentStatus, event: Event) -> dict[str, object]:
    if event.kind is EventKind.INSTRUMENT:
        return {
            "price_ticks_min": min(status.price_ticks_min, event.price_ticks),
            "price_ticks_max": event.price_ticks,
            "qty_lots_max": event.qty_lots,
        }
    if event.kind is EventKind.MODE:
        return {"mode": Mode(event.contra_id), "epoch": event.leaves_lots}
    if event.kind is EventKind.TRADING:
        return {"halted": event.contra_id == 1}
    if event.kind is EventKind.INSTRUMENT_LIMITS:
        return {
            "tick_ticks": event.contra_id,
            "lot_lots": event.order_id,
            "notional_max": event.price_ticks,
            "qty_lots_max": event.qty_lots,
            "day_end_s": event.leaves_lots,
        }
    if event.kind is EventKind.PRICE_BAND:
        return {"price_ticks_min": event.leaves_lots, "price_ticks_max": event.price_ticks}
    raise ValueError(f"an event {event.kind.name} changes no status")


def market_statuses(states: Iterable[InstrumentState], seq: int) -> Iterator[InstrumentStatus]:
    """Of a market's instruments, as they are at `seq`."""
    for state in states:
        yield InstrumentStatus(
            instrument=state.instrument,
            name=state.name,
            seq=seq,
            mode=state.mode,
            epoch=state.epoch,
            halted=state.halted,
            price_ticks_min=state.price_ticks_min,
            price_ticks_max=state.price_ticks_max,
            qty_lots_max=state.qty_lots_max,
            tick_ticks=state.tick_ticks,
            lot_lots=state.lot_lots,
            notional_max=state.notional_max,
            day_end_s=state.day_end_s,
        )


def status_fields(status: InstrumentStatus) -> tuple[str, ...]:
    """Names and values in turn, all of them text."""
    values = {
        "seq": status.seq,
        "instrument": status.instrument,
        "name": status.name,
        "mode": status.mode.name.lower(),
        "epoch": status.epoch,
        "halted": int(status.halted),
        "price_min": status.price_ticks_min,
        "price_max": status.price_ticks_max,
        "quantity_max": status.qty_lots_max,
        "tick": status.tick_ticks,
        "lot": status.lot_lots,
        "notional_max": status.notional_max,
        "day_end_s": status.day_end_s,
    }
    return tuple(str(each) for pair in values.items() for each in pair)


def _name(event: Event) -> str:
    """It travels as in the command."""
    return instrument_name(
        Command(kind=CommandKind.INSTRUMENT, account=event.contra_id, order_id=event.order_id)
    )
