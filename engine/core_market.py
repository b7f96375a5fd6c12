"""The Rust core behind the Market interface. All the work is in `engine._core`; this maps names and
errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine import limits
from engine.errors import EngineImplementationUnavailable, SnapshotUnreadable, UnknownInstrument
from engine.snapshot import InstrumentState, SessionState
from engine.types import Mode, Role

if TYPE_CHECKING:
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
    ) -> None:
        self._core = _core_class()(
            open_orders_per_book_max=open_orders_per_book_max, open_orders_max=open_orders_max
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

    def apply(self, commands: bytes | memoryview, ts_ns: int) -> bytes:
        if not 0 <= ts_ns <= limits.U64_MAX:
            raise ValueError(f"{ts_ns} is no time: it does not fit 64 bits")
        return self._core.apply(bytes(commands), ts_ns)

    def orders(self, instrument: int) -> bytes:
        orders = self._core.orders(instrument) if 0 <= instrument <= limits.U32_MAX else None
        if orders is None:
            raise UnknownInstrument(f"the market has no instrument {instrument}")
        return orders

    def instruments(self) -> tuple[InstrumentState, ...]:
        return tuple(
            InstrumentState(
                instrument=instrument,
                name=name,
                mode=Mode(mode),
                epoch=epoch,
                open_orders=open_orders,
                price_ticks_max=price_ticks_max,
                qty_lots_max=qty_lots_max,
            )
            for instrument, name, mode, epoch, open_orders, price_ticks_max, qty_lots_max in (
                self._core.instruments()
            )
        )

    def sessions(self) -> tuple[SessionState, ...]:
        return tuple(
            SessionState(session=session, name=name, role=Role(role), last_ref=last_ref)
            for session, name, role, last_ref in self._core.sessions()
        )

    def snapshot(self) -> bytes:
        return self._core.snapshot()

    def check(self) -> None:
        self._core.check()


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
