"""What a stage row asks of the shadow, in every situation that it may find itself in."""

from __future__ import annotations

from typing import Any

import pytest
from harness import BTC, SCALES

from shadow.instrument import Instrument
from shadow.stage_watch import Step, next_step
from shadow.store_rows import InstrumentRow, StageRow


@pytest.mark.parametrize(
    ("known", "stage", "epoch", "stage_from", "step"),
    [
        ({}, "off", 0, "", Step.NONE),
        ({}, "shadow", 1, "off", Step.LOAD),
        ({}, "shadow", 1, "", Step.LOAD),
        ({}, "live", 2, "shadow", Step.NONE),
        ({"run": 1, "epoch": 1, "following": True}, "shadow", 1, "off", Step.NONE),
        ({"run": 1, "epoch": 1, "following": True}, "shadow", 3, "shadow", Step.ADOPT),
        ({"run": 1, "epoch": 1, "following": True}, "shadow", 3, "off", Step.LOAD),
        ({"run": 1, "epoch": 1, "following": True}, "off", 2, "shadow", Step.LEAVE),
        ({"run": 1, "epoch": 1, "following": True}, "live", 2, "shadow", Step.NONE),
        ({"run": 1, "epoch": 1}, "off", 2, "shadow", Step.NONE),
        # Rolled back: the marker in the stream says from which transaction on.
        ({"run": 1, "epoch": 1}, "shadow", 3, "live", Step.NONE),
        ({"run": 2, "epoch": 3, "following": True}, "shadow", 3, "live", Step.NONE),
        # In the middle of a flip: fenced, and not yet live.
        ({"run": 1, "epoch": 1, "marker_flip_id": 5}, "shadow", 1, "off", Step.NONE),
        # Killed in the middle of a load.
        ({"run": 1, "epoch": 1, "loading": True}, "shadow", 1, "off", Step.RELOAD),
        ({"run": 1, "epoch": 1, "loading": True}, "shadow", 3, "off", Step.LOAD),
        ({"run": 0, "epoch": 0, "loading": True}, "shadow", 1, "off", Step.LOAD),
    ],
)
def test_next_step(
    known: dict[str, Any], stage: str, epoch: int, stage_from: str, step: Step
) -> None:
    instrument = Instrument(SCALES[BTC], InstrumentRow(symbol=BTC, **known))
    row = StageRow(
        symbol=BTC, instrument=1, stage=stage, epoch=epoch, holding=0, stage_from=stage_from
    )
    assert next_step(instrument, row) is step
