"""Makes a snapshot out of a journal on the disk: `python -m engine.snapshotter DIRECTORY`.

It goes from the newest snapshot to the beginning of the journal's last segment, on a market of its
own, at a low priority, also while an engine writes to the journal. Everything before that
segment is durable, so that nothing gets into a snapshot that a crash could still take back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.errors import EngineError, JournalDamaged
from engine.frame import Link
from engine.held import Held
from engine.limits import SNAPSHOT_NICE
from engine.market import IMPLEMENTATIONS
from engine.replay import Frame, JournalReader, how_to_go_on
from engine.segment import segment_path, segment_paths
from engine.snapshot_file import (
    Snapshot,
    State,
    best_state,
    check_belongs,
    drop_old_snapshots,
    next_seq_of,
    write_snapshot,
)


class Taken(NamedTuple):
    path: Path
    commands: int  # replayed for it
    seconds: float


def take_snapshot(directory: Path, *, shard: int, implementation: str) -> Taken | None:
    """At the beginning of the last segment; None if there is one already, or no earlier segment.

    Raises JournalDamaged, SnapshotUnreadable, EngineImplementationUnavailable, or OSError.
    """
    began = time.monotonic()
    segments = segment_paths(directory)
    end = next_seq_of(segments[-1]) if segments else 1
    state = best_state(directory, shard=shard, implementation=implementation, until_seq=end - 1)
    if end <= state.link.next_seq:
        return None
    held = Held(state.outcomes)
    link = replay_to(directory, state, held, shard=shard, next_seq=end)
    snapshot = Snapshot(link, state.market.snapshot(), held.sessions())
    check_belongs(directory, snapshot, shard=shard)
    path = write_snapshot(directory, snapshot, shard=shard)
    drop_old_snapshots(directory, shard=shard)
    commands = end - state.link.next_seq
    return Taken(path, commands, time.monotonic() - began)


def replay_to(directory: Path, state: State, held: Held, *, shard: int, next_seq: int) -> Link:
    """Brings the market and `held` to the frame before `next_seq`; returns its link."""
    reader = JournalReader(directory, shard=shard, start=state.link)
    try:
        while reader.next_seq < next_seq:
            frame = reader.read()
            if not isinstance(frame, Frame):
                raise JournalDamaged(
                    f"{reader.path or segment_path(directory, reader.next_seq)}: sequence "
                    f"{reader.next_seq} is not there to be read: "
                    f"{frame.why if frame else 'it is missing'}. {how_to_go_on(directory, frame)}"
                )
            events = state.market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
            held.add(frame.commands, frame.first_seq, frame.ts_ns, events)
        return reader.link
    finally:
        reader.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="engine.snapshotter", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, required=True)
    parser.add_argument("--nice", type=int, default=SNAPSHOT_NICE)
    args = parser.parse_args()
    _step_back(args.nice)
    try:
        taken = take_snapshot(args.directory, shard=args.shard, implementation=args.implementation)
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    if taken is None:
        sys.stdout.write("there is a snapshot of everything before the last segment already\n")
    else:
        sys.stdout.write(
            f"{taken.path} holds {taken.commands} more commands; it took {taken.seconds:.1f} s\n"
        )
    return 0


def _step_back(nice: int) -> None:
    """Leaves the processor to whoever else wants it."""
    os.nice(nice)
    with suppress(AttributeError, OSError):  # not every system has it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(main())
