"""Reads what was recorded of one instrument: for the gate, and for people. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from shadow import store_sql
from shadow.latency import Side, summary
from shadow.limits import (
    EVIDENCE_ROOTS_MAX,
    LATENCY_WINDOWS_MAX,
    REPORT_RUNS_MAX,
    WRITERS_SEEN_TOLD,
)
from shadow.store_rows import Parity, Root, RunRow
from shadow.verdict import Counts, Evidence, LatencySummary, OperationVerdict
from shadow.writers import WriterCount, largest

Cursor = psycopg.AsyncCursor[dict[str, Any]]
_ByRun = dict[int, tuple[Counts, int]]  # and how many of the mismatched follow from its root


async def read(cursor: Cursor, symbol: str) -> Evidence | None:
    """In the caller's transaction."""
    found = await _read(cursor, symbol)
    return found[0] if found else None


async def read_parity(cursor: Cursor, symbol: str) -> Parity | None:
    """In the caller's transaction."""
    found = await _read(cursor, symbol)
    if found is None:
        return None
    evidence, trouble, by_run, row = found
    first_run = row["first_run"]
    return Parity(
        evidence=evidence,
        trouble=trouble,
        runs=await _runs(cursor, symbol),
        counts_by_run={run: counts for run, (counts, _) in by_run.items()},
        roots=await _roots(cursor, symbol, first_run, by_run),
        kinds=await _pairs(cursor, store_sql.KINDS, "kind", symbol, first_run),
        known=await _pairs(cursor, store_sql.KNOWN, "rules", symbol, first_run),
        book_differences=row["book_differences"],
        writers_seen=await _writers(cursor, store_sql.WRITERS, WRITERS_SEEN_TOLD),
    )


async def _read(cursor: Cursor, symbol: str) -> tuple[Evidence, str, _ByRun, dict[str, Any]] | None:
    await cursor.execute(store_sql.EVIDENCE, (symbol,))
    row = await cursor.fetchone()
    if row is None:
        return None
    first_run = row["first_run"]
    by_run = await _counts(cursor, symbol, first_run)
    await cursor.execute(store_sql.TROUBLE)
    trouble_row = await cursor.fetchone()
    trouble = trouble_row["trouble"] if trouble_row else ""
    roots = await _roots(cursor, symbol, first_run, by_run)
    evidence = Evidence(
        symbol=row["symbol"],
        stage=row["stage"],
        epoch=row["epoch"],
        run=row["run"],
        loaded_at_s=row["loaded_at_s"],
        now_s=row["now_s"],
        counts=_total([counts for counts, _ in by_run.values()], row["pending"]),
        legacy_latency=await _latency(cursor, symbol, first_run, "legacy"),
        engine_latency=await _latency(cursor, symbol, first_run, "engine"),
        taint=row["taint"] or trouble,
        book_equal=row["book_equal"],
        book_checked_at_s=row["book_checked_at_s"],
        lag_ms=row["lag_ms"],
        updated_at_s=row["updated_at_s"],
        mismatches=tuple(root.verdict for root in roots),
        dark_writers=largest(await _writers(cursor, store_sql.DARK, symbol, first_run)),
    )
    return evidence, trouble, by_run, row


async def _counts(cursor: Cursor, symbol: str, first_run: int) -> _ByRun:
    await cursor.execute(store_sql.COUNTS, (symbol, first_run))
    found: _ByRun = {}
    for row in await cursor.fetchall():
        run, dependants = row.pop("run"), row.pop("dependants")
        found[run] = Counts(**row), dependants
    return found


def _total(counts: Sequence[Counts], pending: int) -> Counts:
    """Pending operations are seen, and not yet counted by any run."""
    names = [name for name in Counts.__struct_fields__ if name != "pending"]
    sums = {name: sum(getattr(one, name) for one in counts) for name in names}
    return Counts(**{**sums, "seen": sums["seen"] + pending, "pending": pending})


async def _latency(cursor: Cursor, symbol: str, first_run: int, side: Side) -> LatencySummary:
    await cursor.execute(store_sql.LATENCIES, (symbol, first_run, side, LATENCY_WINDOWS_MAX))
    return summary([row["histogram"] for row in await cursor.fetchall()])


async def _roots(cursor: Cursor, symbol: str, first_run: int, by_run: _ByRun) -> tuple[Root, ...]:
    """A run has one divergence that lasts: all dependants are its."""
    await cursor.execute(store_sql.ROOTS, (symbol, first_run, EVIDENCE_ROOTS_MAX))
    roots = []
    for row in await cursor.fetchall():
        verdict = msgspec.convert(row["body"], OperationVerdict)
        lasting = any(one.lasting for one in verdict.differences)
        dependants = by_run[row["run"]][1] if lasting and row["run"] in by_run else 0
        roots.append(Root(run=row["run"], verdict=verdict, at_s=row["at_s"], dependants=dependants))
    return tuple(roots)


async def _runs(cursor: Cursor, symbol: str) -> tuple[RunRow, ...]:
    await cursor.execute(store_sql.RUNS, (symbol, REPORT_RUNS_MAX))
    return tuple(msgspec.convert(row, RunRow) for row in await cursor.fetchall())


async def _writers(cursor: Cursor, statement: Any, *values: object) -> tuple[WriterCount, ...]:
    await cursor.execute(statement, values)
    return tuple(msgspec.convert(row, WriterCount) for row in await cursor.fetchall())


async def _pairs(
    cursor: Cursor, statement: Any, name: str, symbol: str, first_run: int
) -> dict[str, int]:
    await cursor.execute(statement, (symbol, first_run))
    return {row[name]: row["n"] for row in await cursor.fetchall()}
