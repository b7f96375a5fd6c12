"""The benchmarks' workloads: the same for the same seed, in the proportions that were promised, and
accepted whole by the book that is the specification.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bridge.bench.workload import (
    TRADER,
    Rows,
    Workload,
    definitions,
    opening,
    single_pair,
    stamped,
    thousand_instruments,
)
from engine.market import Market, create_market
from engine.types import CommandKind, EventKind
from engine.wire import COMMAND_BYTES, DEPTH_BYTES, EVENT_DTYPE

BATCH = 512


def a_pair(commands: int = 20_000, seed: int = 5) -> Workload:
    return single_pair(commands=commands, seed=seed)


def some_instruments(commands: int = 20_000, seed: int = 5) -> Workload:
    return thousand_instruments(
        commands=commands, seed=seed, instruments=60, resting=3_000, accounts=500
    )


BOTH = pytest.mark.parametrize("make", [a_pair, some_instruments])
Make = Callable[..., Workload]


def apply(market: Market, rows: Rows, first_ref: int) -> Rows:
    data = stamped(rows, session=TRADER, first_ref=first_ref).tobytes()
    step = BATCH * COMMAND_BYTES
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    events = b"".join(market.apply(chunk, market.last_ts_ns) for chunk in chunks)
    return np.frombuffer(events, EVENT_DTYPE)


def forget_what_was_made() -> None:
    single_pair.cache_clear()
    thousand_instruments.cache_clear()


@BOTH
def test_the_same_seed_makes_the_same_commands_and_another_makes_others(make: Make) -> None:
    first = make(commands=3_000)
    forget_what_was_made()
    again, other = make(commands=3_000), make(commands=3_000, seed=6)
    assert again is not first
    assert again.whole().tobytes() == first.whole().tobytes()
    assert again.mix == first.mix
    assert other.whole().tobytes() != first.whole().tobytes()


@BOTH
def test_the_mix_is_the_one_of_the_pattern(make: Make) -> None:
    mix = make().mix
    assert mix.commands == 20_000
    assert 0.08 < mix.gtc < 0.13
    assert 0.015 < mix.ioc < 0.035
    assert 0 < mix.fok < 0.005
    assert 0.05 < mix.cancel < 0.08
    assert 0.05 < mix.reduce < 0.08
    assert 0.70 < mix.replace < 0.83
    assert 0.02 < mix.trading < 0.06
    assert sum(mix[1:7]) == pytest.approx(1, abs=0.001)


def test_about_as_many_orders_rest_as_were_asked_for() -> None:
    for resting in (100, 1_000):
        mix = single_pair(commands=10_000, seed=3, resting=resting).mix
        assert resting * 0.85 < mix.resting < resting * 1.15
        assert mix.levels > resting / 10


@BOTH
@pytest.mark.parametrize("implementation", ["python", "rust"])
def test_every_command_is_taken_and_does_what_the_mix_says(make: Make, implementation: str) -> None:
    workload = make()
    market = create_market(implementation)
    market.apply(opening(definitions(workload.instruments)), 1)
    before = apply(market, workload.before, 1)
    steady = apply(market, workload.steady, 1 + len(workload.before))
    assert not (np.concatenate((before, steady))["kind"] == EventKind.REJECTED).any()
    takers = np.unique(steady["seq"][steady["kind"] == EventKind.FILL])
    assert len(takers) / len(workload.steady) == pytest.approx(workload.mix.trading, abs=1e-4)
    numbers = [each.instrument for each in market.instruments()]
    assert sum(each.open_orders for each in market.instruments()) == workload.mix.resting
    levels = sum(len(market.depth(one, 10**6)) // DEPTH_BYTES for one in numbers)
    assert levels == workload.mix.levels
    market.check()


@BOTH
def test_it_leaves_nothing_behind_and_can_be_sent_again(make: Make) -> None:
    workload = make(commands=4_000)
    market = create_market("python")
    market.apply(opening(definitions(workload.instruments)), 1)
    whole = workload.whole()
    rounds = [apply(market, whole, 1 + number * len(whole)) for number in range(2)]
    for events in rounds:
        assert not (events["kind"] == EventKind.REJECTED).any()
    assert rounds[0]["kind"].tobytes() == rounds[1]["kind"].tobytes()
    assert sum(each.open_orders for each in market.instruments()) == 0


def test_some_instruments_have_most_of_it() -> None:
    steady = thousand_instruments(commands=50_000, seed=2).steady
    counts = np.sort(np.bincount(steady["instrument"])[1:])
    assert len(counts) == 1_000
    assert counts[-100:].sum() > 0.3 * len(steady)
    assert counts[-1] > 10 * np.median(counts)


def test_sessions_share_it_with_every_instrument_in_order_on_one_of_them() -> None:
    workload = some_instruments()
    whole = workload.whole()
    parts = workload.split(4)
    owners = [set(part["instrument"].tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners)) == workload.instruments
    for part, owned in zip(parts, owners, strict=True):
        theirs = whole[np.isin(whole["instrument"], list(owned))]
        assert part.tobytes() == theirs.tobytes()
        assert len(part) == pytest.approx(len(whole) / 4, rel=0.1)


def test_ids_are_given_out_in_the_order_of_arrival() -> None:
    whole = some_instruments().whole()
    new = whole["order_id"][whole["kind"] == CommandKind.NEW]
    assert new.tolist() == list(range(1, len(new) + 1))


def test_what_is_shared_can_not_be_written_to() -> None:
    workload = a_pair(commands=100)
    with pytest.raises(ValueError, match="read-only"):
        workload.steady["ref"] += 1
    copy = stamped(workload.steady, session=TRADER, first_ref=7)
    assert copy["ref"].tolist() == list(range(7, 107))
    assert set(copy["session"].tolist()) == {TRADER}
