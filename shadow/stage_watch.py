"""What a stage row asks of the shadow. Pure."""

from __future__ import annotations

from enum import StrEnum

from shadow.instrument import Instrument
from shadow.store_rows import StageRow


class Step(StrEnum):
    NONE = "none"
    LOAD = "load"  # load the instrument and follow it
    RELOAD = "reload"  # a load was interrupted: the engine's book is in between
    ADOPT = "adopt"  # the epoch has moved, nothing else
    LEAVE = "leave"  # follow it no longer


def next_step(instrument: Instrument, row: StageRow) -> Step:
    """The way out of `live` is none of them: the marker in the change stream says where it is."""
    if row.stage == "off":
        involved = instrument.following or instrument.loading or instrument.load_reason
        return Step.LEAVE if involved else Step.NONE
    if row.stage != "shadow" or instrument.load_reason:
        return Step.NONE
    if instrument.run.number == 0:
        return Step.LOAD
    if instrument.epoch == row.epoch:
        return Step.RELOAD if instrument.loading else Step.NONE
    if row.stage_from == "live":
        return Step.NONE
    return Step.ADOPT if row.stage_from == "shadow" else Step.LOAD
