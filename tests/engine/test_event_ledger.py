"""The events say everything: kept by them alone, books are what the market's are, and nothing in
them breaks a promise (priority, limits, no self-trade, all or nothing, quantities that add up).
"""

from __future__ import annotations

import numpy as np
import pytest
from command_flow import BOUNDS, Flow, Mix
from ledger import Ledger
from market_driver import market_or_skip

from engine.core_market import RustMarket
from engine.market import Market, PythonMarket
from engine.types import Command, CommandKind, Event, EventKind
from engine.wire import (
    COMMAND_BYTES,
    DISPLAYED_ORDER_DTYPE,
    decode_commands,
    decode_events,
    decode_order_states,
    decode_resting_orders,
)

MIXES = (
    Mix(seed=101, mass=1),
    Mix(seed=102, stops=40, takers=20, width_ticks=4, admin=3),
    Mix(seed=103, bounded=True, accounts=6, instruments=3),
    Mix(seed=104, admin=12, qty_max=60, accounts=3, broken=0),
    Mix(seed=105, huge=20, accounts=3, instruments=1),
)


def created(implementation: str, mix: Mix) -> Market:
    market = market_or_skip(implementation)
    if not mix.bounded:
        return market
    return (PythonMarket if implementation == "python" else RustMarket)(**BOUNDS)


def by_command(commands: bytes, events: bytes) -> list[tuple[Command | None, list[Event]]]:
    found: list[tuple[Command | None, list[Event]]] = []
    told = list(decode_events(events))
    at = 0
    for start in range(0, len(commands), COMMAND_BYTES):
        end = at + 1
        while end < len(told) and told[end].seq == told[at].seq:
            end += 1
        kind = commands[start]
        known = kind in set(CommandKind)
        command = next(decode_commands(commands[start : start + COMMAND_BYTES])) if known else None
        found.append((command, told[at:end]))
        at = end
    assert at == len(told)
    return found


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: f"seed {mix.seed}")
def test_the_events_alone_keep_the_books_that_the_market_has(implementation: str, mix: Mix) -> None:
    market, flow, ledger = created(implementation, mix), Flow(mix), Ledger()
    opening = flow.opening()
    for command, events in by_command(opening, market.apply(opening, flow.ts_ns)):
        ledger.add(command, events)
    kinds = set()
    for _ in range(50):
        commands, ts_ns, rules = flow.batch(market, 30)
        for command, events in by_command(commands, market.apply(commands, ts_ns, rules=rules)):
            ledger.add(command, events)
            kinds |= {event.kind for event in events}
        for state in market.instruments():
            number = state.instrument
            resting = list(decode_resting_orders(market.orders(number)))
            shown = np.frombuffer(market.displayed_orders(number, 10**6), DISPLAYED_ORDER_DTYPE)
            displayed = shown["displayed_lots"].tolist()
            assert ledger.book(number) == [
                (order.order_id, order.leaves_lots, lots)
                for order, lots in zip(resting, displayed, strict=True)
            ]
            assert ledger.stops(number) == [
                (order.order_id, order.leaves_lots)
                for order in decode_order_states(market.stops(number))
            ]
            assert ledger.last_ticks.get(number, 0) == state.last_price_ticks
    assert {EventKind.FILL, EventKind.TRIGGERED, EventKind.REPLACED} <= kinds
