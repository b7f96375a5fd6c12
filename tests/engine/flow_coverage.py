"""Counts what a run of the market's tests met: kinds of commands, orders by type, time in force,
flags and self-trade prevention, kinds of events, reasons. Counted by whole batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from flow_orders import EVERY_ORDER

from engine.reject import Reason
from engine.types import (
    CommandKind,
    EventKind,
    OrderFlag,
    OrderType,
    SelfTradePrevention,
    TimeInForce,
)
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE

Order = tuple[int, int, int, int]  # type, time in force, flags, self-trade prevention

# Every order that the rules allow, and every reason that a market gives.
ORDERS: frozenset[Order] = frozenset(
    (*each, stp) for each in EVERY_ORDER for stp in SelfTradePrevention
)
GATEWAYS_REASONS = frozenset({Reason.NONE, Reason.OUTCOME_EXPIRED})
CANCEL_REASONS = (
    Reason.ACCOUNT_KILLED,  # of a stop that goes off
    *(reason for reason in Reason if reason >= Reason.UNFILLED),
)
_REPORTS: list[Coverage] = []


class Coverage:
    def __init__(self, name: str) -> None:
        self.name = name
        self.commands: Counter[int] = Counter()  # by kind
        self.accepted: Counter[int] = Counter()
        self.by_rules: Counter[int] = Counter()
        self.orders: Counter[Order] = Counter()  # accepted new ones
        self.events: Counter[int] = Counter()  # by kind
        self.reasons: Counter[int] = Counter()
        self.cancels: Counter[int] = Counter()  # by reason
        self.prevented: Counter[int] = Counter()  # by the taker's mode
        self.hashes = 0

    def add(self, commands: bytes, events: bytes, rules: int) -> None:
        sent = np.frombuffer(commands, COMMAND_DTYPE)
        told = np.frombuffer(events, EVENT_DTYPE)
        first = told[told["sub"] == 0]
        accepted = sent[first["kind"] != EventKind.REJECTED]
        self.by_rules[rules] += len(sent)
        _count(self.commands, sent["kind"])
        _count(self.accepted, accepted["kind"])
        _count(self.events, told["kind"])
        _count(self.reasons, told["reason"])
        _count(self.cancels, told["reason"][told["kind"] == EventKind.CANCELED])
        new = accepted[accepted["kind"] == CommandKind.NEW]
        packed = new["ord_type"].astype(np.uint32)
        for name in ("tif", "flags", "stp"):
            packed = packed << 8 | new[name]
        for value, times in zip(*np.unique(packed, return_counts=True), strict=True):
            ord_type, tif, flags, stp = int(value).to_bytes(4, "big")
            self.orders[ord_type, tif, flags, stp] += int(times)
        own = (told["reason"] == Reason.SELF_TRADE) | (told["kind"] == EventKind.PREVENTED)
        cause = (told["seq"][own] - first["seq"][0]).astype(np.int64) if own.any() else []
        _count(self.prevented, sent["stp"][cause])

    def missing(self) -> list[str]:
        """What should have occurred and has not."""
        kinds = [kind.name for kind in CommandKind if not self.accepted[kind]]
        events = [kind.name for kind in EventKind if not self.events[kind]]
        reasons = [r.name for r in Reason if not self.reasons[r] and r not in GATEWAYS_REASONS]
        cancels = [f"canceled {r.name}" for r in CANCEL_REASONS if not self.cancels[r]]
        orders = [str(each) for each in sorted(ORDERS) if not self.orders[each]]
        strange = [f"accepted {each}" for each in self.orders if each not in ORDERS]
        return kinds + events + reasons + cancels + orders + strange

    def table(self) -> Iterator[str]:
        total = sum(self.commands.values())
        yield (
            f"{self.name}: {total:,} commands ({self.by_rules[1]:,} of them under rules 1), "
            f"{sum(self.events.values()):,} events and {self.hashes:,} states agree"
        )
        modes = "".join(f"{each.name.lower():>14}" for each in SelfTradePrevention)
        yield f"  {'accepted orders':<34}{modes}"
        for ord_type, tif, flags in EVERY_ORDER:
            name = f"{OrderType(ord_type).name} {TimeInForce(tif).name} {_flag_names(flags)}"
            row = [self.orders[ord_type, tif, flags, stp] for stp in SelfTradePrevention]
            yield f"  {name.lower():<34}" + "".join(f"{times:>14,}" for times in row)
        own = "".join(f"{self.prevented[stp]:>14,}" for stp in SelfTradePrevention)
        yield f"  {'self-trades met and prevented':<34}{own}"
        yield "  commands, accepted of sent"
        yield from _columns(
            f"{kind.name.lower()} {self.accepted[kind]:,}/{self.commands[kind]:,}"
            for kind in CommandKind
        )
        yield "  events"
        yield from _columns(f"{kind.name.lower()} {self.events[kind]:,}" for kind in EventKind)
        yield "  reasons of cancels"
        yield from _columns(
            f"{Reason(reason).name.lower()} {times:,}"
            for reason, times in sorted(self.cancels.items())
        )
        yield "  reasons of all events"
        yield from _columns(
            f"{reason.name.lower()} {self.reasons[reason]:,}"
            for reason in Reason
            if reason not in GATEWAYS_REASONS
        )


def report(coverage: Coverage) -> None:
    """Its table is printed at the end of the test run (conftest)."""
    _REPORTS.append(coverage)


def reports() -> list[Coverage]:
    return list(_REPORTS)


def _count(counter: Counter[int], values: np.ndarray) -> None:
    for value, times in zip(*np.unique(values, return_counts=True), strict=True):
        counter[int(value)] += int(times)


def _flag_names(flags: int) -> str:
    return "+".join(str(each.name) for each in OrderFlag if each & flags)


def _columns(cells: Iterable[str], width: int = 34, each: int = 3) -> Iterator[str]:
    row = list(cells)
    for start in range(0, len(row), each):
        yield "    " + "".join(f"{cell:<{width}}" for cell in row[start : start + each]).rstrip()
