"""Stages change one step at a time, and what proxies are told survives its encoding."""

from __future__ import annotations

import itertools

import pytest

from bridge.stage import (
    InstrumentStage,
    Stage,
    StageSnapshot,
    WorkerReport,
    decode_report,
    decode_snapshot,
    encode,
    may_change,
)

ALLOWED = {
    ("off", "shadow"),
    ("shadow", "off"),
    ("shadow", "live"),
    ("live", "shadow"),
    ("live", "retired"),
}


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(Stage, Stage)))
def test_only_single_steps_are_allowed(current: Stage, wanted: Stage) -> None:
    assert may_change(current, wanted) == ((current, wanted) in ALLOWED)


def test_the_engine_answers_from_live_on() -> None:
    assert [stage for stage in Stage if stage.answered_by_engine] == ["live", "retired"]


def test_a_snapshot_survives_its_encoding() -> None:
    stage = InstrumentStage(symbol="BTC-USD", instrument=1, stage=Stage.SHADOW, epoch=3, holding=17)
    snapshot = StageSnapshot(version=9, instruments={"BTC-USD": stage})
    assert decode_snapshot(encode(snapshot)) == snapshot


def test_a_report_survives_its_encoding() -> None:
    report = WorkerReport(
        worker="w1",
        pid=12,
        version=9,
        drained={"BTC-USD": 17},
        held=2,
        captured=5,
        dropped={"full": 1},
        requests=6,
        at_s=1.5,
    )
    assert decode_report(encode(report)) == report
