"""Exit codes: what a script may rely on.

`docs/reference/exit-codes.md` says the same; a test holds the two together.
"""

from __future__ import annotations

from enum import IntEnum

from bridge import errors as bridge_errors
from engine import errors as engine_errors
from shadow import errors as shadow_errors


class Exit(IntEnum):
    DONE = 0  # done, or the answer is yes: the gate passes, doctor found nothing that fails
    FAILED = 1  # tried and failed, or the answer is no; what was begun has been taken back
    USAGE = 2  # the command line or the configuration can't be used; nothing was done
    INCONCLUSIVE = 3  # the gate has too little to go on
    REFUSED = 4  # a rule forbids it now; nothing was done
    UNREACHABLE = 5  # something that is needed does not answer
    DEFECT = 70  # a bug in railswitch
    INTERRUPTED = 130  # Ctrl-C


_MEANING = {
    Exit.DONE: "done; the gate passes; doctor found nothing that fails",
    Exit.FAILED: "failed, or the answer is no; what was begun has been taken back",
    Exit.USAGE: "usage or configuration error; nothing was done",
    Exit.INCONCLUSIVE: "the gate has too little to go on",
    Exit.REFUSED: "refused by a rule; nothing was done",
    Exit.UNREACHABLE: "something that is needed does not answer",
    Exit.DEFECT: "a defect in railswitch",
    Exit.INTERRUPTED: "interrupted",
}

HELP = "exit codes:\n" + "\n".join(f"  {code.value:>3}  {_MEANING[code]}" for code in Exit)

# The first class that fits. What is not here, and not a BridgeError or EngineError, is a defect.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (KeyboardInterrupt, Exit.INTERRUPTED),
    (bridge_errors.ConfigError, Exit.USAGE),
    (bridge_errors.NotConfigured, Exit.USAGE),
    (bridge_errors.AlreadyRunning, Exit.REFUSED),
    (bridge_errors.ControlRefused, Exit.REFUSED),
    (bridge_errors.EngineRefused, Exit.REFUSED),
    (bridge_errors.ControlUnreachable, Exit.UNREACHABLE),
    (bridge_errors.NotRunning, Exit.UNREACHABLE),
    (bridge_errors.StoreUnreachable, Exit.UNREACHABLE),
    (bridge_errors.RedisUnreachable, Exit.UNREACHABLE),
    (bridge_errors.UnknownInstrument, Exit.USAGE),
    (bridge_errors.FlipRunning, Exit.REFUSED),
    (bridge_errors.StageConflict, Exit.REFUSED),
    (bridge_errors.BridgeError, Exit.FAILED),
    (engine_errors.EngineImplementationUnavailable, Exit.USAGE),
    (engine_errors.JournalInUse, Exit.REFUSED),
    (engine_errors.EngineUnavailable, Exit.UNREACHABLE),
    (engine_errors.MarketDataUnavailable, Exit.UNREACHABLE),
    (engine_errors.EngineError, Exit.FAILED),
    (shadow_errors.LegacyUnavailable, Exit.UNREACHABLE),
    (shadow_errors.StoreUnavailable, Exit.UNREACHABLE),
    (shadow_errors.CapturesUnavailable, Exit.UNREACHABLE),
    (shadow_errors.SlotBusy, Exit.REFUSED),
    (shadow_errors.ShadowError, Exit.FAILED),
    (OSError, Exit.FAILED),
)
# By name: importing the drivers would take longer than most verbs do.
_UNREACHABLE_DRIVERS = ("psycopg", "redis", "aiohttp")


def exit_code(error: BaseException) -> Exit:
    """Exit.DEFECT for what no operator can have caused."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    driver = type(error).__module__.partition(".")[0]
    return Exit.UNREACHABLE if driver in _UNREACHABLE_DRIVERS else Exit.DEFECT
