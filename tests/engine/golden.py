"""Golden journals: what a release wrote and what it made of it, kept as text, for ever.

A directory of them holds the segments as hex (`*.journal.hex`: a line for each 64 bytes that are
not all zero, with its offset; the last line is the size), `events.txt` (every event, in order) and
`state.txt` (what the market was at the end), from rules 2 on `detail.txt` with all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from engine.market import Market, create_market
from engine.replay import Frame, JournalReader
from engine.segment import segment_paths
from engine.snapshot import decode_state
from engine.wire import EVENT_DTYPE, decode_resting_orders

GOLDEN = Path(__file__).parent / "golden"
ROW_BYTES = 64
SHARD = 1
HEX = ".hex"


class Replayed(NamedTuple):
    frames: list[Frame]
    events: list[bytes]  # of each frame
    market: Market


def unpack(golden: Path, directory: Path) -> None:
    """Writes the segments of a golden journal as they were."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(golden.glob(f"*{HEX}")):
        *rows, (_, size) = (line.split() for line in source.read_text().splitlines())
        data = bytearray(int(size))
        for offset, row in rows:
            at = int(offset, 16)
            data[at : at + ROW_BYTES] = bytes.fromhex(row)
        (directory / source.name.removesuffix(HEX)).write_bytes(data)


def pack(directory: Path, golden: Path) -> None:
    """Keeps the segments of a journal as a golden one."""
    for path in segment_paths(directory):
        data = path.read_bytes()
        rows = [
            f"{at:08x} {data[at : at + ROW_BYTES].hex()}\n"
            for at in range(0, len(data), ROW_BYTES)
            if any(data[at : at + ROW_BYTES])
        ]
        (golden / f"{path.name}{HEX}").write_text("".join(rows) + f"size {len(data)}\n")


def replayed(directory: Path, market: Market) -> Replayed:
    """Everything in a journal, applied to an empty market."""
    reader = JournalReader(directory, shard=SHARD)
    found = Replayed([], [], market)
    while isinstance(frame := reader.read(), Frame):
        found.frames.append(frame)
        found.events.append(market.apply(frame.commands, frame.ts_ns, rules=frame.rules))
    reader.close()
    return found


def event_lines(events: bytes) -> Iterator[str]:
    """All that is not zero. Numbers, not names: a name may change, what was written may not."""
    names = [name for name in EVENT_DTYPE.names or () if name not in ("seq", "sub")]
    for row in np.frombuffer(events, EVENT_DTYPE):
        fields = " ".join(f"{name}={row[name]}" for name in names if row[name])
        yield f"{row['seq']}.{row['sub']} {fields}"


def state_lines(market: Market) -> Iterator[str]:
    """What every release knows of."""
    yield f"last_seq={market.last_seq} last_ts_ns={market.last_ts_ns}"
    for one in market.sessions():
        yield f"session {one.session} {one.name} role={one.role:d} last_ref={one.last_ref}"
    for each in market.instruments():
        yield (
            f"instrument {each.instrument} {each.name} mode={each.mode:d} epoch={each.epoch} "
            f"price_ticks_max={each.price_ticks_max} qty_lots_max={each.qty_lots_max}"
        )
        for order in decode_resting_orders(market.orders(each.instrument)):
            yield (
                f"  order {order.order_id} account={order.account} side={order.side} "
                f"price_ticks={order.price_ticks} leaves_lots={order.leaves_lots} "
                f"qty_lots={order.qty_lots}"
            )


def detail_lines(market: Market) -> Iterator[str]:
    """All of the state that is not zero, as of rules 2."""
    state = decode_state(market.snapshot())
    for kind in ("sessions", "accounts", "instruments"):
        for one in getattr(state, kind):
            yield f"{kind} {_not_zero(one)}"
    for name, sides in (("resting", state.books), ("stop", state.stops)):
        for instrument, orders in zip(state.instruments, sides, strict=True):
            for order in orders:
                yield f"{name} {instrument.instrument} {_not_zero(order)}"


def _not_zero(one: msgspec.Struct) -> str:
    values = {name: getattr(one, name) for name in one.__struct_fields__}
    told = {name: each if isinstance(each, str) else int(each) for name, each in values.items()}
    return " ".join(f"{name}={each}" for name, each in told.items() if each)


def write(golden: Path, directory: Path) -> None:
    """Makes a golden journal out of one: once for each release that changes the rules."""
    golden.mkdir(parents=True, exist_ok=True)
    pack(directory, golden)
    found = replayed(directory, create_market("python"))
    lines = [line for events in found.events for line in event_lines(events)]
    (golden / "events.txt").write_text("\n".join(lines) + "\n")
    (golden / "state.txt").write_text("\n".join(state_lines(found.market)) + "\n")
    (golden / "detail.txt").write_text("\n".join(detail_lines(found.market)) + "\n")
