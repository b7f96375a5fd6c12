"""The final audit: what clients were told, what the legacy database holds, what the journal holds.

Pure. Three witnesses that never spoke to each other must agree, order by order and fill by fill.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext

import msgspec

from bridge.limits import AUDIT_EXAMPLES_MAX
from bridge.sandbox.audit_rows import (
    Fill,
    JournalOrder,
    LegacyRows,
    live_orders,
)
from bridge.sandbox.told import ClientOrder, LoadResult, Wish, orders_of
from engine.types import Event
from shadow.legacy.convert import Scale

_SUM_DIGITS = 60  # a sum of products of two 28-digit numbers stays exact


class Check(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    detail: str  # how much was looked at, and the first few contradictions


class AuditResult(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    checks: tuple[Check, ...]
    answered: int  # orders that a client was told of
    lost: int  # of these, not in the legacy database
    duplicated: int  # orders in the database that no request explains, and ids told twice
    fills: int  # that clients were told of
    live_orders: int  # accepted by the engine while it answered
    live_fills: int


class _Evidence(msgspec.Struct, frozen=True, kw_only=True):
    told: dict[int, ClientOrder]
    unanswered: tuple[Wish, ...]  # requests that may or may not have made an order
    members: frozenset[int]
    wrong: tuple[str, ...]
    legacy: LegacyRows
    taken: dict[int, list[Fill]]  # by taker order id, in the order in which they were written
    journal: dict[int, JournalOrder]


def audit(
    results: Sequence[LoadResult],
    legacy: LegacyRows,
    journal: Iterable[Event],
    scales: Mapping[str, Scale],
) -> AuditResult:
    """`results`: of every load that ran. `legacy`: read when the write-back had caught up.

    `journal`: every event of the engine, oldest first. Orders of members that no load used (a
    console's) are looked at too, though nobody was told of them.
    """
    with localcontext(prec=_SUM_DIGITS):
        return _audit(results, legacy, live_orders(journal, scales))


def _audit(
    results: Sequence[LoadResult], legacy: LegacyRows, journal: dict[int, JournalOrder]
) -> AuditResult:
    taken: dict[int, list[Fill]] = defaultdict(list)
    for trade in legacy.trades:
        taken[trade.taker_order_id].append(trade.fill)
    told = orders_of(results)
    evidence = _Evidence(
        told=told,
        unanswered=tuple(
            one.wish for run in results for one in run.unanswered if one.wish and one.possible
        ),
        members=frozenset().union(*(run.members for run in results)),
        wrong=tuple(text for run in results for text in run.wrong),
        legacy=legacy,
        taken=taken,
        journal=journal,
    )
    lost = [order_id for order_id in told if order_id not in legacy.orders]
    unexplained = _unexplained(evidence)
    checks = (
        _check("every answered order is in the database", len(told), map(str, lost)),
        _check("no order is there twice", len(legacy.orders), unexplained),
        _check("answers agree with their requests", len(told), evidence.wrong),
        *_order_checks(evidence),
        *_journal_checks(evidence),
        *_balance_checks(evidence),
    )
    return AuditResult(
        ok=all(check.ok for check in checks),
        checks=checks,
        answered=len(told),
        lost=len(lost),
        duplicated=len(unexplained) + sum("told twice" in text for text in evidence.wrong),
        fills=sum(len(order.fills) for order in told.values()),
        live_orders=len(evidence.journal),
        live_fills=sum(len(order.fills) for order in evidence.journal.values()),
    )


def _check(name: str, count: int, contradictions: Iterable[str]) -> Check:
    found = list(contradictions)
    detail = f"{count:,} looked at"
    if found:
        detail = f"{len(found):,} of {count:,}: " + "; ".join(found[:AUDIT_EXAMPLES_MAX])
    return Check(name=name, ok=not found, detail=detail)


def _unexplained(evidence: _Evidence) -> list[str]:
    """Orders of the load's members that nobody was told of, beyond what lost answers explain."""
    possible = Counter(evidence.unanswered)
    found = []
    for order_id, row in evidence.legacy.orders.items():
        if order_id in evidence.told or row.wish.member not in evidence.members:
            continue
        if possible[row.wish]:
            possible[row.wish] -= 1
        else:
            found.append(f"order {order_id} of member {row.wish.member}")
    return found


def _order_checks(evidence: _Evidence) -> tuple[Check, ...]:
    rows = evidence.legacy.orders
    pairs = [
        (told, rows[told.order_id]) for told in evidence.told.values() if told.order_id in rows
    ]
    as_asked = (
        f"order {told.order_id}: asked {told.wish}, holds {row.wish}"
        for told, row in pairs
        if told.wish != row.wish
    )
    fills = (
        f"order {told.order_id}: told {_show(told)}, holds {evidence.taken.get(told.order_id, [])}"
        for told, _ in pairs
        if _told_fills(told) != evidence.taken.get(told.order_id, [])
    )
    states = (
        f"order {told.order_id}: told {told.state}, is {row.state}"
        for told, row in pairs
        if told.state != "open" and (told.state, told.remaining) != (row.state, row.remaining)
    )
    cancels = [(told, row) for told, row in pairs if told.cancelled_remaining is not None]
    canceled = (
        f"order {told.order_id}: told {told.cancelled_remaining} cancelled, "
        f"is {row.state} with {row.remaining}"
        for told, row in cancels
        if (row.state, row.remaining) != ("cancelled", told.cancelled_remaining)
    )
    closed = [(told, row) for told, row in pairs if told.closed]
    still_open = (f"order {told.order_id}" for told, row in closed if row.state == "open")
    return (
        _check("orders are as they were asked for", len(pairs), as_asked),
        _check("trades are as the takers were told", sum(map(_fill_count, pairs)), fills),
        _check("final states are as they were told", len(pairs), states),
        _check("cancelled orders are as they were told", len(cancels), canceled),
        _check("orders that were told to be closed are closed", len(closed), still_open),
        _check("orders and their trades add up", len(rows), _wrong_sums(evidence.legacy)),
    )


def _fill_count(pair: tuple[ClientOrder, object]) -> int:
    return len(pair[0].fills)


def _told_fills(told: ClientOrder) -> list[Fill]:
    return [Fill(fill.price, fill.quantity, fill.maker_order_id) for fill in told.fills]


def _show(told: ClientOrder) -> str:
    return ", ".join(str(fill) for fill in told.fills) or "nothing"


def _wrong_sums(legacy: LegacyRows) -> Iterable[str]:
    """Each order's remaining quantity against all trades that it was in, and against its state."""
    traded: dict[int, Decimal] = defaultdict(Decimal)
    for trade in legacy.trades:
        traded[trade.taker_order_id] += trade.fill.quantity
        traded[trade.fill.maker_order_id] += trade.fill.quantity
    for order_id in traded.keys() - legacy.orders.keys():
        yield f"a trade names order {order_id}, which is not there"
    for order_id, row in legacy.orders.items():
        if row.wish.quantity - row.remaining != traded.get(order_id, Decimal(0)):
            left = f"{row.remaining} of {row.wish.quantity} left"
            yield f"order {order_id}: {left}, {traded[order_id]} traded"
        if (row.state == "filled") != (row.remaining == 0):
            yield f"order {order_id}: {row.state} with {row.remaining} left"
        if row.state == "open" and row.wish.time_in_force != "gtc":
            yield f"order {order_id}: {row.wish.time_in_force} and still open"


def _journal_checks(evidence: _Evidence) -> tuple[Check, ...]:
    rows, journal = evidence.legacy.orders, evidence.journal
    orders = (
        f"order {order_id}: journal {order.wish}, database {rows.get(order_id)}"
        for order_id, order in journal.items()
        if order_id not in rows or rows[order_id].wish != order.wish
    )
    fills = (
        f"order {order_id}: journal {order.fills}, database {evidence.taken.get(order_id, [])}"
        for order_id, order in journal.items()
        if order.fills != evidence.taken.get(order_id, [])
    )
    told = [
        (evidence.told[order_id], order)
        for order_id, order in journal.items()
        if order_id in evidence.told
    ]
    answers = (
        f"order {client.order_id}: told {_show(client)}, journal {order.fills}"
        for client, order in told
        if _told_fills(client) != order.fills
    )
    count = sum(len(order.fills) for order in journal.values())
    return (
        _check("the journal's live orders are in the database", len(journal), orders),
        _check("the journal's live fills are there exactly once", count, fills),
        _check("clients were told what the journal holds", len(told), answers),
    )


def _balance_checks(evidence: _Evidence) -> tuple[Check, ...]:
    legacy = evidence.legacy
    by_rows: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
    for row in legacy.orders.values():
        sign = 1 if row.wish.side == "buy" else -1
        by_rows[(row.wish.member, row.wish.symbol)] += sign * (row.wish.quantity - row.remaining)
    by_trades: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
    cash: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
    for trade in legacy.trades:
        sign = 1 if trade.taker_side == "buy" else -1
        for order_id, one in ((trade.taker_order_id, sign), (trade.fill.maker_order_id, -sign)):
            owner = legacy.orders.get(order_id)
            key = (owner.wish.member if owner else 0, trade.symbol)
            by_trades[key] += one * trade.fill.quantity
            cash[key] -= one * trade.fill.quantity * trade.fill.price
    members = {key for key in by_rows | by_trades if by_rows[key] != by_trades[key]}
    contradictions = [
        f"member {member} {symbol}: {by_rows[(member, symbol)]} by orders, "
        f"{by_trades[(member, symbol)]} by trades"
        for member, symbol in sorted(members)
    ]
    return (
        _check("members' positions agree between orders and trades", len(by_rows), contradictions),
        _zero("positions add up to zero", by_rows),
        _zero("cash adds up to zero", cash),
        _volumes(evidence),
    )


def _zero(name: str, amounts: Mapping[tuple[int, str], Decimal]) -> Check:
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for (_, symbol), amount in amounts.items():
        totals[symbol] += amount
    left = (f"{symbol}: {total}" for symbol, total in sorted(totals.items()) if total)
    return _check(name, len(totals), left)


def _volumes(evidence: _Evidence) -> Check:
    """Quantity and cash by symbol and taker's side: as told, in the database, in the journal."""
    told = _traded((order.wish, _told_fills(order)) for order in evidence.told.values())
    held = _traded(
        (order.wish, evidence.taken.get(order.order_id, [])) for order in evidence.told.values()
    )
    journal = _traded((order.wish, order.fills) for order in evidence.journal.values())
    written = _traded(
        (order.wish, evidence.taken.get(order_id, []))
        for order_id, order in evidence.journal.items()
    )
    wrong = [
        f"{key}: told {told[key]}, database {held[key]}" for key in told if told[key] != held[key]
    ]
    wrong += [
        f"{key}: journal {journal[key]}, database {written[key]}"
        for key in journal
        if journal[key] != written[key]
    ]
    name = "volumes agree between clients, database and journal"
    return _check(name, len(told) + len(journal), wrong)


def _traded(
    orders: Iterable[tuple[Wish, Sequence[Fill]]],
) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    zero = (Decimal(0), Decimal(0))
    totals: dict[tuple[str, str], tuple[Decimal, Decimal]] = defaultdict(lambda: zero)
    for wish, fills in orders:
        quantity, cash = totals[(wish.symbol, wish.side)]
        quantity += sum(fill.quantity for fill in fills)
        cash += sum(fill.quantity * fill.price for fill in fills)
        totals[(wish.symbol, wish.side)] = (quantity, cash)
    return totals
