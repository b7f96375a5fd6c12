"""Real journals of real orders, for tests of what is on the disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from market_driver import BTC, ETH, cancel, define, new, set_mode

from engine.frame import FRAME_HEADER_BYTES, Link
from engine.held import Held
from engine.journal import Journal
from engine.market import Market, create_market, state_hash
from engine.replay import Frame
from engine.sequencer import Sequencer
from engine.snapshot_file import Snapshot, restored_market
from engine.types import Command, Mode, Role
from engine.wire import COMMAND_DTYPE, encode_commands, session_command

SMALL = 16 * 1024
SHARD = 1
SESSIONS = {1: Role.ADMIN, 2: Role.TRADE, 3: Role.TRADE, 4: Role.SHADOW}
START_NS = 1_700_000_000 * 10**9


class Story:
    """Frames of orders of several sessions: the same ones for the same seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._refs = dict.fromkeys(SESSIONS, 0)
        self._next_id = 1
        self._is_begun = False

    def frame(self, count: int) -> bytes:
        """`count` commands at least; the first one opens the market."""
        commands = [] if self._is_begun else self._opening()
        self._is_begun = True
        while len(commands) < count:
            commands.append(self._order())
        return encode_commands(commands)

    def _opening(self) -> list[Command]:
        sessions = [
            session_command(session=number, name=f"session-{number}", role=role)
            for number, role in SESSIONS.items()
        ]
        admin = [define(BTC, "BTC-USD"), define(ETH, "ETH-USD"), set_mode(Mode.LIVE, 1)]
        admin.append(set_mode(Mode.SHADOW, 0, instrument=ETH))
        return sessions + [self._referenced(one, 1) for one in admin]

    def _order(self) -> Command:
        chance = self._random
        session = chance.choice((2, 2, 2, 3, 4))
        where = {"instrument": ETH, "epoch": 0} if session == 4 else {"instrument": BTC}
        if chance.random() < 0.2:
            return self._referenced(
                cancel(chance.randrange(1, self._next_id + 1), **where), session
            )
        self._next_id += 1
        price, qty = chance.randrange(90, 111), chance.randrange(1, 20)
        order = new(self._next_id, chance.choice((1, 2)), price, qty, **where)
        return self._referenced(order, session)

    def _referenced(self, command: Command, session: int) -> Command:
        self._refs[session] += 1
        fields = {name: getattr(command, name) for name in command.__struct_fields__}
        return Command(**fields | {"session": session, "ref": self._refs[session]})


class Opened(NamedTuple):
    journal: Journal
    market: Market
    sequencer: Sequencer[Any]
    frames: list[Frame]  # that were replayed
    snapshots: list[Snapshot]  # that was restored: one or none

    @property
    def hash(self) -> str:
        return state_hash(self.market)


def opened(directory: Path, implementation: str, *, size: int = SMALL) -> Opened:
    """Recovered as an engine does it."""
    frames: list[Frame] = []
    snapshots: list[Snapshot] = []
    held = [Held()]
    markets = [create_market(implementation)]
    sequencer = Sequencer[Any]()

    def restore(snapshot: Snapshot) -> None:
        markets.append(restored_market(implementation, snapshot))
        held.append(Held(snapshot.outcomes))
        snapshots.append(snapshot)

    def replay(frame: Frame) -> None:
        frames.append(frame)
        events = markets[-1].apply(frame.commands, frame.ts_ns, rules=frame.rules)
        held[-1].add(frame.commands, frame.first_seq, frame.ts_ns, events)

    journal = Journal.open(
        directory,
        shard=SHARD,
        replay=replay,
        restore=restore,
        segment_bytes_min=size,
        segment_bytes_max=size,
    )
    for session, expired_ref, kept in held[-1].sessions():
        sequencer.restored(session, expired_ref, kept)
    return Opened(journal, markets[-1], sequencer, frames, snapshots)


def append(journal: Journal, commands: bytes) -> None:
    first_seq = journal.link.next_seq
    ts_ns = max(journal.link.next_ts_ns, START_NS + first_seq * 10**6)
    journal.append(bytearray(FRAME_HEADER_BYTES) + commands, first_seq=first_seq, ts_ns=ts_ns)


def written(
    directory: Path,
    story: Story,
    *,
    frames: int,
    size: int = SMALL,
    length: Callable[[int], int] = lambda n: 1 + n % 40,
) -> Link:
    """Goes on with a story in a journal, without a market; returns where it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(
        directory,
        shard=SHARD,
        replay=lambda frame: None,
        segment_bytes_min=size,
        segment_bytes_max=size,
    )
    for n in range(frames):
        append(journal, story.frame(length(n)))
    journal.close()
    return journal.link


def rows(commands: bytes) -> np.ndarray:
    return np.frombuffer(commands, COMMAND_DTYPE)
