"""Concurrent transactions of the monolith, one statement at a time, and what must be read."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from hypothesis import strategies as st
from legacy_side import insert_order

from shadow.operation import FillInserted, LegacyTransaction, Mark, OrderInserted, OrderUpdated

WRITERS = 3
SHARED = 2  # orders that several writers change, one at a time

Effect = list[Any]  # of one transaction: what it wrote, in order


class Step(NamedTuple):
    action: str
    writer: int
    row: int  # which shared order


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            [
                *("insert", "insert", "update", "update", "fill", "savepoint", "roll back to"),
                *("commit", "commit", "roll back"),
                *("take", "cut", "restart", "confirm"),
            ]
        ),
        st.integers(0, WRITERS - 1),
        st.integers(0, SHARED - 1),
    ),
    max_size=40,
)


def effect_of(transaction: LegacyTransaction) -> Effect:
    found: Effect = []
    for change in transaction.changes:
        match change:
            case OrderInserted(order=order):
                found.append(["insert", order.order_id, order.qty_lots])
            case OrderUpdated(order=order):
                found.append(["update", order.order_id, order.leaves_lots])
            case FillInserted(fill=fill):
                found.append(["fill", fill.taker_order_id, fill.qty_lots])
            case Mark(id=mark):
                found.append(["mark", mark, 0])
            case _:
                found.append(["unexpected", repr(change), 0])
    return found


class Writer:
    """One connection of the monolith: what it has written so far, and where its savepoint is."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.effect: Effect = []
        self.is_open = False
        self.rows: set[int] = set()  # shared orders that it holds
        self.saved: int | None = None


class Market:
    """Knows what was committed, in commit order."""

    def __init__(self, connections: list[psycopg.Connection[Any]]) -> None:
        self.writers = [Writer(one) for one in connections]
        self.shared = [insert_order(connections[0]) for _ in range(SHARED)]
        self.committed: list[Effect] = [[["insert", one, 200_000_000]] for one in self.shared]
        self._leaves = 199_000_000

    def step(self, step: Step) -> None:
        writer = self.writers[step.writer]
        if step.action in ("commit", "roll back"):
            self._end(writer, commit=step.action == "commit")
        elif step.action in ("insert", "update", "fill", "savepoint", "roll back to"):
            self._write(writer, step)

    def end(self) -> None:
        for writer in self.writers:
            self._end(writer, commit=True)

    def _end(self, writer: Writer, *, commit: bool) -> None:
        if not writer.is_open:
            return
        writer.connection.execute("COMMIT" if commit else "ROLLBACK")
        if commit and writer.effect:
            self.committed.append(writer.effect)
        writer.effect, writer.rows = [], set()
        writer.is_open, writer.saved = False, None

    def _write(self, writer: Writer, step: Step) -> None:
        if not writer.is_open:
            writer.connection.execute("BEGIN")
            writer.is_open = True
        app = writer.connection
        match step.action:
            case "insert":
                writer.effect.append(["insert", insert_order(app), 200_000_000])
            case "update" if not self._held(step.row, writer):
                self._leaves -= 1
                lots, order_id = self._leaves, self.shared[step.row]
                app.execute(
                    "UPDATE orders SET remaining_quantity = %s / 100000000.0 WHERE id = %s",
                    [lots, order_id],
                )
                writer.rows.add(step.row)
                writer.effect.append(["update", order_id, lots])
            case "fill":
                self._leaves -= 1
                app.execute(
                    "INSERT INTO trades (market_id, maker_order_id, taker_order_id, price,"
                    " quantity, taker_side, created_at, updated_at) VALUES ('BTC-USD', %s, %s,"
                    " 236.47, %s / 100000000.0, 0, now(), now())",
                    [*self.shared[:2], self._leaves],
                )
                writer.effect.append(["fill", self.shared[1], self._leaves])
            case "savepoint":
                app.execute("SAVEPOINT s")
                writer.saved = len(writer.effect)
            case "roll back to" if writer.saved is not None:
                app.execute("ROLLBACK TO s")
                del writer.effect[writer.saved :]

    def _held(self, row: int, writer: Writer) -> bool:
        """It would wait for another writer of this very test."""
        return any(row in one.rows for one in self.writers if one is not writer)


def of_order(effects: list[Effect], order_id: int) -> list[Effect]:
    """Transactions that changed this order: they waited for each other."""
    changed = ["update", order_id]
    return [one for one in effects if any(write[:2] == changed for write in one)]
