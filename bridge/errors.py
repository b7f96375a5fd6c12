"""What can go wrong while operating, named by what was being done.

A message names the thing and the next step. Business outcomes (a rejected order, a gate that says
no) are data, not exceptions. `bridge/cli/exits.py` gives each of these its exit code.
"""

from __future__ import annotations


class BridgeError(Exception):
    """An operating fault; its text is for the operator, who reads nothing else."""


class ConfigError(BridgeError):
    """The configuration can't be used; the message names the file, the key and what is valid."""


class NotConfigured(BridgeError):
    """Something is needed that neither the configuration nor a running `railswitch up` gives."""


class AlreadyRunning(BridgeError):
    """Another process holds this data directory, or this part of it."""


class NotRunning(BridgeError):
    """Nothing runs here that could be told to do it."""


class PortInUse(BridgeError):
    """Another program listens where we were told to."""


class StartFailed(BridgeError):
    """A child process or an embedded server did not get ready."""


class PlaneEnded(BridgeError):
    """The proxy's data plane can't be started, or has ended by itself."""


class SpoolUnusable(BridgeError):
    """The directory for captures on the disk can't be used."""


class FlowUnreadable(BridgeError):
    """A recorded order flow can't be read; the message names the file and the line."""


class DatabaseNotRead(BridgeError):
    """The monolith's schema or rows can't be read; the message names what is missing."""


class ControlUnreachable(BridgeError):
    """The control API does not answer."""


class ControlRefused(BridgeError):
    """The control API answered, and said no."""


class StoreUnreachable(BridgeError):
    """The control store does not answer, or has not been migrated."""


class RedisUnreachable(BridgeError):
    """Redis does not answer; whatever was to be told through it was not."""


class UnknownInstrument(BridgeError):
    """The control store has no such instrument; the message names those that it has."""


class FlipRunning(BridgeError):
    """The instrument is in the middle of a flip or rollback; the message says whose."""


class StageConflict(BridgeError):
    """Someone else has changed the stage or decided the flip in the meantime; nothing was done."""


class StepFailed(BridgeError):
    """A step of a flip or rollback could not be taken; `reasons` has the next steps."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class EngineRefused(BridgeError):
    """The engine refused what an operator asked for; the message says why."""


class WriteBackStopped(BridgeError):
    """Engine events can't be written to the legacy database; nothing of the batch was."""


class FenceNotInstalled(BridgeError):
    """The legacy database has no fence, or our role may not use it."""


class FenceBusy(BridgeError):
    """A lock in the legacy database was not to be had in time; the message says who holds it."""


class FenceUnknown(BridgeError):
    """The legacy database fell silent while the fence was moved: read it before going on."""


class StaleEpoch(BridgeError):
    """A newer flip has moved the fence. Whoever gets this must give up."""


class StageUnknown(BridgeError):
    """A proxy worker has found no stage of any instrument, and does not guess who answers."""


class LegacyLookupFailed(BridgeError):
    """The legacy database did not say in time what a live or held order needs from it."""


class FundsFailed(BridgeError):
    """A statement on the monolith's accounts did not do what it must; says which."""


class LegacyNotReached(BridgeError):
    """The monolith could not be connected to; nothing was sent."""


class LegacyOutcomeUnknown(BridgeError):
    """The monolith was sent a request and gave no whole answer; it may have carried it out."""


class NotNow(BridgeError):
    """A rule forbids it now, and nothing was done; `reasons` has the next steps."""

    def __init__(self, message: str, *reasons: str) -> None:
        super().__init__(message)
        self.reasons = reasons


class DemoFailed(BridgeError):
    """The demo's story can't go on; says at what."""
