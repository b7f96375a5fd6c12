"""The reference market and the Rust core agree over long flows of commands, event for event and
hash for hash, and what the flows meet is counted and shown at the end of the test run.

`RAILSWITCH_TESTS=long` draws flows of more than a million commands together, otherwise of 80,000.
"""

from __future__ import annotations

import os

import pytest
from command_flow import BOUNDS, Flow, Mix
from flow_coverage import Coverage, report
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from market_driver import market_or_skip
from market_pair import Batch, MarketsDifferError, Pair, shortest

from engine.limits import U32_MAX
from engine.market import Market, create_market, state_hash
from engine.wire import COMMAND_BYTES

LONG = os.environ.get("RAILSWITCH_TESTS") == "long"
FLOWS, FLOW_COMMANDS = (260, (4_000, 4_000, 4_000, 4_000, 12_000)) if LONG else (40, (2_000,))
BATCH_COMMANDS = 50
COMPARED_EVERY = 10  # batches

# Chosen so that together they meet everything there is: see what the first test asserts.
MIXES = (
    Mix(seed=1, mass=1),
    Mix(seed=2, stops=40, takers=25, width_ticks=4),
    Mix(seed=3, bounded=True, cancels=3, takers=6, accounts=6, instruments=3),
    Mix(seed=4, plain=50, broken=15),
    Mix(seed=5, huge=15, accounts=3, instruments=1),
    Mix(seed=6, admin=20, mass=4, instruments=3, accounts=8),
    Mix(seed=7, start_s=U32_MAX - 40_000, stops=5, step_ms=2_000),
    Mix(seed=8, bounded=True, width_ticks=3, qty_max=5, ids=80),
)


def told(mix: Mix, commands: int, coverage: Coverage) -> None:
    """Tells both markets one flow, and compares all there is to compare."""
    pair = Pair(BOUNDS if mix.bounded else None)
    try:
        flow = Flow(mix)
        pair.apply(Batch(flow.opening(), flow.ts_ns))
        for number in range(commands // BATCH_COMMANDS):
            batch = Batch(*flow.batch(pair.rust, BATCH_COMMANDS))
            coverage.add(batch.commands, pair.apply(batch), batch.rules)
            if number % COMPARED_EVERY == COMPARED_EVERY - 1:
                pair.compare()
                coverage.hashes += 1
        pair.restored()
    except Exception as error:
        least = shortest(pair.told, pair.bounds)
        raise MarketsDifferError(f"{mix}: {error}\nshortest:\n{least}") from error


def test_flows_meet_everything_there_is_and_the_markets_agree() -> None:
    coverage = Coverage("chosen flows")
    report(coverage)
    for mix in MIXES:
        told(mix, 3_000, coverage)
    assert not coverage.missing()


_mixes = st.builds(
    Mix,
    seed=st.integers(0, 2**32 - 1),
    instruments=st.integers(1, 3),
    accounts=st.integers(1, 8),
    width_ticks=st.integers(1, 40),
    qty_max=st.integers(1, 60),
    ids=st.sampled_from([60, 400, 1_500, 6_000]),
    takers=st.integers(0, 40),
    stops=st.integers(0, 40),
    cancels=st.integers(0, 12),
    changes=st.integers(0, 12),
    mass=st.sampled_from([0, 0, 0, 1, 3]),
    admin=st.integers(0, 15),
    broken=st.integers(0, 12),
    plain=st.sampled_from([0, 0, 10, 100]),
    huge=st.sampled_from([0, 0, 0, 5, 30]),
    start_s=st.sampled_from([0, 86_390, 1_800_000_000, U32_MAX - 5, 2**64 // 10**9 - 50]),
    step_ms=st.sampled_from([0, 1, 100, 700, 60_000]),
    bounded=st.booleans(),
)


@pytest.mark.timeout(1_500 if LONG else 300)
def test_the_markets_agree_over_drawn_flows() -> None:
    coverage = Coverage("drawn flows" + (", long profile" if LONG else ""))
    report(coverage)

    # Not shrunk by drawing again: `shortest` leaves out commands, which tells more.
    @settings(
        max_examples=FLOWS,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mix=_mixes, commands=st.sampled_from(FLOW_COMMANDS))
    def agree(mix: Mix, commands: int) -> None:
        told(mix, commands, coverage)

    agree()
    assert sum(coverage.commands.values()) >= FLOWS * min(FLOW_COMMANDS)
    if LONG:
        assert not coverage.missing()


@pytest.fixture(scope="module")
def journal() -> list[Batch]:
    """A flow as it would be journalled: frames with their times."""
    market = create_market("python")
    flow = Flow(Mix(seed=11, instruments=3, admin=8))
    batches = [Batch(flow.opening(), flow.ts_ns)]
    market.apply(*batches[0][:2])
    for _ in range(60):
        batches.append(Batch(*flow.batch(market, BATCH_COMMANDS)))
        commands, ts_ns, rules = batches[-1]
        market.apply(commands, ts_ns, rules=rules)
    return batches


def replayed(market: Market, frames: list[Batch], size: int) -> bytes:
    """The events of the frames, applied in pieces of at most so many commands."""
    events = []
    for commands, ts_ns, rules in frames:
        for at in range(0, len(commands), size * COMMAND_BYTES):
            piece = commands[at : at + size * COMMAND_BYTES]
            # Command i of a batch happens i microseconds after it.
            events.append(market.apply(piece, ts_ns + 1_000 * (at // COMMAND_BYTES), rules=rules))
    return b"".join(events)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_the_same_journal_gives_the_same_events_however_it_is_split(
    journal: list[Batch], implementation: str, size: int
) -> None:
    whole = create_market("python")
    expected = b"".join(whole.apply(c, ts_ns, rules=rules) for c, ts_ns, rules in journal)
    market = market_or_skip(implementation)
    assert replayed(market, journal, size) == expected
    assert state_hash(market) == state_hash(whole)
