"""What can go wrong while the engine is operated. Outcomes of commands are not here: they are
events with a reason.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of this package's errors."""


class EngineImplementationUnavailable(EngineError):
    """What was asked for can't be had here; the message says what to do."""


class SnapshotUnreadable(EngineError):
    """Bytes given as a snapshot are not one. Nothing was restored."""


class UnknownInstrument(EngineError):
    """The market has no instrument under this number."""


class JournalInUse(EngineError):
    """Another process holds the journal directory."""


class JournalDamaged(EngineError):
    """The journal can't be continued without losing or inventing commands; nothing was changed."""


class JournalFailed(EngineError):
    """A write or sync of the journal failed. The engine stops; nothing undurable was shown."""


class MarketFailed(EngineError):
    """The market broke its own contract while applying a batch. The engine stops; nothing of the
    batch was shown.
    """

    @classmethod
    def on(cls, first_seq: int, error: BaseException | str) -> MarketFailed:
        """On the batch that begins at this sequence number."""
        why = error if isinstance(error, str) else repr(error)
        return cls(
            f"the market failed on the batch that begins at sequence {first_seq}: {why}. The "
            f"engine has stopped, and showed nothing of it. This is a defect: keep the journal "
            f"directory, it reproduces it"
        )


class ListenFailed(EngineError):
    """The engine can't listen where it was told to."""


class BadMessage(EngineError):
    """Bytes on a connection that are no message of the protocol."""


class EngineUnavailable(EngineError):
    """The engine could not be reached, and nothing was sent to it."""


class OutcomeUnknown(EngineError):
    """Commands were sent and not answered in time. Sent again under the same references they get
    their outcome.
    """


class LoginRefused(EngineError):
    """The engine does not let this name in with this key."""


class SessionTaken(EngineError):
    """Another connection has logged in under this name, so this client is no longer the session."""


class Disconnected(EngineError):
    """The engine closed the connection for a reason that trying again would only repeat."""


class QueryRefused(EngineError):
    """The engine answered a question with a reason why not."""


class MarketDataUnavailable(EngineError):
    """Market data could not be published, for now. Trading goes on, and what is durable will be
    published later.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason  # one or two words, for counting
