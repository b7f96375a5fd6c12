"""The adversarial scenarios do to a market what their names say, and leave it as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bridge.bench.workload import TRADER, Rows, definitions, opening, stamped
from bridge.bench.workload_adversarial import Scenario, scenarios
from engine.market import Market, create_market
from engine.reject import Reason
from engine.types import EventKind
from engine.wire import EVENT_DTYPE

SIZE = 0.01  # of the enemy's


class Played:
    """A market that has seen each scenario twice: what the timed operations came to."""

    def __init__(self, implementation: str) -> None:
        self.market = create_market(implementation)
        self.events: dict[str, list[Rows]] = {}
        self._ref = 1
        made = scenarios(SIZE)
        self.market.apply(opening(definitions(len(made))), 1)
        for _ in range(2):
            for scenario in made:
                self._play(scenario)

    def one(self, start: str) -> Rows:
        """Events of one operation whose name begins so; all of a kind must do the same."""
        (name,) = (name for name in self.events if name.startswith(start))
        kinds = {kinds_of(events) for events in self.events[name]}
        assert len(kinds) == 1
        return self.events[name][0]

    def _play(self, scenario: Scenario) -> None:
        assert not (self._apply(scenario.before)["kind"] == EventKind.REJECTED).any()
        for operations in scenario.timed:
            found = self.events.setdefault(operations.what, [])
            found += [
                self._apply(operations.rows[at : at + 1]) for at in range(len(operations.rows))
            ]
        assert not (self._apply(scenario.after)["kind"] == EventKind.REJECTED).any()
        assert open_orders(self.market) == 0

    def _apply(self, rows: Rows) -> Rows:
        data = stamped(rows, session=TRADER, first_ref=self._ref).tobytes()
        self._ref += len(rows)
        return np.frombuffer(self.market.apply(data, self.market.last_ts_ns), EVENT_DTYPE)


def kinds_of(events: Rows) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(Counter(events["kind"].tolist()).items()))


def open_orders(market: Market) -> int:
    return sum(each.open_orders + each.pending_stops for each in market.instruments())


@pytest.fixture(scope="module", params=["python", "rust"])
def played(request: pytest.FixtureRequest) -> Played:
    return Played(request.param)


def test_an_open_id_is_refused(played: Played) -> None:
    events = played.one("an id that is open")
    assert events["reason"].tolist() == [Reason.DUPLICATE_ORDER_ID]


@pytest.mark.parametrize("which", ["the oldest", "one in the middle", "the newest", "the worst"])
def test_cancels_find_their_order(played: Played, which: str) -> None:
    assert kinds_of(played.one(f"cancel {which}")) == ((EventKind.CANCELED, 1),)


@pytest.mark.parametrize("where", ["a worse price than 1,000", "a new price between 1,000"])
def test_new_prices_rest(played: Played, where: str) -> None:
    assert kinds_of(played.one(where)) == ((EventKind.ACCEPTED, 1),)


@pytest.mark.parametrize("where", ["orders at one price", "orders at 50 prices"])
def test_a_sweep_fills_every_maker(played: Played, where: str) -> None:
    events = played.one(f"one IOC fills 50 {where}")
    assert kinds_of(events) == ((EventKind.ACCEPTED, 1), (EventKind.FILL, 50))
    prices = np.unique(events["price_ticks"][events["kind"] == EventKind.FILL])
    assert len(prices) == (1 if where == "orders at one price" else 50)


@pytest.mark.parametrize("how", ["each triggers the next", "one trade triggers all"])
def test_a_cascade_triggers_every_stop_and_each_trades(played: Played, how: str) -> None:
    events = played.one(f"100 stops, {how}")
    assert kinds_of(events) == (
        (EventKind.ACCEPTED, 1),
        (EventKind.FILL, 101),
        (EventKind.TRIGGERED, 100),
    )
    triggered = np.flatnonzero(events["kind"] == EventKind.TRIGGERED)
    fills_before = np.searchsorted(np.flatnonzero(events["kind"] == EventKind.FILL), triggered)
    assert fills_before.tolist() == list(range(1, 101))


def test_a_mass_cancel_takes_all_of_its_account(played: Played) -> None:
    events = played.one("mass cancel 163 of 663")
    assert kinds_of(events) == ((EventKind.CANCELED, 163), (EventKind.MASS_CANCELED, 1))
    assert events["leaves_lots"][-1] == 0
