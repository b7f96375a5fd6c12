"""The reference market: what every command does, in plain Python. It is the specification of the
Rust core, and written to be read:

    market       batches in, events out: time, sequence numbers, flags
    refusals     what speaks against a command (with `engine.rules`, which needs no state)
    performing   what each command does
    matching     what an order does when it enters: fills, self-trade prevention, stops that go off
    book         price-time priority; icebergs
    stops        stops that wait
    accounts     limits, groups, kill switches, and what accounts have open
    instrument   modes, limits, days
    open_orders  the one place where orders come and go
    order        one of them
    state        all of it together, to and from snapshots, and its invariants
    events       what is told of orders
"""

from __future__ import annotations

from engine.reference.market import PythonMarket

__all__ = ["PythonMarket"]
