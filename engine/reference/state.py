"""All that a market is, in the parts that the rules speak of."""

from __future__ import annotations

from dataclasses import dataclass

from engine import limits
from engine.reference.accounts import Accounts
from engine.reference.instrument import Instrument
from engine.reference.open_orders import OpenOrders
from engine.reference.order import order_state, restored_order
from engine.rules import OrderLimits
from engine.snapshot import MarketState, SessionState
from engine.types import Role, Side

_SECOND_NS = 10**9


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """See `engine.limits`."""

    open_orders_per_book_max: int = limits.OPEN_ORDERS_PER_BOOK_MAX
    open_orders_max: int = limits.OPEN_ORDERS_MAX
    levels_per_side_max: int = limits.LEVELS_PER_SIDE_MAX
    stops_per_book_max: int = limits.STOPS_PER_BOOK_MAX
    icebergs_per_book_max: int = limits.ICEBERGS_PER_BOOK_MAX
    accounts_max: int = limits.ACCOUNTS_MAX
    mass_cancel_max: int = limits.MASS_CANCEL_MAX


@dataclass(slots=True, kw_only=True)
class Session:
    name: str
    role: Role
    last_ref: int = 0  # the highest that it has used
    options: int = 0  # SessionOption


class State:
    """Begins empty. `last_seq` and `last_ts_ns` are those of the command that is being applied, or
    was applied last.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.last_seq = 0
        self.last_ts_ns = 0
        self.sessions: dict[int, Session] = {}
        self.instruments: dict[int, Instrument] = {}
        self.numbers: dict[str, int] = {}  # of the instruments, by name
        self.accounts = Accounts()
        self.orders = OpenOrders(self.instruments, self.accounts)
        # Orders under the first rules met no bound on prices, and a restored book may hold them.
        self.has_bounded_levels = True

    @property
    def now_s(self) -> int:
        return self.last_ts_ns // _SECOND_NS

    def add_instrument(self, instrument: Instrument) -> None:
        self.instruments[instrument.number] = instrument
        self.numbers[instrument.name] = instrument.number

    def define_instrument(self, number: int, name: str, limits: OrderLimits) -> None:
        self.add_instrument(Instrument(number, name, limits))

    def ascending(self) -> list[Instrument]:
        """The instruments, by number."""
        return [instrument for _, instrument in sorted(self.instruments.items())]

    def session_states(self) -> tuple[SessionState, ...]:
        return tuple(
            SessionState(
                session=number,
                name=each.name,
                role=each.role,
                last_ref=each.last_ref,
                options=each.options,
            )
            for number, each in sorted(self.sessions.items())
        )

    def values(self) -> MarketState:
        return MarketState(
            last_seq=self.last_seq,
            last_ts_ns=self.last_ts_ns,
            sessions=self.session_states(),
            accounts=self.accounts.states(),
            instruments=tuple(each.state() for each in self.ascending()),
            books=tuple(tuple(map(order_state, each.book.orders())) for each in self.ascending()),
            stops=tuple(tuple(map(order_state, each.stops.orders())) for each in self.ascending()),
        )

    def restore(self, values: MarketState) -> None:
        """Into an empty state."""
        self.last_seq, self.last_ts_ns = values.last_seq, values.last_ts_ns
        self.has_bounded_levels = False
        for each in values.sessions:
            self.sessions[each.session] = Session(
                name=each.name, role=each.role, last_ref=each.last_ref, options=each.options
            )
        self.accounts.restore(values.accounts)
        for state, book, stops in zip(values.instruments, values.books, values.stops, strict=True):
            self.add_instrument(Instrument.restored(state))
            for record in (*book, *stops):
                self.orders.add(restored_order(state.instrument, record))

    def check(self) -> None:
        """Walks every invariant. Raises AssertionError on the first that does not hold."""
        bounds = self.bounds
        for number, instrument in self.instruments.items():
            assert instrument.number == number, f"instrument {number} is filed under another number"
            instrument.check()
            full = f"{number} is too full"
            assert instrument.open_orders <= bounds.open_orders_per_book_max, full
            assert len(instrument.stops) <= bounds.stops_per_book_max, f"{number}: too many stops"
            icebergs = instrument.book.icebergs
            assert icebergs <= bounds.icebergs_per_book_max, f"{number}: too many icebergs"
            if self.has_bounded_levels:
                most = bounds.levels_per_side_max + bounds.stops_per_book_max
                levels = max(map(instrument.book.levels, Side))
                assert levels <= most, f"{number} has too many levels"
        names = {each.name: number for number, each in self.instruments.items()}
        assert names == self.numbers, "the index of names differs from the instruments"
        self.orders.check()
        assert len(self.orders) <= bounds.open_orders_max, "the shard is too full"
        self.accounts.check(self.orders.values(), bounds.accounts_max)
        for order in self.orders.values():
            assert order.session in self.sessions, f"order {order.order_id}: nobody entered it"
        for number, session in self.sessions.items():
            may = session.role is Role.TRADE or not session.options
            assert may, f"session {number} has options that its role can't have"
