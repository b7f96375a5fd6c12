"""The Rust core behind the Market interface. All the work is in `engine._core`; this maps names and
errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from engine import limits
from engine.errors import EngineImplementationUnavailable, SnapshotUnreadable, UnknownInstrument
from engine.snapshot import AccountState, InstrumentState, SessionState
from engine.types import Mode, Role

if TYPE_CHECKING:
    from engine._core import AccountRow, Zeroing
    from engine._core import Committer as CoreCommitter
    from engine._core import Market as CoreMarket


class RustMarket:
    """See `engine.market.Market`. `apply` gives up the interpreter lock while it works.

    Raises EngineImplementationUnavailable where the core was not built.
    """

    implementation: Final = "rust"

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
        self._core = _core_class()(
            open_orders_per_book_max=open_orders_per_book_max,
            open_orders_max=open_orders_max,
            levels_per_side_max=levels_per_side_max,
            stops_per_book_max=stops_per_book_max,
            icebergs_per_book_max=icebergs_per_book_max,
            accounts_max=accounts_max,
            mass_cancel_max=mass_cancel_max,
        )

    @classmethod
    def restore(cls, snapshot: bytes | memoryview) -> RustMarket:
        """Raises SnapshotUnreadable, with what is wrong and where."""
        market = cls()
        try:
            market._core = _core_class().restore(bytes(snapshot))
        except ValueError as error:
            raise SnapshotUnreadable(f"not a snapshot: {error}") from None
        return market

    @property
    def last_seq(self) -> int:
        return self._core.last_seq

    @property
    def last_ts_ns(self) -> int:
        return self._core.last_ts_ns

    def apply(
        self, commands: bytes | memoryview, ts_ns: int, *, rules: int = limits.RULES
    ) -> bytes:
        if not 0 <= ts_ns <= limits.U64_MAX:
            raise ValueError(f"{ts_ns} is no time: it does not fit 64 bits")
        if not 0 <= rules <= limits.U16_MAX:
            raise ValueError(f"there are no rules {rules}")
        return self._core.apply(bytes(commands), ts_ns, rules)

    def committer(self, rotate: Callable[..., Any], **place: Any) -> CoreCommitter:
        """A thread that writes a journal and applies it to this market (engine.commit)."""
        from engine._core import Committer

        return Committer(self._core, rotate, **place)

    def zeroing(self) -> Zeroing:
        """What prepares a journal's segments without the interpreter (engine.preparer)."""
        from engine._core import Zeroing

        return Zeroing()

    def orders(self, instrument: int) -> bytes:
        return self._known(instrument, self._core.orders)

    def stops(self, instrument: int) -> bytes:
        return self._known(instrument, self._core.stops)

    def depth(self, instrument: int, levels: int) -> bytes:
        return self._known(instrument, self._core.depth, levels)

    def displayed_orders(self, instrument: int, count: int) -> bytes:
        return self._known(instrument, self._core.displayed_orders, count)

    def _known(self, instrument: int, read: Callable[..., bytes | None], *how: int) -> bytes:
        found = read(instrument, *how) if 0 <= instrument <= limits.U32_MAX else None
        if found is None:
            raise UnknownInstrument(f"the market has no instrument {instrument}")
        return found

    def instruments(self) -> tuple[InstrumentState, ...]:
        return tuple(_instrument_state(*row) for row in self._core.instruments())

    def sessions(self) -> tuple[SessionState, ...]:
        return tuple(
            SessionState(
                session=session, name=name, role=Role(role), last_ref=last_ref, options=options
            )
            for session, name, role, last_ref, options in self._core.sessions()
        )

    def accounts(self) -> tuple[AccountState, ...]:
        return tuple(map(_account_state, self._core.accounts()))

    def account(self, account: int) -> AccountState:
        if not 0 <= account <= limits.U64_MAX:
            return AccountState(account=account)
        return _account_state(self._core.account(account))

    def next_expiry_ns(self) -> int | None:
        return self._core.next_expiry_ns()

    def snapshot(self) -> bytes:
        return self._core.snapshot()

    def check(self) -> None:
        self._core.check()


def _instrument_state(
    named: tuple[int, str, int, int, int, int, int],
    limited: tuple[int, int, int, int, int, bool, int, int],
) -> InstrumentState:
    instrument, name, mode, epoch, open_orders, price_ticks_max, qty_lots_max = named
    price_ticks_min, tick_ticks, lot_lots, notional_max, day_end_s, halted, last, stops = limited
    return InstrumentState(
        instrument=instrument,
        name=name,
        mode=Mode(mode),
        epoch=epoch,
        open_orders=open_orders,
        price_ticks_max=price_ticks_max,
        qty_lots_max=qty_lots_max,
        price_ticks_min=price_ticks_min,
        tick_ticks=tick_ticks,
        lot_lots=lot_lots,
        notional_max=notional_max,
        day_end_s=day_end_s,
        halted=halted,
        last_price_ticks=last,
        pending_stops=stops,
    )


def _account_state(row: AccountRow) -> AccountState:
    account, group, orders_max, qty_max, rate_max, killed, orders, qty, second, count = row
    return AccountState(
        account=account,
        group=group,
        open_orders_max=orders_max,
        open_qty_max=qty_max,
        rate_max=rate_max,
        killed=killed,
        open_orders=orders,
        open_qty=qty,
        rate_second=second,
        rate_count=count,
    )


def _core_class() -> type[CoreMarket]:
    try:
        from engine._core import Market
    except ImportError as error:
        raise EngineImplementationUnavailable(
            "the Rust core (engine._core) is not built here: install Rust 1.88 or later "
            "(https://rustup.rs) and run `pip install -e .` again, or choose the reference book "
            f"with RAILSWITCH_ENGINE=python ({error})"
        ) from error
    return Market
