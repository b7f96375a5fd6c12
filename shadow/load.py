"""Puts the monolith's open orders into the engine's book, so that shadowing can begin, or begin
again, on a running market.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from engine.errors import EngineUnavailable, OutcomeUnknown, QueryRefused
from engine.types import Command, CommandKind, EventKind, Mode
from shadow.errors import LoadFailed
from shadow.feed import new_order
from shadow.limits import LOAD_COMMANDS_MAX, LOAD_TIMEOUT_S
from shadow.mirror import Mirror
from shadow.operation import OrderImage, Unreadable, open_lots
from shadow.ports import Answered, Engine


class Loaded(NamedTuple):
    mirror: Mirror
    orders: int
    taint: str  # "" or why the book is not the monolith's


async def require_shadow_mode(engine: Engine, instrument: int) -> None:
    """Raises LoadFailed while the engine would not take the orders."""
    try:
        book = await engine.book(instrument)
    except QueryRefused as error:
        raise LoadFailed(f"the engine has no such instrument yet: {error}") from error
    except EngineUnavailable as error:
        raise LoadFailed(str(error)) from error
    if book.mode != Mode.SHADOW:
        raise LoadFailed(
            f"the engine has the instrument {Mode(book.mode).name.lower()}, not in shadow: "
            "the control process opens it"
        )


async def load(engine: Engine, instrument: int, rows: Sequence[OrderImage | Unreadable]) -> Loaded:
    """`rows` in queue order. Raises LoadFailed: then the book is neither the old one nor theirs."""
    orders = [row for row in rows if isinstance(row, OrderImage)]
    await _send(engine, [Command(kind=CommandKind.CLEAR, instrument=instrument)])
    commands = iter([new_order(order, instrument, open_lots(order)) for order in orders])
    while chunk := list(islice(commands, LOAD_COMMANDS_MAX)):
        _require_resting(await _send(engine, chunk))
    try:
        book = await engine.book(instrument)
    except (QueryRefused, EngineUnavailable) as error:
        raise LoadFailed(str(error)) from error
    return Loaded(Mirror(book.orders, seq=book.seq), len(orders), _taint(rows))


async def _send(engine: Engine, commands: Sequence[Command]) -> Sequence[Answered]:
    try:
        answers = await engine.send(commands, timeout_s=LOAD_TIMEOUT_S)
    except (EngineUnavailable, OutcomeUnknown) as error:
        raise LoadFailed(str(error)) from error
    for answer in answers:
        first = answer.events[0]
        if first.kind is EventKind.REJECTED:
            what = f"order {first.order_id}" if first.order_id else "the empty book"
            raise LoadFailed(f"the engine refused {what} of the load: {first.reason.name}")
    return answers


def _require_resting(answers: Iterable[Answered]) -> None:
    """Open orders rest. Two that would trade with each other are a fault of the monolith."""
    for answer in answers:
        for event in answer.events:
            if event.kind is EventKind.FILL:
                raise LoadFailed(
                    f"the monolith's book is crossed: open orders {event.order_id} and "
                    f"{event.contra_id} would trade with each other"
                )


def _taint(rows: Sequence[OrderImage | Unreadable]) -> str:
    unreadable = [row for row in rows if isinstance(row, Unreadable)]
    if not unreadable:
        return ""
    first = unreadable[0]
    return (
        f"{len(unreadable)} open orders of the monolith can't be read; the first is order "
        f"{first.order_id}: {first.reason}"
    )
