"""What the gateway itself has sequenced: cancels for sessions that went away, and the passing of
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from engine import limits
from engine.market import Market
from engine.outcomes import Outcome
from engine.reject import Reason
from engine.types import Command, CommandKind, EventKind, SessionOption
from engine.wire import EVENT_DTYPE, encode_command


class Shard(Protocol):
    @property
    def market(self) -> Market:
        """To be read in calls of `when_settled` only."""

    def own(
        self, command: bytes, answered: Callable[[Outcome], None], *, session: int = 0
    ) -> None: ...

    def when_settled(self, call: Callable[[], None]) -> None: ...


class Absences:
    """Cancel on disconnect, for sessions that asked for it when they logged in."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._options: dict[int, int] = {}  # as journalled, or on the way there
        # Of which orders are being canceled now, and what has to wait for that.
        self._canceling: dict[int, list[Callable[[], None]]] = {}

    def resume(self) -> None:
        """Takes the options from a market that was recovered."""
        for each in self._shard.market.sessions():
            self._options[each.session] = each.options

    def covers(self, session: int) -> bool:
        """Whether its orders are canceled when it goes."""
        return bool(self._options.get(session, 0) & SessionOption.CANCEL_ON_DISCONNECT)

    def sessions(self) -> list[int]:
        return [session for session in self._options if self.covers(session)]

    def entered(
        self, session: int, *, cancel_on_disconnect: bool, then: Callable[[], None]
    ) -> None:
        """A login of this session is sequenced. Calls `then` once what it asked for is durable, and
        what it left open before, if that was to be canceled, is gone.
        """
        options = int(cancel_on_disconnect) and SessionOption.CANCEL_ON_DISCONNECT
        if options == self._options.get(session, 0):
            self._after_cancels(session, then)
            return
        self._options[session] = options
        command = Command(kind=CommandKind.SESSION_OPTIONS, session=session, aux=options)

        def answered(outcome: Outcome) -> None:
            _own_event(outcome, EventKind.SESSION_OPTIONS)
            self._after_cancels(session, then)

        self._shard.own(encode_command(command), answered, session=session)

    def left(self, session: int) -> None:
        """Its connection is gone: cancels what it left open, if it asked for that."""
        if self.covers(session) and session not in self._canceling:
            self._canceling[session] = []
            self._cancel(session)

    def _cancel(self, session: int) -> None:
        command = Command(kind=CommandKind.DISCONNECTED, session=session)

        def answered(outcome: Outcome) -> None:
            if _own_event(outcome, EventKind.MASS_CANCELED):
                self._cancel(session)
                return
            for call in self._canceling.pop(session):
                call()

        self._shard.own(encode_command(command), answered, session=session)

    def _after_cancels(self, session: int, call: Callable[[], None]) -> None:
        waiting = self._canceling.get(session)
        if waiting is None:
            call()
        else:
            waiting.append(call)


class Expiry:
    """Has time pass in the journal whenever an order's time has come."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._is_asked = False  # a look, or a command, is on its way

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(limits.EXPIRY_LOOK_S)

    def look(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._shard.when_settled(self._settled)

    def _settled(self) -> None:
        market = self._shard.market
        due_ns = market.next_expiry_ns()
        if due_ns is None or due_ns > max(time.time_ns(), market.last_ts_ns):
            self._is_asked = False
        else:
            self._pass()

    def _pass(self) -> None:
        self._shard.own(encode_command(Command(kind=CommandKind.TIME)), self._passed)

    def _passed(self, outcome: Outcome) -> None:
        if _own_event(outcome, EventKind.TIME):
            self._pass()
        else:
            self._is_asked = False


def _own_event(outcome: Outcome, expected: EventKind) -> int:
    """How many orders are left for a command of the gateway's own. Raises ValueError where the
    market refused it, which then has failed.
    """
    last = np.frombuffer(outcome.events, EVENT_DTYPE)[-1]
    if last["kind"] != expected:
        raise ValueError(
            f"a command of the gateway's own was refused where {expected.name} had to follow: "
            f"{Reason(int(last['reason'])).name}"
        )
    return int(last["leaves_lots"]) if expected != EventKind.SESSION_OPTIONS else 0
