"""The parity report as plain data, for the command line, the API and the demo: JSON, no objects.

Parity never stands without coverage, and a clean record says how little it proves: with no mismatch
in n operations, the rate of mismatches is below 3/n with 95 % confidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shadow.store_rows import Parity, Root, RunRow
from shadow.verdict import Counts, LatencySummary
from shadow.writers import not_seen

_RULE_OF_THREE = 3.0


def report(parities: Iterable[Parity]) -> dict[str, Any]:
    """Pure."""
    return {"instruments": [_instrument(one) for one in parities]}


def parity_share(counts: Counts) -> float | None:
    """Of what could be compared, the share that agreed; None while nothing could."""
    agreed = counts.matched + counts.known
    compared = agreed + counts.mismatched
    return agreed / compared if compared else None


def coverage_share(counts: Counts) -> float | None:
    """Of what was seen and is settled, the share that could be compared; None while nothing is."""
    settled = counts.seen - counts.pending
    compared = counts.matched + counts.known + counts.mismatched
    return compared / settled if settled else None


def mismatch_bound(counts: Counts) -> float | None:
    """What a record without a mismatch proves; None for any other.

    >>> mismatch_bound(Counts(seen=3000, matched=3000))
    0.001
    """
    agreed = counts.matched + counts.known
    if counts.mismatched or not agreed:
        return None
    return min(1.0, _RULE_OF_THREE / agreed)


def _instrument(parity: Parity) -> dict[str, Any]:
    evidence = parity.evidence
    counts = evidence.counts
    return {
        "symbol": evidence.symbol,
        "stage": evidence.stage,
        "epoch": evidence.epoch,
        "run": evidence.run,
        "since_s": evidence.loaded_at_s,
        "in_shadow_s": _age(evidence.now_s, evidence.loaded_at_s),
        "reported_s_ago": _age(evidence.now_s, evidence.updated_at_s),
        "parity": parity_share(counts),
        "coverage": coverage_share(counts),
        "mismatch_bound": mismatch_bound(counts),
        "statement": _statement(counts),
        "counts": msgspec.to_builtins(counts),
        "closes": counts.closes(),
        "runs": [_run(row, parity.counts_by_run.get(row.run, Counts())) for row in parity.runs],
        "roots": [_root(root) for root in parity.roots],
        "kinds": parity.kinds,
        "known": parity.known,
        "latency": {
            "legacy": msgspec.to_builtins(evidence.legacy_latency),
            "engine": msgspec.to_builtins(evidence.engine_latency),
            "faster_at_p99": _faster(evidence.legacy_latency, evidence.engine_latency),
        },
        "book": {
            "equal": evidence.book_equal,
            "checked_s_ago": _age(evidence.now_s, evidence.book_checked_at_s),
            "differences": parity.book_differences,
        },
        "lag_ms": evidence.lag_ms,
        "taint": evidence.taint,
        "trouble": parity.trouble,
        "dark": counts.dark,
        "dark_writers": msgspec.to_builtins(evidence.dark_writers),
        "dark_not_seen": not_seen(counts.dark, evidence.dark_writers),
        "writers_seen": msgspec.to_builtins(parity.writers_seen),
    }


def _statement(counts: Counts) -> str:
    """One sentence."""
    coverage = coverage_share(counts)
    if coverage is None:
        return "nothing has been compared yet"
    seen = f"{counts.seen - counts.pending} operations, {coverage:.4%} of them comparable"
    bound = mismatch_bound(counts)
    if bound is not None:
        return f"no mismatch in {seen}: fewer than {bound:.2g} of all differ, with 95 % confidence"
    return f"{counts.mismatched} mismatches in {seen}"


def _run(row: RunRow, counts: Counts) -> dict[str, Any]:
    return {
        "run": row.run,
        "epoch": row.epoch,
        "reason": row.reason,
        "orders": row.orders,
        "loaded_at_s": row.loaded_at_s,
        "counts": msgspec.to_builtins(counts),
    }


def _root(root: Root) -> dict[str, Any]:
    """Both sides of a first divergence."""
    verdict = root.verdict
    return {
        "order_id": verdict.order_id,
        "operation": verdict.operation,
        "run": root.run,
        "at_s": root.at_s,
        "dependants": root.dependants,
        "differences": msgspec.to_builtins(verdict.differences),
        "legacy": verdict.legacy,
        "engine": verdict.engine,
        "commit_lsn": verdict.commit_lsn,
        "dark": verdict.dark,
    }


def _faster(legacy: LatencySummary, engine: LatencySummary) -> float | None:
    if not legacy.count or not engine.count or not engine.p99_us:
        return None
    return legacy.p99_us / engine.p99_us


def _age(now_s: float, at_s: float) -> float | None:
    return max(0.0, now_s - at_s) if at_s else None
