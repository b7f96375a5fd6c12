"""Batches of commands in, events out.

A command is checked completely before anything changes: it applies whole, or it is rejected whole
with the first reason that holds in the numeric order of `engine.reject`.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from engine import limits
from engine.errors import UnknownInstrument
from engine.reference import events
from engine.reference.instrument import Instrument
from engine.reference.order import order_state, resting_order
from engine.reference.performing import perform
from engine.reference.refusals import refusal
from engine.reference.state import Bounds, State
from engine.reject import Reason
from engine.rules import NAMES, VERSIONS, concerns_instrument, is_gateways
from engine.snapshot import (
    AccountState,
    InstrumentState,
    SessionState,
    decode_state,
    encode_state,
)
from engine.types import Command, Event, EventFlag, EventKind, Mode
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    encode_event,
    encode_order_state,
    encode_resting_order,
)

_SECOND_NS = 10**9


class PythonMarket:
    """See `engine.market.Market`. The bounds can be lowered, so that tests reach them."""

    implementation: Final = "python"

    def __init__(
        self,
        *,
        open_orders_per_book_max: int = limits.OPEN_ORDERS_PER_BOOK_MAX,
        open_orders_max: int = limits.OPEN_ORDERS_MAX,
        levels_per_side_max: int = limits.LEVELS_PER_SIDE_MAX,
        stops_per_book_max: int = limits.STOPS_PER_BOOK_MAX,
        icebergs_per_book_max: int = limits.ICEBERGS_PER_BOOK_MAX,
        accounts_max: int = limits.ACCOUNTS_MAX,
        mass_cancel_max: int = limits.MASS_CANCEL_MAX,
    ) -> None:
        self._state = State(
            Bounds(
                open_orders_per_book_max=open_orders_per_book_max,
                open_orders_max=open_orders_max,
                levels_per_side_max=levels_per_side_max,
                stops_per_book_max=stops_per_book_max,
                icebergs_per_book_max=icebergs_per_book_max,
                accounts_max=accounts_max,
                mass_cancel_max=mass_cancel_max,
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes | memoryview) -> PythonMarket:
        """Raises SnapshotUnreadable, with what is wrong and where."""
        market = cls()
        market._state.restore(decode_state(snapshot))
        return market

    @property
    def last_seq(self) -> int:
        return self._state.last_seq

    @property
    def last_ts_ns(self) -> int:
        return self._state.last_ts_ns

    # --- commands

    def apply(
        self, commands: bytes | memoryview, ts_ns: int, *, rules: int = limits.RULES
    ) -> bytes:
        view = memoryview(commands)
        count, rest = divmod(view.nbytes, COMMAND_BYTES)
        if rest:
            raise ValueError(f"a batch of {view.nbytes} bytes is not made of 64-byte commands")
        if not 0 <= ts_ns <= limits.U64_MAX:
            raise ValueError(f"{ts_ns} is no time: it does not fit 64 bits")
        if self.last_seq + count > limits.U64_MAX:
            raise ValueError("the sequence numbers are used up")
        if rules not in VERSIONS:
            raise ValueError(f"there are no rules {rules}: this market knows {sorted(VERSIONS)}")
        self._state.has_bounded_levels &= rules > 1
        rows = np.frombuffer(view, COMMAND_DTYPE).tolist()
        return b"".join(
            self._applied(
                Command(**dict(zip(NAMES, row, strict=True))),
                min(ts_ns + limits.COMMAND_STEP_NS * position, limits.U64_MAX),
                rules,
            )
            for position, row in enumerate(rows)
        )

    def _applied(self, command: Command, ts_ns: int, rules: int) -> bytes:
        state = self._state
        state.last_seq += 1
        state.last_ts_ns = max(state.last_ts_ns, ts_ns)
        reason = refusal(state, command, rules)
        self._note_ref(command, rules)
        if reason is Reason.NONE:
            told = perform(state, command)
        else:
            told = [events.rejected(command, reason)]
        concerns = concerns_instrument(command, rules)
        last = len(told) - 1
        return b"".join(
            encode_event(
                msgspec.structs.replace(
                    event,
                    seq=state.last_seq,
                    ref=command.ref,
                    sub=sub,
                    flags=self._flags(event, concerns, is_last=sub == last),
                )
            )
            for sub, event in enumerate(told)
        )

    def _note_ref(self, command: Command, rules: int) -> None:
        """A reference is used up by whatever was sent under it, rejected or not."""
        session = self._state.sessions.get(command.session)
        if session is not None and not is_gateways(command.kind, rules):
            session.last_ref = max(session.last_ref, command.ref)

    def _flags(self, event: Event, concerns: bool, *, is_last: bool) -> EventFlag:
        """What removes orders of several instruments tells of each in that one's own mode; of the
        whole in none.
        """
        flags = EventFlag.LAST if is_last else EventFlag(0)
        instrument = self._state.instruments.get(event.instrument)
        is_live = instrument is not None and instrument.mode is Mode.LIVE
        if is_live and (concerns or event.kind is EventKind.CANCELED):
            flags |= EventFlag.LIVE
        return flags

    # --- what it is

    def orders(self, instrument: int) -> bytes:
        orders = self._instrument(instrument).book.orders()
        return b"".join(encode_resting_order(resting_order(order)) for order in orders)

    def stops(self, instrument: int) -> bytes:
        stops = self._instrument(instrument).stops.orders()
        return b"".join(encode_order_state(order_state(stop)) for stop in stops)

    def depth(self, instrument: int, levels: int) -> bytes:
        return self._instrument(instrument).book.depth(levels)

    def displayed_orders(self, instrument: int, count: int) -> bytes:
        return self._instrument(instrument).book.displayed_orders(count)

    def instruments(self) -> tuple[InstrumentState, ...]:
        return tuple(instrument.state() for instrument in self._state.ascending())

    def sessions(self) -> tuple[SessionState, ...]:
        return self._state.session_states()

    def accounts(self) -> tuple[AccountState, ...]:
        return self._state.accounts.states()

    def account(self, account: int) -> AccountState:
        return self._state.accounts.state(account)

    def next_expiry_ns(self) -> int | None:
        return min(
            (
                instrument.expiries[0][0] * _SECOND_NS
                for instrument in self._state.ascending()
                if instrument.expiries and instrument.mode is not Mode.CLOSED
            ),
            default=None,
        )

    def snapshot(self) -> bytes:
        return encode_state(self._state.values())

    def check(self) -> None:
        self._state.check()

    def _instrument(self, number: int) -> Instrument:
        instrument = self._state.instruments.get(number)
        if instrument is None:
            raise UnknownInstrument(f"the market has no instrument {number}")
        return instrument
