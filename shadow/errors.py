"""What can go wrong while the monolith is followed, named by what was being done.

A message names the thing and the next step. What a row or an order turns out to be is data
(`Unreadable`, verdicts), not an exception.
"""

from __future__ import annotations


class ShadowError(Exception):
    """Base of this package's errors; its text is for the operator."""


class NotExact(ShadowError):
    """A decimal that is no whole number of ticks or lots, or none that the engine can hold."""


class UndecodableChange(ShadowError):
    """Bytes of the change stream that are no message of pgoutput's protocol version 1."""


class LegacyUnavailable(ShadowError):
    """The monolith's database can't be reached or won't let us in. Trying again may help."""


class LegacyNotReady(ShadowError):
    """A setting, a privilege or an object that we need is missing from the monolith's database."""


class SlotMissing(LegacyNotReady):
    """The replication slot does not exist."""


class SlotBusy(ShadowError):
    """Another process reads the replication slot; it has only one reader at a time."""


class SlotNotCreated(ShadowError):
    """The slot could not be made in time: older write transactions must end first."""


class ChangesLost(ShadowError):
    """The slot can't give everything after the consumer's watermark any more: load again."""

    def __init__(self, message: str, *, slot_lsn: int) -> None:
        super().__init__(message)
        self.slot_lsn = slot_lsn  # the oldest position that the slot can still give; 0: none


class StoreUnavailable(ShadowError):
    """The control store can't be reached, or has not been migrated. Nothing of the call was
    written.
    """


class PositionMoved(ShadowError):
    """Another shadow process has written this group's watermark; this one must stop at once."""


class CapturesUnavailable(ShadowError):
    """Redis can't be read now. Captures wait there; trying again may help."""


class LoadFailed(ShadowError):
    """The monolith's open orders could not be put into the engine's book; the message says
    which.
    """


class AdapterFailed(ShadowError):
    """The adapter that the mapping names raised something, or gave what is of no use."""
