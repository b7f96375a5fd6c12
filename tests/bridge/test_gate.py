"""The gate: each thing that it looks at decides by itself, and nothing recorded never passes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bridge import gate
from bridge.config import GateConfig
from bridge.gate import Decision, Fail, Inconclusive, Pass, coverage, mismatch_bound
from bridge.stage import InstrumentStage, Stage
from shadow.verdict import (
    Counts,
    Difference,
    Evidence,
    Kind,
    LatencySummary,
    OperationVerdict,
    Verdict,
)
from shadow.writers import WriterCount

CONFIG = GateConfig()
STAGE = InstrumentStage(symbol="BTC-USD", instrument=1, stage=Stage.SHADOW, epoch=3)
GOOD_COUNTS = Counts(seen=30_050, matched=30_000, pending=50, fills=2_000)
GOOD = Evidence(
    symbol="BTC-USD",
    stage="shadow",
    epoch=3,
    run=1,
    loaded_at_s=1_000.0,
    now_s=10_000.0,
    counts=GOOD_COUNTS,
    legacy_latency=LatencySummary(count=30_000, p50_us=4000, p99_us=9000, max_us=20_000),
    engine_latency=LatencySummary(
        count=30_000, p50_us=300, p99_us=900, p999_us=2000, max_us=60_000
    ),
    taint="",
    book_equal=True,
    book_checked_at_s=9_995.0,
    lag_ms=12.0,
    updated_at_s=9_999.5,
)


def decide(stage: InstrumentStage, evidence: Evidence | None, config: GateConfig) -> Decision:
    return gate.decide(stage, evidence, config, funds="none")


def test_what_nobody_has_said_of_funds_fails_it() -> None:
    assert isinstance(gate.decide(STAGE, GOOD, CONFIG, funds="legacy"), Pass)
    decision = gate.decide(STAGE, GOOD, CONFIG, funds="")
    assert isinstance(decision, Fail)
    assert "nobody has said what orders lock" in decision.reasons[0]
    seen = "orders change rows of accounts (seen 12 times)"
    decision = gate.decide(STAGE, GOOD, CONFIG, funds="", accounts_seen=seen)
    (reason,) = decision.reasons
    assert reason.startswith(f'{seen}: say mapping.funds = "legacy" with the statements')


def with_counts(**changes: int) -> Evidence:
    return msgspec.structs.replace(GOOD, counts=msgspec.structs.replace(GOOD_COUNTS, **changes))


def with_latency(**changes: float) -> Evidence:
    latency: Any = msgspec.structs.replace(GOOD.engine_latency, **changes)
    return msgspec.structs.replace(GOOD, engine_latency=latency)


def test_a_pass_states_the_bound_that_it_proves() -> None:
    decision = decide(STAGE, GOOD, CONFIG)
    assert isinstance(decision, Pass)
    assert decision.compared == 30_000
    assert decision.bound == pytest.approx(0.0001)
    assert "0.0001" in decision.statement
    assert "95 %" in decision.statement
    assert decision.reasons == ()


def test_without_evidence_it_is_inconclusive() -> None:
    decision = decide(STAGE, None, CONFIG)
    assert isinstance(decision, Inconclusive)
    assert "railswitch shadow" in decision.reasons[0]


def test_a_shadow_that_never_loaded_is_no_evidence() -> None:
    assert isinstance(decide(STAGE, msgspec.structs.replace(GOOD, run=0), CONFIG), Inconclusive)


def test_nothing_compared_never_passes_even_when_nothing_is_wanted() -> None:
    lenient = GateConfig(operations_min=0, fills_min=0, shadow_s_min=0.0, coverage_min=0.0)
    empty = msgspec.structs.replace(GOOD, counts=Counts(), engine_latency=LatencySummary())
    assert isinstance(decide(STAGE, empty, lenient), Inconclusive)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (with_counts(mismatched=1, seen=30_051), "1 operations differ"),
        (with_counts(dark=1), "never passed a proxy"),
        (with_counts(seen=30_060), "don't close"),
        (with_counts(gaps=10, seen=30_060), "10 gaps"),
        (with_counts(uncomparable=10, seen=30_060), "10 uncomparable"),
        (msgspec.structs.replace(GOOD, book_equal=False), "books differed"),
        (with_latency(p99_us=10_001), "engine P99"),
        (with_latency(p999_us=50_001), "engine P99.9"),
    ],
)
def test_what_is_wrong_fails(evidence: Evidence, words: str) -> None:
    decision = decide(STAGE, evidence, CONFIG)
    assert isinstance(decision, Fail)
    assert words in " ".join(decision.reasons)


def test_dark_traffic_is_told_with_its_writers() -> None:
    rake = WriterCount(role="app", application="rake", count=30)
    evidence = msgspec.structs.replace(with_counts(dark=41), dark_writers=(rake,))
    (reason,) = decide(STAGE, evidence, CONFIG).reasons
    assert "(30 by role app, application 'rake'; 11 by writers not seen)" in reason
    assert "gate.dark_max" in reason


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (with_counts(matched=9_999, seen=10_049), "9999 operations compared, 10000 wanted"),
        (with_counts(fills=999), "999 fills compared, 1000 wanted"),
        (with_counts(pending=201, seen=30_201), "201 operations wait"),
        (msgspec.structs.replace(GOOD, loaded_at_s=6_401.0), "in shadow for 3599 s"),
        (msgspec.structs.replace(GOOD, updated_at_s=9_989.0), "last report is 11.0 s old"),
        (msgspec.structs.replace(GOOD, epoch=2), "epoch 2"),
        (msgspec.structs.replace(GOOD, taint="gap"), "can't be trusted: gap"),
        (msgspec.structs.replace(GOOD, book_equal=None), "never been compared"),
        (msgspec.structs.replace(GOOD, book_checked_at_s=9_939.0), "last compared 61 s ago"),
        (msgspec.structs.replace(GOOD, lag_ms=None), "lag is unknown"),
        (msgspec.structs.replace(GOOD, lag_ms=1_001.0), "1001 ms behind"),
        (with_latency(count=0), "engine P99: 0 samples"),
        (with_latency(count=50), "too few samples"),
    ],
)
def test_what_is_missing_leaves_it_inconclusive(evidence: Evidence, words: str) -> None:
    decision = decide(STAGE, evidence, CONFIG)
    assert isinstance(decision, Inconclusive)
    assert words in " ".join(decision.reasons)


@pytest.mark.parametrize("stage", [Stage.OFF, Stage.LIVE, Stage.RETIRED])
def test_only_an_instrument_in_shadow_passes(stage: Stage) -> None:
    decision = decide(msgspec.structs.replace(STAGE, stage=stage), GOOD, CONFIG)
    assert isinstance(decision, Fail)


def test_what_is_wrong_stands_before_what_is_missing() -> None:
    decision = decide(STAGE, with_counts(mismatched=1, seen=30_051, fills=1), CONFIG)
    assert isinstance(decision, Fail)
    assert "differ" in decision.reasons[0]
    assert "fills" in decision.reasons[-1]


def test_a_mismatch_names_the_first_operation_that_differs() -> None:
    root = OperationVerdict(
        symbol="BTC-USD",
        operation="place",
        order_id=77,
        verdict=Verdict.MISMATCH,
        differences=(Difference(kind=Kind.PRIORITY, what="met order 5 before order 4"),),
    )
    decision = decide(STAGE, msgspec.structs.replace(GOOD, mismatches=(root,)), CONFIG)
    assert isinstance(decision, Fail)
    assert "place of order 77: met order 5 before order 4" in decision.reasons[0]


def test_few_samples_are_judged_by_their_maximum() -> None:
    few = with_latency(count=400, max_us=40_000)
    assert isinstance(decide(STAGE, few, CONFIG), Pass)


def test_known_differences_count_as_agreeing() -> None:
    decision = decide(STAGE, with_counts(matched=29_990, known=10), CONFIG)
    assert isinstance(decision, Pass)
    assert decision.compared == 30_000


def test_every_check_is_told_whatever_the_decision() -> None:
    passed = decide(STAGE, GOOD, CONFIG)
    failed = decide(STAGE, with_counts(mismatched=1, seen=30_051), CONFIG)
    assert [check.name for check in passed.checks] == [check.name for check in failed.checks]
    assert all(check.seen and check.wanted for check in passed.checks)


def test_a_decision_survives_json() -> None:
    decision = decide(STAGE, GOOD, CONFIG)
    encoded = msgspec.json.encode(decision)
    assert msgspec.json.decode(encoded, type=Pass | Fail | Inconclusive) == decision


@pytest.mark.parametrize(("compared", "bound"), [(0, 1.0), (1, 1.0), (300, 0.01), (3000, 0.001)])
def test_the_bound_is_three_over_n(compared: int, bound: float) -> None:
    assert mismatch_bound(compared) == pytest.approx(bound)


def test_coverage_leaves_the_pending_out() -> None:
    assert coverage(GOOD) == 1.0
    assert coverage(with_counts(seen=50, matched=0)) is None
