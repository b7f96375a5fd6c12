"""Accounts: what they may do, and how much they have open in all instruments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.limits import U32_MAX, U64_MAX
from engine.reference.order import Order
from engine.snapshot import AccountState


@dataclass(slots=True)
class Settings:
    """What was set for an account, with the window of its rate. 0 is no limit, and no group."""

    group: int = 0
    open_orders_max: int = 0
    open_qty_max: int = 0
    rate_max: int = 0  # new orders and replaces in one second of the sequencer's clock
    killed: bool = False
    rate_second: int = 0  # the second that was counted last
    rate_count: int = 0  # in it


@dataclass(slots=True)
class Open:
    """Open orders of one account, and the sum of their leaves, which may outgrow 64 bits."""

    orders: int = 0
    lots: int = 0


_UNSET = Settings()  # of every account that nothing was set for; never changed
_NOTHING = Open()  # of every account without open orders; never changed


class Accounts:
    """Holds settings that differ from the defaults, and sums that are not zero; nothing else."""

    def __init__(self) -> None:
        self._settings: dict[int, Settings] = {}
        self._open: dict[int, Open] = {}

    # --- what they may do

    @property
    def configured(self) -> int:
        """How many have settings of their own."""
        return len(self._settings)

    def is_configured(self, account: int) -> bool:
        return account in self._settings

    def settings(self, account: int) -> Settings:
        """To be read only."""
        return self._settings.get(account, _UNSET)

    def limit(
        self, account: int, *, open_orders_max: int, open_qty_max: int, rate_max: int, group: int
    ) -> None:
        """Sets all four. The window of the rate goes on while there is a rate."""
        settings = self._settings.setdefault(account, Settings())
        settings.open_orders_max = open_orders_max
        settings.open_qty_max = open_qty_max
        settings.rate_max = rate_max
        settings.group = group
        if rate_max == 0:
            settings.rate_second = settings.rate_count = 0
        self._forget_defaults(account)

    def kill(self, account: int, *, killed: bool) -> None:
        self._settings.setdefault(account, Settings()).killed = killed
        self._forget_defaults(account)

    def restore(self, states: Iterable[AccountState]) -> None:
        for each in states:
            self._settings[each.account] = Settings(
                group=each.group,
                open_orders_max=each.open_orders_max,
                open_qty_max=each.open_qty_max,
                rate_max=each.rate_max,
                killed=each.killed,
                rate_second=each.rate_second,
                rate_count=each.rate_count,
            )

    def are_one(self, account: int, other: int) -> bool:
        """Whether their orders must not trade with each other, where that is prevented."""
        group = self.settings(account).group
        return account == other or (group != 0 and group == self.settings(other).group)

    def _forget_defaults(self, account: int) -> None:
        if self._settings[account] == _UNSET:
            del self._settings[account]

    # --- how many orders they send

    def orders_in(self, account: int, second: int) -> int:
        """New orders and replaces that were accepted in this second, as far as it is counted."""
        settings = self.settings(account)
        return settings.rate_count if settings.rate_second == second else 0

    def count_order(self, account: int, second: int) -> None:
        settings = self.settings(account)
        if settings.rate_max:
            settings.rate_count = min(self.orders_in(account, second) + 1, U32_MAX)
            settings.rate_second = second

    # --- what they have open

    def open(self, account: int) -> Open:
        """To be read only."""
        return self._open.get(account, _NOTHING)

    def opened(self, order: Order) -> None:
        now = self._open.setdefault(order.account, Open())
        now.orders += 1
        now.lots += order.leaves_lots

    def lessened(self, order: Order, lots: int) -> None:
        """An open order has so much less left."""
        self._open[order.account].lots -= lots

    def closed(self, order: Order) -> None:
        """An open order is open no more. What is left of it counts until now."""
        now = self._open[order.account]
        now.orders -= 1
        now.lots -= order.leaves_lots
        if now.orders == 0:
            del self._open[order.account]

    # --- what they are

    def state(self, account: int) -> AccountState:
        settings, now = self.settings(account), self.open(account)
        return AccountState(
            account=account,
            group=settings.group,
            open_orders_max=settings.open_orders_max,
            open_qty_max=settings.open_qty_max,
            rate_max=settings.rate_max,
            killed=settings.killed,
            open_orders=now.orders,
            open_qty=min(now.lots, U64_MAX),
            rate_second=settings.rate_second,
            rate_count=settings.rate_count,
        )

    def states(self) -> tuple[AccountState, ...]:
        """Of those with settings of their own, ascending by number."""
        return tuple(map(self.state, sorted(self._settings)))

    def check(self, open_orders: Iterable[Order], accounts_max: int) -> None:
        """Raises AssertionError where the sums are not those of the open orders."""
        expected: dict[int, Open] = {}
        for order in open_orders:
            now = expected.setdefault(order.account, Open())
            now.orders += 1
            now.lots += order.leaves_lots
        assert self._open == expected, "what accounts have open is not the sum of their orders"
        assert Settings() == _UNSET, "the defaults have changed"
        assert Open() == _NOTHING, "an account without orders has some"
        assert len(self._settings) <= accounts_max, "too many accounts have settings"
        for account, settings in self._settings.items():
            assert settings != _UNSET, f"account {account} has no settings and is still there"
            if not settings.rate_max:
                counted = settings.rate_second or settings.rate_count
                assert not counted, f"account {account} is counted without a limit"
