"""How long an engine takes to come back: a journal of so many commands, replayed by new processes.

The journal is written here, frame by frame as the engine writes it but without waiting for the
disk. What is measured is the engine's own recovery, with all that it does for clients who ask
again, up to where it would listen; starting Python is not in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bridge.bench.conditions import CpuMeter, conditions
from bridge.bench.told import tell
from bridge.bench.workload import (
    TRADER,
    Workload,
    definitions,
    opening,
    stamped,
    thousand_instruments,
)
from engine.errors import JournalDamaged
from engine.frame import FRAME_HEADER_BYTES, START, seal_frame, segment_header
from engine.journal_verify import verify
from engine.limits import COMMAND_STEP_NS, SEGMENT_BYTES_MAX
from engine.market import create_market, state_hash
from engine.segment import segment_path, segment_paths, sync_directory, write_all
from engine.snapshotter import take_snapshot
from engine.wire import COMMAND_BYTES

SHARD = 1
CYCLE = 2**20  # commands of the flow, then it begins again
FRAME_COMMANDS = 512  # of a busy engine: about what falls due while the last frame is synced
PAUSE_NS = 10**6  # of sequencer time, from one frame's end to the next
SEGMENTS_MIN = 4  # of a small journal, so that a snapshot has something before and behind it
_TELL_S = 2.0


def run(
    *, recovery_commands: int, implementation: str, directory: Path, rounds: int, seed: int = 1
) -> dict[str, Any]:
    """`directory` decides which disk the journal is on; what is written there is removed."""
    tell("recovery: making the commands")
    cycle = min(CYCLE, recovery_commands // 4)
    workload = thousand_instruments(commands=cycle, seed=seed)
    directory.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="bench-recovery-", dir=directory))
    told = conditions(place)
    try:
        tell(f"recovery: writing a journal of {recovery_commands:,} commands")
        made_hash = _write_journal(place, workload, recovery_commands, implementation)
        meter = CpuMeter()
        found = _measure(place, implementation, rounds)
        told |= meter.read()
        size = sum(path.stat().st_size for path in segment_paths(place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    hashes = {found[name].pop("state_hash") for name in ("replay", "replay_cold", "snapshot")}
    return {
        "name": "recovery",
        "implementation": implementation,
        "conditions": told,
        "commands": recovery_commands,
        "commands_per_frame": FRAME_COMMANDS,
        "journal_bytes": size,
        "seed": seed,
        "workload": workload.name,
        "mix": workload.mix._asdict(),
        "rounds": rounds,
        **found,
        "state_hash": made_hash,
        "same_state_hash": hashes == {made_hash},
    }


def _measure(place: Path, implementation: str, rounds: int) -> dict[str, Any]:
    def several(what: str, before: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        done = []
        for number in range(rounds):
            tell(f"recovery: {what}, {number + 1} of {rounds}")
            before()
            done.append(_in_new_process(what, place, implementation))
        return done

    found = {"verify": several("verify"), "replay": several("recover")}
    found["replay_cold"] = several("recover", lambda: _out_of_memory(place))
    tell("recovery: making a snapshot")
    made = _in_new_process("snapshot", place, implementation)
    found["snapshot"] = several("recover")
    medians = {name: _median(rounds) for name, rounds in found.items()}
    del medians["snapshot"]["commands_per_s"]  # most of the commands are not applied again
    medians["snapshot"]["tail_commands"] = medians["replay"]["commands"] - made["commands"]
    return medians | {"snapshot_made": made}


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """All rounds did the same, in different times."""
    rates = sorted(one["commands_per_s"] for one in rounds)
    return rounds[0] | {
        "seconds": round(statistics.median(one["seconds"] for one in rounds), 3),
        "commands_per_s": {
            "median": round(statistics.median(rates)),
            "lowest": rates[0],
            "highest": rates[-1],
        },
    }


# --- the journal


def _write_journal(place: Path, workload: Workload, count: int, implementation: str) -> str:
    """Returns the hash of the state that its commands make."""
    market = create_market(implementation)
    link, offset, fd = START, 0, -1
    room = min(SEGMENT_BYTES_MAX, count * COMMAND_BYTES // SEGMENTS_MIN)
    told_s = time.monotonic()
    for commands in _frames(workload, count):
        frame = bytearray(FRAME_HEADER_BYTES) + commands
        if fd < 0 or offset + len(frame) > room:
            if fd >= 0:
                _finish(fd)
            header = segment_header(shard=SHARD, after=link)
            fd = os.open(segment_path(place, link.next_seq), os.O_RDWR | os.O_CREAT, 0o600)
            write_all(fd, header, 0)
            offset = len(header)
        ts_ns = link.next_ts_ns + PAUSE_NS
        link = seal_frame(
            frame, first_seq=link.next_seq, ts_ns=ts_ns, after=link, step_ns=COMMAND_STEP_NS
        )
        write_all(fd, frame, offset)
        offset += len(frame)
        market.apply(commands, ts_ns)
        if time.monotonic() > told_s + _TELL_S:
            told_s = time.monotonic()
            tell(f"  {link.next_seq - 1:,} of {count:,}")
    _finish(fd)
    sync_directory(place)
    return state_hash(market)


def _finish(fd: int) -> None:
    os.fsync(fd)
    os.close(fd)


def _frames(workload: Workload, count: int) -> Iterator[bytes]:
    """`count` commands altogether: what opens the market, then the flow, again and again."""
    first = opening(definitions(workload.instruments))
    yield first
    left, next_ref = count - len(first) // COMMAND_BYTES, 1
    whole = workload.whole()
    step = FRAME_COMMANDS * COMMAND_BYTES
    while left > 0:
        data = stamped(whole[:left], session=TRADER, first_ref=next_ref).tobytes()
        next_ref += len(whole)
        left -= len(whole)
        yield from (data[at : at + step] for at in range(0, len(data), step))


def _out_of_memory(place: Path) -> None:
    """The journal is read from the disk the next time."""
    for path in segment_paths(place):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


# --- in processes of their own


def _in_new_process(what: str, place: Path, implementation: str) -> dict[str, Any]:
    told = {"what": what, "directory": str(place), "implementation": implementation}
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import do_here; do_here()", json.dumps(told)],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise JournalDamaged(f"the bench's own journal: {what} failed; see its message above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def do_here() -> None:
    """Entry of such a process: JSON settings in the last argument, JSON on stdout."""
    told = json.loads(sys.argv[-1])
    do = {"verify": _verify, "recover": _recover, "snapshot": _snapshot}[told["what"]]
    print(json.dumps(do(Path(told["directory"]), told["implementation"])))


def _verify(place: Path, implementation: str) -> dict[str, Any]:
    """Checksums and chain only; nothing is applied."""
    began = time.perf_counter()
    found = verify(place)
    seconds = time.perf_counter() - began
    if not found.is_good:
        raise JournalDamaged(f"{found.place}: {found.damage or found.missing}")
    return _took(found.commands, seconds)


def _recover(place: Path, implementation: str) -> dict[str, Any]:
    from engine.shard import Shard

    async def recover() -> dict[str, Any]:
        shard: Shard[Any] = Shard(place, number=SHARD, implementation=implementation)
        try:
            began = time.perf_counter()
            await shard.recover(asyncio.Event())
            seconds = time.perf_counter() - began
            return _took(shard.market.last_seq, seconds) | {"state_hash": state_hash(shard.market)}
        finally:
            await shard.close()

    return asyncio.run(recover())


def _snapshot(place: Path, implementation: str) -> dict[str, Any]:
    taken = take_snapshot(place, shard=SHARD, implementation=implementation)
    if taken is None:
        raise JournalDamaged("the journal of the bench has a single segment: ask for more commands")
    return {
        "seconds": round(taken.seconds, 3),
        "commands": taken.commands,
        "bytes": taken.path.stat().st_size,
    }


def _took(commands: int, seconds: float) -> dict[str, Any]:
    return {
        "commands": commands,
        "seconds": round(seconds, 3),
        "commands_per_s": round(commands / seconds),
    }
