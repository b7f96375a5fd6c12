"""The parity report says what was compared, how much that was, and what it proves."""

from __future__ import annotations

import doctest
import json

import msgspec

from shadow import report
from shadow.store_rows import Parity, Root, RunRow
from shadow.verdict import (
    Counts,
    Difference,
    Evidence,
    Kind,
    LatencySummary,
    OperationVerdict,
    Verdict,
)


def parity(counts: Counts, **changed: object) -> Parity:
    evidence = Evidence(
        symbol="BTC-USD",
        stage="shadow",
        epoch=1,
        run=2,
        loaded_at_s=900.0,
        now_s=1000.0,
        counts=counts,
        legacy_latency=LatencySummary(count=10, p99_us=5000.0),
        engine_latency=LatencySummary(count=10, p99_us=500.0),
        taint="",
        book_equal=True,
        book_checked_at_s=995.0,
        lag_ms=3.0,
        updated_at_s=999.5,
    )
    whole = Parity(
        evidence=evidence,
        trouble="",
        runs=(RunRow(symbol="BTC-USD", run=2, epoch=1, loaded_lsn=5, orders=3, reason="resync"),),
        counts_by_run={2: counts},
        roots=(),
        kinds={},
        known={},
        book_differences=[],
    )
    return msgspec.structs.replace(whole, **changed)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(report).failed == 0


def test_a_clean_record_states_what_it_proves() -> None:
    (found,) = report.report([parity(Counts(seen=6000, matched=6000))])["instruments"]
    assert (found["parity"], found["coverage"], found["mismatch_bound"]) == (1.0, 1.0, 0.0005)
    assert "0.0005" in found["statement"]
    assert found["latency"]["faster_at_p99"] == 10.0
    assert found["in_shadow_s"] == 100.0


def test_parity_is_over_what_was_compared_and_coverage_over_what_was_seen() -> None:
    counts = Counts(
        seen=110, matched=80, known=10, pending=10, mismatched=5, uncomparable=3, gaps=2
    )
    (found,) = report.report([parity(counts)])["instruments"]
    assert found["closes"]
    assert found["parity"] == 90 / 95
    assert found["coverage"] == 95 / 100
    assert found["mismatch_bound"] is None
    assert found["statement"].startswith("5 mismatches in 100 operations, 95.0000%")


def test_nothing_seen_proves_nothing() -> None:
    (found,) = report.report([parity(Counts())])["instruments"]
    assert (found["parity"], found["coverage"], found["mismatch_bound"]) == (None, None, None)


def test_a_root_shows_both_sides_and_what_follows_from_it() -> None:
    verdict = OperationVerdict(
        symbol="BTC-USD",
        operation="place",
        order_id=9,
        verdict=Verdict.MISMATCH,
        differences=(Difference(kind=Kind.PRIORITY, what="another order"),),
        legacy={"fills": [1]},
        engine={"fills": [2]},
    )
    root = Root(run=2, verdict=verdict, at_s=1.0, dependants=7)
    counts = Counts(seen=8, mismatched=8)
    text = json.dumps(report.report([parity(counts, roots=(root,))]))
    (shown,) = json.loads(text)["instruments"][0]["roots"]
    assert (shown["legacy"], shown["engine"]) == ({"fills": [1]}, {"fills": [2]})
    assert (shown["order_id"], shown["dependants"]) == (9, 7)
    assert shown["differences"][0]["kind"] == "priority"
