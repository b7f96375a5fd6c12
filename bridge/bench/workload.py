"""Seeded workloads for the benchmarks, made whole beforehand: a pair, and a thousand instruments.

Each has three parts: what is on the books first, the flow itself, and the cancels of what is left.
The books are empty before and after, so that the whole can be sent again and again, byte for byte
but for the references. Commands of one instrument must stay in their order; nothing depends on the
order between instruments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.bench.workload_pair import (
    PRICE_TICKS_MAX,
    QTY_LOTS_MAX,
    Column,
    IntArray,
    PairFlow,
)
from engine.types import Command, CommandKind, Mode, OrderType, Role, TimeInForce
from engine.wire import COMMAND_DTYPE, encode_commands, instrument_command, session_command

Rows = npt.NDArray[Any]  # of COMMAND_DTYPE

EPOCH = 1
CONTROL, TRADER = 1, 2  # sessions, where a workload is applied without a gateway
_INSTRUMENT = len(Column)  # one more column, once the instruments' rows are merged


class Mix(NamedTuple):
    """What the flow turned out to be; shares are of its steady part."""

    commands: int
    gtc: float
    ioc: float
    fok: float
    cancel: float
    reduce: float
    replace: float
    trading: float  # commands that traded
    resting: int  # orders at the end
    levels: int  # different prices at the end, both sides of all books
    instruments: int
    accounts: int

    def __str__(self) -> str:
        shares = (f"{name} {100 * getattr(self, name):.1f} %" for name in self._fields[1:8])
        return (
            f"{', '.join(shares)}; {self.resting:,} orders on {self.levels:,} prices,"
            f" {self.instruments:,} instruments, {self.accounts:,} accounts"
        )


class Workload(NamedTuple):
    """Arrays are read-only and without references and sessions; `stamped` copies them."""

    name: str
    seed: int
    instruments: int
    before: Rows
    steady: Rows
    after: Rows
    mix: Mix

    def whole(self) -> Rows:
        return np.concatenate((self.before, self.steady, self.after))

    def split(self, sessions: int) -> list[Rows]:
        """One whole for each session, about equally long: every instrument is with one session, so
        that its commands arrive in their order.
        """
        counts = np.bincount(self.whole()["instrument"], minlength=self.instruments + 1)
        owner = np.zeros(self.instruments + 1, np.int64)
        loads = [0] * sessions
        for instrument in np.argsort(-counts[1:], kind="stable") + 1:
            lightest = loads.index(min(loads))
            owner[instrument] = lightest
            loads[lightest] += int(counts[instrument])
        whole = self.whole()
        of_session = owner[whole["instrument"]]
        return [whole[of_session == session] for session in range(sessions)]


@lru_cache(maxsize=2)
def single_pair(*, commands: int, seed: int, resting: int = 1_000) -> Workload:
    """One instrument, two accounts for each resting order."""
    accounts = 2 * resting
    flow = PairFlow(seed=seed, resting=resting, first_account=1, accounts=accounts)
    flow.make(commands)
    return _assembled("single pair", seed, [flow], accounts)


@lru_cache(maxsize=2)
def thousand_instruments(
    *,
    commands: int,
    seed: int,
    instruments: int = 1_000,
    resting: int = 50_000,
    accounts: int = 100_000,
) -> Workload:
    """Pareto weights: some instruments have most of it. Not more orders rest than there are
    commands in the flow.
    """
    resting = min(resting, commands)
    chance = random.Random(seed)
    weights = [chance.paretovariate(1.5) for _ in range(instruments)]
    shares = [weight / sum(weights) for weight in weights]
    until = [int(commands * sum(shares[:n]) + 0.5) for n in range(instruments)] + [commands]
    of_each = [end - start for start, end in pairwise(until)]
    flows = []
    for share, count in zip(shares, of_each, strict=True):
        trading = min(accounts, max(2, count // 5))
        flow = PairFlow(
            seed=chance.getrandbits(32),
            resting=int(resting * share + 0.5),
            first_account=1 + chance.randrange(accounts - trading + 1),
            accounts=trading,
        )
        flow.make(count)
        flows.append(flow)
    return _assembled(f"{instruments:,} instruments", seed, flows, accounts)


def stamped(rows: Rows, *, session: int, first_ref: int) -> Rows:
    """A copy as one session sends it."""
    made = rows.copy()
    made["session"] = session
    made["ref"] = np.arange(first_ref, first_ref + len(made), dtype=np.uint64)
    return made


def definitions(instruments: int) -> list[Command]:
    """What an admin session sends first: every instrument defined, and live."""
    return [
        command
        for number in range(1, instruments + 1)
        for command in (
            instrument_command(
                instrument=number,
                name=f"BENCH-{number}",
                price_ticks_max=PRICE_TICKS_MAX,
                qty_lots_max=QTY_LOTS_MAX,
            ),
            Command(kind=CommandKind.MODE, instrument=number, epoch=EPOCH, aux=int(Mode.LIVE)),
        )
    ]


def opening(commands: Sequence[Command]) -> bytes:
    """Two sessions, and `commands` as the first of them sends them: what a gateway would have
    journalled before the workload.
    """
    sessions = [
        session_command(session=CONTROL, name="control", role=Role.ADMIN),
        session_command(session=TRADER, name="bench", role=Role.TRADE),
    ]
    rows = np.frombuffer(encode_commands(commands), COMMAND_DTYPE)
    return encode_commands(sessions) + stamped(rows, session=CONTROL, first_ref=1).tobytes()


def _assembled(name: str, seed: int, flows: list[PairFlow], accounts: int) -> Workload:
    chance = np.random.default_rng(seed)
    first_ids = np.cumsum([0] + [flow.orders for flow in flows])[:-1]
    for flow, first in zip(flows, first_ids.tolist(), strict=True):
        for part in (flow.before, flow.steady, flow.after):
            part[:, Column.ORDER_ID] += first
    before = _merged([flow.before for flow in flows], chance)
    steady = _merged([flow.steady for flow in flows], chance)
    after = _merged([flow.after for flow in flows], chance)
    mix = _mix(steady, flows, accounts)
    ids = _ids_in_order_of_arrival(before, steady)
    return Workload(
        name=name,
        seed=seed,
        instruments=len(flows),
        before=_commands(before, ids),
        steady=_commands(steady, ids),
        after=_commands(after, ids),
        mix=mix,
    )


def _merged(parts: list[IntArray], chance: np.random.Generator) -> IntArray:
    """By drawing the next instrument with the chance of what it has left; with its number."""
    which = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    chance.shuffle(which)
    merged = np.empty((len(which), len(Column) + 1), np.int64)
    merged[np.argsort(which, kind="stable"), : len(Column)] = np.concatenate(parts)
    merged[:, _INSTRUMENT] = which + 1
    return merged


def _ids_in_order_of_arrival(before: IntArray, steady: IntArray) -> IntArray:
    """As an exchange gives them out; indexed by the ids that the flows used."""
    used = np.concatenate(
        [
            part[part[:, Column.KIND] == CommandKind.NEW, Column.ORDER_ID]
            for part in (before, steady)
        ]
    )
    ids = np.zeros(len(used), np.int64)
    ids[used] = np.arange(1, len(used) + 1)
    return ids


def _commands(part: IntArray, ids: IntArray) -> Rows:
    rows = np.zeros(len(part), COMMAND_DTYPE)
    is_new = part[:, Column.KIND] == CommandKind.NEW
    is_replace = part[:, Column.KIND] == CommandKind.REPLACE
    for column in Column:
        rows[column.name.lower()] = part[:, column]
    rows["instrument"] = part[:, _INSTRUMENT]
    rows["epoch"] = EPOCH
    rows["ord_type"][is_new] = OrderType.LIMIT
    rows["order_id"] = ids[part[:, Column.ORDER_ID]]
    rows["aux"][is_replace] = rows["order_id"][is_replace]
    rows.setflags(write=False)
    return rows


def _mix(steady: IntArray, flows: list[PairFlow], accounts: int) -> Mix:
    count = len(steady)
    kinds = np.bincount(steady[:, Column.KIND], minlength=32)
    is_new = steady[:, Column.KIND] == CommandKind.NEW
    tifs = np.bincount(steady[is_new, Column.TIF], minlength=8)

    def share(of: int) -> float:
        return round(int(of) / max(count, 1), 4)

    return Mix(
        commands=count,
        gtc=share(tifs[TimeInForce.GTC]),
        ioc=share(tifs[TimeInForce.IOC]),
        fok=share(tifs[TimeInForce.FOK]),
        cancel=share(kinds[CommandKind.CANCEL]),
        reduce=share(kinds[CommandKind.REDUCE]),
        replace=share(kinds[CommandKind.REPLACE]),
        trading=share(sum(flow.trading for flow in flows)),
        resting=sum(flow.resting for flow in flows),
        levels=sum(flow.levels for flow in flows),
        instruments=len(flows),
        accounts=accounts,
    )
