"""The queues of held requests, as a property: order, bounds, and what is reported as drained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.proxy.desk import hold
from bridge.proxy.desk.hold import Holds, StoreSays, Way
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage, Stage, StageSnapshot

SYMBOLS = ("BTC-USD", "ETH-USD")
REQUESTS_MAX, BYTES_MAX, WAIT_S = 3, 8, 5.0


class Desk:
    """Decides as the proxy does, and holds every step against what must be true."""

    def __init__(self) -> None:
        self.now, self.version, self.arrivals = 0.0, 0, 0
        self.stages: dict[str, InstrumentStage] = {}
        self.symbols: dict[Exchange, frozenset[str]] = {}  # of those that are known
        self.arrived: dict[Exchange, tuple[int, float, str]] = {}  # number, time, symbol
        self.under_way: list[Exchange] = []
        self.waiting: dict[str, list[Exchange]] = {symbol: [] for symbol in SYMBOLS}
        self.late: list[str] = []
        self.told: dict[str, int] = {}
        self.holds = Holds(
            symbols_of=self.symbols.get, expired=self.late.append, drained_changed=self.note
        )
        self.apply(0, Stage.SHADOW, 0)
        self.apply(1, Stage.SHADOW, 0)

    def note(self) -> None:
        self.told = dict(self.holds.drained)

    def apply(self, which: int, stage: Stage, holding: int) -> None:
        self.version += 1
        symbol = SYMBOLS[which]
        self.stages[symbol] = InstrumentStage(
            symbol=symbol, instrument=which + 1, stage=stage, epoch=self.version, holding=holding
        )
        self.holds.apply(StageSnapshot(version=self.version, instruments=dict(self.stages)))

    def arrive(self, which: int, size: int, known: bool) -> None:
        exchange: Any = Exchange(None)
        exchange.body_size = size
        self.arrivals += 1
        self.now += 0.001
        self.arrived[exchange] = (self.arrivals, self.now, SYMBOLS[which])
        if known:
            self.symbols[exchange] = frozenset((SYMBOLS[which],))
        self.decide(exchange)

    def decide(self, exchange: Exchange) -> None:
        _, since, symbol = self.arrived[exchange]
        if self.holds.way_of(symbol) is Way.WAIT:
            self.wait(exchange, symbol, since)
        else:
            self.go(exchange, symbol)

    def wait(self, exchange: Exchange, symbol: str, since: float) -> None:
        full = len(self.waiting[symbol]) >= REQUESTS_MAX
        heavy = self.bytes() + exchange.body_size > BYTES_MAX
        old = self.now - since >= WAIT_S
        taken = self.holds.wait(symbol, exchange, self.resume, since=since, now=self.now)
        assert taken is not (full or heavy or old)
        if taken:
            self.waiting[symbol].append(exchange)

    def resume(self, exchange: Exchange, says: StoreSays | None) -> None:
        _, since, symbol = self.arrived[exchange]
        self.waiting[symbol].remove(exchange)
        if says is None:
            assert not self.stages[symbol].holding
        else:
            assert self.now - since >= WAIT_S
        self.go(exchange, symbol)

    def go(self, exchange: Exchange, symbol: str) -> None:
        number = self.arrived[exchange][0]
        assert all(number < self.arrived[other][0] for other in self.waiting[symbol])
        self.under_way.append(exchange)
        self.holds.enter(exchange)

    def answered(self, n: int, behind: bool) -> None:
        """`behind`: the engine knows of a change that we have not heard of: it waits again."""
        if self.under_way:
            exchange = self.under_way.pop(n % len(self.under_way))
            self.holds.leave(exchange)
            if behind:
                _, since, symbol = self.arrived[exchange]
                self.wait(exchange, symbol, since)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.holds.sweep(self.now)
        self.holds.sweep(self.now)
        assert len(set(self.late)) == len(self.late)
        while self.late:
            symbol = self.late.pop()
            self.holds.release_late(StoreSays(symbol, None), self.now)

    def bytes(self) -> int:
        return sum(one.body_size for waiting in self.waiting.values() for one in waiting)

    def check(self) -> None:
        assert self.holds.held() == sum(map(len, self.waiting.values()))
        assert self.holds.under_way == len(self.under_way)
        busy = {self.arrived[one][2] for one in self.under_way}
        unknown = any(one not in self.symbols for one in self.under_way)
        assert self.holds.drained == {
            symbol: stage.holding
            for symbol, stage in self.stages.items()
            if stage.holding and symbol not in busy and not unknown
        }
        assert self.told == self.holds.drained
        for waiting in self.waiting.values():
            assert all(self.now - self.arrived[one][1] < 2 * WAIT_S for one in waiting)


which = st.integers(0, len(SYMBOLS) - 1)
arrivals = st.tuples(
    st.just("arrive"), which, st.sampled_from([1, 2, 5]), st.sampled_from([True, True, True, False])
)
changes = st.tuples(
    st.just("apply"),
    which,
    st.sampled_from([Stage.SHADOW, Stage.LIVE]),
    st.sampled_from([0, 7, 8]),
)
answers = st.tuples(st.just("answered"), st.integers(0, 9), st.sampled_from([False, False, True]))
ticks = st.tuples(st.just("tick"), st.sampled_from([0.1, 2.0, WAIT_S]))
steps = st.one_of(arrivals, arrivals, arrivals, changes, answers, answers, ticks)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hold, "HOLD_REQUESTS_MAX", REQUESTS_MAX)
        patch.setattr(hold, "HOLD_BYTES_MAX", BYTES_MAX)
        patch.setattr(hold, "HOLD_S", WAIT_S)
        yield


@settings(max_examples=300)
@given(st.lists(steps, min_size=20, max_size=60))
def test_order_bounds_and_the_drained_report_hold_whatever_happens(
    story: list[tuple[Any, ...]],
) -> None:
    desk = Desk()
    for name, *arguments in story:
        getattr(desk, name)(*arguments)
        desk.check()


def test_who_waits_again_takes_the_old_place() -> None:
    desk = Desk()
    desk.apply(0, Stage.LIVE, 0)
    desk.arrive(0, 1, True)
    desk.arrive(0, 1, True)
    desk.answered(0, behind=True)
    desk.arrive(0, 1, True)  # waits behind the first
    desk.answered(0, behind=True)  # the second, which came before the third
    assert [desk.arrived[one][0] for one in desk.waiting["BTC-USD"]] == [1, 3, 2]
    desk.apply(0, Stage.LIVE, 0)
    assert [desk.arrived[one][0] for one in desk.under_way] == [1, 2, 3]


def test_nothing_has_drained_until_all_that_is_under_way_is_known() -> None:
    desk = Desk()
    desk.apply(0, Stage.SHADOW, 7)
    assert desk.told == {"BTC-USD": 7}
    desk.holds.is_counted = False
    assert desk.told == {}
    exchange = Exchange(None)
    desk.symbols[exchange] = frozenset(("BTC-USD",))
    desk.holds.enter(exchange)
    desk.holds.count_complete()
    assert desk.told == {}
    desk.holds.leave(exchange)
    assert desk.told == {"BTC-USD": 7}
