"""What to do with a transaction that has been read: its operations to the engine, and into the
queues of their instruments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from shadow.feed import Feed, command_of, reference
from shadow.instrument import Instrument
from shadow.joins import Joins
from shadow.later import Later
from shadow.limits import OPERATIONS_PER_TRANSACTION_MAX, OWNERS_KEPT_MAX
from shadow.operation import (
    Cancel,
    LegacyTransaction,
    Operation,
    OrderImage,
    Place,
    Requeue,
    Touch,
    Unexplained,
    Unreadable,
)
from shadow.ordering import operations
from shadow.ports import Clock
from shadow.recorder import Recorder
from shadow.settle import Settler
from shadow.work import Group, Held, Item, RefusedCancel, TxEntry

_NOT_FED = (Touch, Unexplained)
_JOINED = (Place, Cancel)  # those that a capture may tell of, or may have told of


class Owner(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    account: int


class Applier:
    def __init__(
        self,
        *,
        instruments: Mapping[str, Instrument],
        joins: Joins,
        feed: Feed,
        recorder: Recorder,
        settler: Settler,
        clock: Clock,
        later: Later | None = None,
    ) -> None:
        """`later`: of a monolith that does not match in the transaction that writes an order."""
        self._later = later
        self._coming: dict[tuple[bool, int], Item] = {}  # cancel?, order id: not decided yet
        self._instruments = instruments
        self._joins = joins
        self._feed = feed
        self._recorder = recorder
        self._settler = settler
        self._clock = clock
        self._owners: OrderedDict[int, Owner] = OrderedDict()

    def apply(self, tx: LegacyTransaction) -> TxEntry:
        """The caller sees to markers and marks, and flushes the feed."""
        entry = self._recorder.transaction(tx.end_lsn)
        groups: dict[str, Group] = {}
        found = operations(tx) if self._later is None else self._decided(self._later, tx)
        for index, operation in enumerate(found):
            concerned = False
            for instrument in self._concerned(operation):
                if _is_due(instrument, tx):
                    concerned = True
                    self._add(groups, instrument, tx, entry, index, operation)
            if not concerned:
                self._skip(operation)
        return entry

    def begin(
        self, instrument: Instrument, rows: Iterable[OrderImage | Unreadable]
    ) -> list[OrderImage | Unreadable]:
        """With the open orders of a snapshot: those that the engine's book must be loaded with."""
        if self._later is None:
            return list(rows)
        symbol = instrument.symbol
        self._let_all_go(symbol)
        every = list(rows)
        images = [row for row in every if isinstance(row, OrderImage)]
        unreadable = [row for row in every if isinstance(row, Unreadable)]
        return [*self._later.start(symbol, images), *unreadable]

    def as_fed(
        self, instrument: Instrument, rows: Iterable[OrderImage | Unreadable]
    ) -> list[OrderImage | Unreadable]:
        """The monolith's open orders at the newest transaction, as the engine must have them."""
        every = list(rows)
        if self._later is None:
            return every
        images = [row for row in every if isinstance(row, OrderImage)]
        unreadable = [row for row in every if isinstance(row, Unreadable)]
        return [*self._later.as_fed(instrument.symbol, images), *unreadable]

    def know(self, instrument: Instrument, orders: Iterable[tuple[int, int]]) -> None:
        """Orders (id, account) of an instrument that were there before."""
        for order_id, account in orders:
            self._remember(order_id, Owner(instrument.symbol, account))

    def unknown(self, due: Iterable[Held]) -> list[int]:
        """Orders of refused cancels that are not remembered."""
        ids = {held.told.order_id for held in due}
        return [order_id for order_id in ids if order_id and order_id not in self._owners]

    def know_owners(self, owners: Mapping[int, tuple[str, int]]) -> None:
        for order_id, (symbol, account) in owners.items():
            self._remember(order_id, Owner(symbol, account))

    def decide_refused_cancels(self, due: Iterable[Held], lsn: int) -> None:
        """A mark has come back: whatever the monolith had done to those orders has been read."""
        refused: dict[str, list[RefusedCancel]] = {}
        for held in due:
            owner = self._owners.get(held.told.order_id)
            instrument = self._instruments.get(owner.symbol) if owner is not None else None
            if owner is None or instrument is None or not instrument.is_compared:
                self._settler.release(held)
                continue
            if owner.symbol not in refused:
                own = refused[owner.symbol] = []
                instrument.waiting.append(Group(instrument.run, lsn, None, refused=own))
            refused[owner.symbol].append(RefusedCancel(held, owner.account))
            instrument.queued += 1

    def symbol_of(self, order_id: int) -> str:
        """ "" when the order is not remembered."""
        owner = self._owners.get(order_id)
        return owner.symbol if owner is not None else ""

    def _concerned(self, operation: Operation) -> list[Instrument]:
        """Of a row that names no instrument: whose open order it is, else all that it may be of."""
        if isinstance(operation, Unexplained):
            symbol, order_id = operation.symbol, operation.order_id
        else:
            symbol, order_id = operation.order.symbol, operation.order.order_id
        if symbol:
            found = self._instruments.get(symbol)
            return [found] if found is not None else []
        followed = [one for one in self._instruments.values() if one.following]
        if not order_id:
            return followed
        return [one for one in followed if self._may_be_open(one, order_id)]

    def _may_be_open(self, instrument: Instrument, order_id: int) -> bool:
        """Also one that is on its way to the engine."""
        if instrument.run.mirror.get(order_id) is not None:
            return True
        return any(
            isinstance(item.operation, Place) and item.operation.order.order_id == order_id
            for group in instrument.waiting
            for item in group.items
        )

    def _add(
        self,
        groups: dict[str, Group],
        instrument: Instrument,
        tx: LegacyTransaction,
        entry: TxEntry,
        index: int,
        operation: Operation,
    ) -> None:
        group = groups.get(instrument.symbol)
        if group is None:
            group = groups[instrument.symbol] = Group(instrument.run, tx.commit_lsn, entry)
            instrument.waiting.append(group)
        if index >= OPERATIONS_PER_TRANSACTION_MAX:
            operation = _too_many(operation, instrument.symbol)
        item = self._item(operation, tx.xid)
        group.items.append(item)
        instrument.queued += 1
        if isinstance(operation, _NOT_FED):
            item.is_answered = True
            return
        order = operation.order
        if isinstance(operation, Place):
            self._remember(order.order_id, Owner(order.symbol, order.account))
        if self._later is None:
            self._joins.want(item)
        ref = reference(tx.commit_lsn, index)
        self._feed.add(item, command_of(operation, instrument.number, ref))

    # --- of a monolith that matches later

    def _decided(self, later: Later, tx: LegacyTransaction) -> list[Operation]:
        told = later.take(tx, lambda symbol: self._follows(symbol, tx))
        for coming in told.coming:
            key = _key(coming)
            if key not in self._coming:
                self._coming[key] = item = Item(coming, self._clock.mono_ns(), tx.xid)
                self._joins.want(item)
        for dropped in told.dropped:
            self._let_go(_key(dropped))
        for symbol, instrument in self._instruments.items():
            if not instrument.following and later.stop(symbol):
                self._let_all_go(symbol)
            instrument.undecided = later.undecided(symbol)
        return told.ready

    def _follows(self, symbol: str, tx: LegacyTransaction) -> bool:
        instrument = self._instruments.get(symbol)
        return instrument is not None and _is_due(instrument, tx)

    def _item(self, operation: Operation, xid: int) -> Item:
        """What its capture has been joined with, if it has been expected. What was under way when
        the instrument was loaded is nobody's request.
        """
        if self._coming and isinstance(operation, _JOINED):
            item = self._coming.pop(_key(operation), None)
            if item is not None:
                item.operation = operation
                return item
        return Item(operation, self._clock.mono_ns(), xid)

    def _let_all_go(self, symbol: str) -> None:
        for key, item in list(self._coming.items()):
            if _symbol(item.operation) == symbol:
                self._let_go(key)

    def _let_go(self, key: tuple[bool, int]) -> None:
        """It is not compared: neither is its capture."""
        item = self._coming.pop(key, None)
        if item is None:
            return
        if item.held is not None:
            self._settler.release(item.held)
        else:
            self._joins.forget(item)

    def _skip(self, operation: Operation) -> None:
        held = self._joins.skip(operation)
        if held is not None:
            self._settler.release(held)

    def _remember(self, order_id: int, owner: Owner) -> None:
        self._owners[order_id] = owner
        if len(self._owners) > OWNERS_KEPT_MAX:
            self._owners.popitem(last=False)


def _is_due(instrument: Instrument, tx: LegacyTransaction) -> bool:
    """Neither in the load already, nor recorded before a restart."""
    return (
        instrument.following
        and tx.commit_lsn >= instrument.loaded_lsn
        and tx.commit_lsn > instrument.applied_lsn
    )


def _too_many(operation: Operation, symbol: str) -> Unexplained:
    reason = f"its transaction has more than {OPERATIONS_PER_TRANSACTION_MAX} operations"
    if isinstance(operation, Place | Cancel | Touch | Requeue):
        return Unexplained(symbol=symbol, order_id=operation.order.order_id, reason=reason)
    return operation


def _key(operation: Place | Cancel) -> tuple[bool, int]:
    return isinstance(operation, Cancel), operation.order.order_id


def _symbol(operation: Operation) -> str:
    return operation.symbol if isinstance(operation, Unexplained) else operation.order.symbol
