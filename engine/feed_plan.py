"""Where publishing begins, and what a reader must be told is missing. Pure."""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import MarketDataUnavailable
from engine.feed import NOTHING, FeedState


class Plan(NamedTuple):
    """Goes on after `state`; None: after the market's present state, which has to be looked at."""

    state: FeedState | None
    first_missing: int = 0  # trades from here up to the state are missing in this Redis; 0: none


def plan(
    stored: FeedState | None,
    held: FeedState | None,
    *,
    durable_seq: int,
    reach: int,
    unreadable_through: int = -1,
) -> Plan:
    """`stored` is what Redis holds, `held` what this process knows to have been published. At most
    `reach` commands are read again, and none up to `unreadable_through`.

    Raises MarketDataUnavailable where Redis is ahead of the journal.
    """
    if stored is not None and stored.seq > durable_seq:
        raise _foreign(f"up to sequence {stored.seq}, and the journal ends at {durable_seq}")
    oldest = stored or NOTHING
    for state in (oldest, held):
        if (
            state is not None
            and state.seq >= oldest.seq
            and state.seq > unreadable_through
            and durable_seq - state.seq <= reach
        ):
            return Plan(state, oldest.seq + 1 if state.seq > oldest.seq else 0)
    return Plan(None, oldest.seq + 1)


def check_journal(stored: FeedState, ts_ns: int) -> None:
    """The journal says that the command at `stored.seq` happened at `ts_ns`.

    Raises MarketDataUnavailable.
    """
    if stored.seq and ts_ns != stored.ts_ns:
        raise _foreign(f"up to sequence {stored.seq}, which happened at another time here")


def _foreign(what: str) -> MarketDataUnavailable:
    return MarketDataUnavailable(
        "foreign",
        f"Redis holds market data {what}: it is another journal's. Give this engine another Redis "
        f"or `engine.shard`, or delete the keys railswitch:market:SHARD:*; then it goes on by "
        f"itself",
    )
