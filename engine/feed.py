"""Market data from the shard's durable events and from views of its books: what is published, and
under which ids. Pure; `engine.feed_redis` publishes it, docs/reference/market-data.md is for those
who read it.

Every stream belongs to one instrument, and every id is `<epoch>-<sequence>`: the instrument's epoch
and the engine's sequence number, both of which only grow. What is published twice therefore carries
the id that it had before, and is refused by Redis or recognised by the reader. Each entry of trades
names the sequence number of the one before it, so that nothing can be missing unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.feed_status import InstrumentStatus, changed_status, status_fields
from engine.limits import COMMAND_STEP_NS, FEED_ENTRY_TRADES_MAX, FEED_STATES_KEPT
from engine.tail import TailFrame
from engine.types import EventFlag, EventKind, Side
from engine.wire import DEPTH_DTYPE, EVENT_DTYPE, decode_events

TRADE_BYTES = 40

# One trade: its identity is (seq, sub).
TRADE_DTYPE = np.dtype(
    [
        ("seq", "<u8"),
        ("time_ns", "<u8"),
        ("price_ticks", "<i8"),
        ("qty_lots", "<u8"),
        ("sub", "<u4"),
        ("taker_side", "u1"),
        ("flags", "u1"),  # EventFlag.LIVE or 0
        ("pad", "<u2"),  # a field, so that it is copied, and 0
    ]
)
assert TRADE_DTYPE.itemsize == TRADE_BYTES

_COPIED = ("seq", "price_ticks", "qty_lots", "sub")
_STATUS_KINDS = np.zeros(256, dtype=bool)
_STATUS_KINDS[
    [
        EventKind.INSTRUMENT,
        EventKind.MODE,
        EventKind.TRADING,
        EventKind.INSTRUMENT_LIMITS,
        EventKind.PRICE_BAND,
    ]
] = True


class FeedState(NamedTuple):
    """What is known after everything up to a sequence number: as far as has been published."""

    seq: int
    ts_ns: int  # of that command
    instruments: Mapping[int, InstrumentStatus]  # by number
    traded: Mapping[int, int]  # sequence number of the newest entry of trades, by instrument

    @property
    def position(self) -> str:
        """As it is kept in Redis. The time tells one journal from another."""
        return f"{self.seq} {self.ts_ns}"


NOTHING = FeedState(seq=0, ts_ns=0, instruments={}, traded={})


class Trades(NamedTuple):
    """Trades of one instrument at one epoch: all of each command that is in it."""

    instrument: int
    epoch: int
    prev_seq: int  # of the entry before this one; 0: there was none
    last_seq: int
    records: bytes  # TRADE_DTYPE


class Digest(NamedTuple):
    """What some frames bring."""

    state: FeedState  # after them
    trades: tuple[Trades, ...]
    statuses: tuple[InstrumentStatus, ...]  # each change, in their order


class View(NamedTuple):
    """The book of one instrument, as `Market.depth` and `Market.displayed_orders` show it."""

    instrument: int
    depth: bytes
    orders: bytes | None  # None: not published


class Views(NamedTuple):
    seq: int
    ts_ns: int
    views: tuple[View, ...]


class Shown(NamedTuple):
    """The newest state of one stream, to be published again only when it has changed."""

    seq: int
    digest: bytes


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a Redis stream."""

    key: str
    id: str
    kept: int  # about so many entries of the stream
    now_key: str  # of the hash that holds the newest state as well; "": none does
    fields: tuple[str | bytes, ...]  # names and values in turn


Hash = tuple[str | bytes, ...]  # its key, then fields and their new values in turn


class Keys:
    """The names in Redis of one shard's market data."""

    def __init__(self, shard: int) -> None:
        self.prefix = f"railswitch:market:{shard}:"
        self.position = f"{self.prefix}position"
        self.alive = f"{self.prefix}alive"
        self.instruments = f"{self.prefix}instruments"
        self.traded = f"{self.prefix}traded"

    def stream(self, symbol: str, kind: str) -> str:
        """Kinds: trades, top, depth, orders, status."""
        return f"{self.prefix}{symbol}:{kind}"

    def now(self, symbol: str, kind: str) -> str:
        """Kinds: top, depth, orders, status."""
        return f"{self.prefix}{symbol}:{kind}:now"


# --- from events


def changed_instruments(frames: Sequence[TailFrame]) -> list[int]:
    """Ascending numbers of those whose book may look different after the frames."""
    events = _joined(frames)
    numbers: NDArray[np.uint32] = events["instrument"][events["kind"] != EventKind.REJECTED]
    found: list[int] = np.unique(numbers).tolist()
    return found


def digest(frames: Sequence[TailFrame], state: FeedState) -> Digest:
    """The frames must follow `state`, and one another."""
    if not frames:
        return Digest(state, (), ())
    events = _joined(frames)
    kinds = np.ascontiguousarray(events["kind"])
    instruments = dict(state.instruments)
    statuses: list[InstrumentStatus] = []
    for event in decode_events(events.take(np.flatnonzero(_STATUS_KINDS[kinds])).tobytes()):
        status = changed_status(instruments.get(event.instrument), event)
        instruments[event.instrument] = status
        statuses.append(status)
    fills = events.take(np.flatnonzero(kinds == EventKind.FILL))
    trades = tuple(_trades(fills, _times(fills["seq"], frames), state, statuses))
    newest = frames[-1]
    after = FeedState(
        seq=newest.last_seq,
        ts_ns=newest.ts_ns + (newest.last_seq - newest.first_seq) * COMMAND_STEP_NS,
        instruments=instruments,
        traded={**state.traded, **{one.instrument: one.last_seq for one in trades}},
    )
    return Digest(after, trades, tuple(statuses))


def _joined(frames: Sequence[TailFrame]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(frame.events for frame in frames), EVENT_DTYPE)


def _times(seqs: NDArray[np.uint64], frames: Sequence[TailFrame]) -> NDArray[np.uint64]:
    firsts = np.array([frame.first_seq for frame in frames], np.uint64)
    starts = np.array([frame.ts_ns for frame in frames], np.uint64)
    at = np.searchsorted(firsts, seqs, side="right") - 1
    return starts[at] + (seqs - firsts[at]) * np.uint64(COMMAND_STEP_NS)


def _trades(
    fills: NDArray[np.void],
    times: NDArray[np.uint64],
    state: FeedState,
    statuses: Iterable[InstrumentStatus],
) -> Iterator[Trades]:
    """Ascending by instrument."""
    if not len(fills):
        return
    records = np.zeros(len(fills), TRADE_DTYPE)
    for name in _COPIED:
        records[name] = fills[name]
    records["time_ns"] = times
    records["taker_side"] = fills["side"]
    records["flags"] = fills["flags"] & EventFlag.LIVE
    order = np.argsort(fills["instrument"], kind="stable")
    records = records.take(order)
    seqs = np.ascontiguousarray(records["seq"])
    numbers, starts = np.unique(fills["instrument"].take(order), return_index=True)
    ends = [*starts[1:].tolist(), len(records)]
    for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
        prev_seq = state.traded.get(number, 0)
        for epoch, first, last in _by_epoch(seqs[start:end], number, state, statuses):
            for cut in _cuts(seqs[start + first : start + last]):
                chunk = records[start + first + cut.start : start + first + cut.stop]
                last_seq = int(chunk["seq"][-1])
                yield Trades(number, epoch, prev_seq, last_seq, chunk.tobytes())
                prev_seq = last_seq


def _by_epoch(
    seqs: NDArray[np.uint64],
    instrument: int,
    state: FeedState,
    statuses: Iterable[InstrumentStatus],
) -> Iterator[tuple[int, int, int]]:
    """(epoch, start, end) of the parts of one instrument's trades."""
    known = state.instruments.get(instrument)
    epoch = known.epoch if known else 0
    start = 0
    for status in statuses:
        if status.instrument == instrument and status.epoch != epoch:
            end = int(np.searchsorted(seqs, status.seq))
            if end > start:
                yield epoch, start, end
            epoch, start = status.epoch, end
    if start < len(seqs):
        yield epoch, start, len(seqs)


def _cuts(seqs: NDArray[np.uint64]) -> Iterator[slice]:
    """Bounded parts, except that the trades of one command stay together: they have one id."""
    start = 0
    while len(seqs) - start > FEED_ENTRY_TRADES_MAX:
        seq = seqs[start + FEED_ENTRY_TRADES_MAX]
        end = int(np.searchsorted(seqs, seq))
        if end == start:
            end = int(np.searchsorted(seqs, seq, side="right"))
        yield slice(start, end)
        start = end
    if start < len(seqs):
        yield slice(start, len(seqs))


# --- what is written


def state_hashes(
    statuses: Iterable[InstrumentStatus], traded: Mapping[int, int], keys: Keys
) -> tuple[Hash, ...]:
    """Brings Redis' copy of the state up to date with what has changed in it."""
    known: list[str | bytes] = [keys.instruments]
    for status in statuses:
        known += [str(status.instrument), msgspec.json.encode(status)]
    newest: list[str | bytes] = [keys.traded]
    for number, seq in traded.items():
        newest += [str(number), str(seq)]
    return tuple(tuple(one) for one in (known, newest) if len(one) > 1)


def trade_entries(digested: Digest, keys: Keys, *, kept: int) -> Iterator[Entry]:
    for one in digested.trades:
        yield Entry(
            key=keys.stream(digested.state.instruments[one.instrument].name, "trades"),
            id=f"{one.epoch}-{one.last_seq}",
            kept=kept,
            now_key="",
            fields=("prev", str(one.prev_seq), "trades", one.records),
        )


def status_entries(statuses: Iterable[InstrumentStatus], keys: Keys) -> Iterator[Entry]:
    for status in statuses:
        yield Entry(
            key=keys.stream(status.name, "status"),
            id=f"{status.epoch}-{status.seq}",
            kept=FEED_STATES_KEPT,
            now_key=keys.now(status.name, "status"),
            fields=status_fields(status),
        )


def gap_entries(
    state: FeedState, first_missing: int, keys: Keys, *, kept: int, is_complete: bool
) -> tuple[FeedState, tuple[Entry, ...]]:
    """For each instrument: trades from `first_missing` up to the state may be missing in this
    Redis. The state after that.

    `is_complete`: its `traded` is known, so that a reader who has seen so much has lost nothing.
    """
    entries = tuple(
        Entry(
            key=keys.stream(status.name, "trades"),
            id=f"{status.epoch}-{state.seq}",
            kept=kept,
            now_key="",
            fields=("prev", str(state.traded.get(number, 0)), "gap", str(first_missing)),
        )
        for number, status in state.instruments.items()
        if number in state.traded or not is_complete
    )
    numbers = state.traded if is_complete else state.instruments
    return state._replace(traded=dict.fromkeys(numbers, state.seq)), entries


def book_entries(
    view: View,
    at: Views,
    status: InstrumentStatus,
    shown: dict[str, Shown],
    keys: Keys,
) -> Iterator[Entry]:
    """Of what changed since it was shown last. Brings `shown` (by stream) up to date."""
    contents: dict[str, tuple[str | bytes, ...]] = {
        "top": _top(view.depth),
        "depth": ("levels", view.depth),
    }
    if view.orders is not None:
        contents["orders"] = ("orders", view.orders)
    for kind, fields in contents.items():
        key = keys.stream(status.name, kind)
        before = shown.get(key)
        found = _content_digest(fields)
        if before is not None and before.digest == found:
            continue
        shown[key] = Shown(at.seq, found)
        prev_seq = before.seq if before else 0
        yield Entry(
            key=key,
            id=f"{status.epoch}-{at.seq}",
            kept=FEED_STATES_KEPT,
            now_key=keys.now(status.name, kind),
            fields=("seq", str(at.seq), "time", str(at.ts_ns), "prev", str(prev_seq), *fields),
        )


def _top(depth: bytes) -> tuple[str, ...]:
    levels = np.frombuffer(depth, DEPTH_DTYPE)
    bids = int(np.searchsorted(levels["side"], Side.SELL))
    best_bid = levels[0].tolist() if bids else (0, 0, 0, 0)
    best_ask = levels[bids].tolist() if bids < len(levels) else (0, 0, 0, 0)
    fields: list[str] = []
    for side, (_, price_ticks, displayed_lots, orders) in (("bid", best_bid), ("ask", best_ask)):
        fields += [side, str(price_ticks)]
        fields += [f"{side}_lots", str(displayed_lots), f"{side}_orders", str(orders)]
    return tuple(fields)


def _content_digest(fields: tuple[str | bytes, ...]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for each in fields:
        found.update(each if isinstance(each, bytes) else each.encode() + b"\0")
    return found.digest()


# --- all of it together


class Batch(NamedTuple):
    """What is written in one step."""

    digest: Digest
    hashes: tuple[Hash, ...]
    entries: tuple[Entry, ...]


def batch(
    frames: Sequence[TailFrame],
    at: Views | None,
    state: FeedState,
    shown: dict[str, Shown],
    keys: Keys,
    *,
    kept: int,
) -> Batch:
    """The frames follow `state`; the views, if any, show the books after the last of them. Brings
    `shown` up to date.
    """
    digested = digest(frames, state)
    entries = [
        *status_entries(digested.statuses, keys),
        *trade_entries(digested, keys, kept=kept),
    ]
    for view in at.views if at else ():
        status = digested.state.instruments.get(view.instrument)
        if at is not None and status is not None:
            entries += book_entries(view, at, status, shown, keys)
    newest = {one.instrument: one.last_seq for one in digested.trades}
    changed = {one.instrument: one for one in digested.statuses}
    return Batch(digested, state_hashes(changed.values(), newest, keys), tuple(entries))
