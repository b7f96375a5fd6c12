"""One client's requests to the exchange: sends them, and writes down what it was told."""

from __future__ import annotations

import time
from decimal import Decimal

import msgspec

from bridge.sandbox.client import ExchangeFailed, HttpAnswer, HttpConnection
from bridge.sandbox.flow_random import BulkWish
from bridge.sandbox.told import ClientOrder, FillTold, LoadResult, Unanswered, Wish


class _OrderTold(msgspec.Struct):
    id: int
    market: str
    side: str
    order_type: str
    time_in_force: str
    price: Decimal | None
    quantity: Decimal
    remaining_quantity: Decimal
    filled_quantity: Decimal
    state: str
    trades: tuple[FillTold, ...]


class _Told(msgspec.Struct):
    order: _OrderTold


class _Element(msgspec.Struct):
    """Of a bulk answer: an order, or why it was refused."""

    errors: dict[str, list[str]] | None = None

    def says(self, what: str) -> bool:
        return self.errors == {"base": [what]}


_Part = _OrderTold | _Element


class _ManyTold(msgspec.Struct):
    orders: list[msgspec.Raw]


_NOT_FOUND = "Not Found"
_UNKNOWN = "outcome unknown"  # says the proxy of an order of a bulk request
_CUT_SHORT = 504  # to a bulk request: it may say all the same what was done

_decoder = msgspec.json.Decoder(_Told)
_order_decoder = msgspec.json.Decoder(_OrderTold)
_element_decoder = msgspec.json.Decoder(_Element)
_many_decoder = msgspec.json.Decoder(_ManyTold)


class Sender:
    """Belongs to one client. `phase` of a request is told by whoever sends it."""

    def __init__(self, connection: HttpConnection, result: LoadResult) -> None:
        self._connection = connection
        self._result = result
        self._numbers = 0
        self.unreachable = False  # the last request found no server

    async def place(self, wish: Wish, scheduled_ns: int, phase: str) -> ClientOrder | None:
        """The order when it was taken. Raises nothing: what goes wrong is counted in the result."""
        self._result.members.add(wish.member)
        body = msgspec.json.encode({"order": _request(wish)})
        try:
            answer = await self._exchange(b"POST", b"/api/v1/orders", wish.member, body)
        except ExchangeFailed as failure:
            self._result.count_failure(
                Unanswered(reason=failure.reason, possible=failure.sent, wish=wish)
            )
            return None
        self._count(answer, scheduled_ns, phase, wish.symbol)
        if answer.status != 201:
            self._not_done(answer, wish=wish)
            return None
        return self._believe(answer, wish, phase)

    async def cancel(self, member: int, order_id: int, scheduled_ns: int, phase: str) -> bool:
        """Whether the answer says that it is cancelled now. Raises nothing."""
        order = self._result.orders[order_id]
        target = b"/api/v1/orders/%d" % order_id
        try:
            answer = await self._exchange(b"DELETE", target, member, b"")
        except ExchangeFailed as failure:
            self._result.count_failure(
                Unanswered(reason=failure.reason, possible=failure.sent, order_id=order_id)
            )
            return False
        self._count(answer, scheduled_ns, phase, order.wish.symbol)
        if answer.status == 422:
            order.closed = True  # filled meanwhile
            return False
        if answer.status != 200:
            self._not_done(answer, order_id=order_id)
            return False
        told = self._read(answer)
        if told is None:
            return False
        self._canceled(order, told)
        return True

    async def bulk(
        self, member: int, wish: BulkWish, scheduled_ns: int, phase: str
    ) -> list[ClientOrder]:
        """The orders that were taken. Raises nothing."""
        self._result.members.add(member)
        method, target, body = _bulk_request(wish)
        try:
            answer = await self._exchange(method, target, member, body)
        except ExchangeFailed as failure:
            reason = failure.reason
            self._result.failed[reason] = self._result.failed.get(reason, 0) + 1
            self._no_part(wish, reason, possible=failure.sent)
            return []
        # Apart from the others: their latencies are of several orders, and of both sides perhaps.
        self._count(answer, scheduled_ns, phase, f"{wish.symbol} in bulk")
        done = 201 if wish.places else 200
        if answer.status not in (done, _CUT_SHORT):
            self._no_part(wish, f"status {answer.status}", possible=_may_be_done(answer.status))
            return []
        parts = self._parts(answer, wish)
        if parts is None:
            self._no_part(wish, f"status {answer.status}", possible=True)
        elif wish.places:
            return self._taken(parts, wish, phase)
        elif wish.cancels:
            for order_id, part in zip(wish.cancels, parts, strict=True):
                self._told_of_cancel(order_id, part)
        else:
            self._all_canceled(member, wish, parts, is_all=answer.status == done)
        return []

    def _parts(self, answer: HttpAnswer, wish: BulkWish) -> list[_Part] | None:
        """None: nothing can be learnt from it."""
        try:
            raw = _many_decoder.decode(answer.body).orders
            elements = [_element_decoder.decode(part) for part in raw]
            parts = [
                _order_decoder.decode(part) if element.errors is None else element
                for part, element in zip(raw, elements, strict=True)
            ]
        except msgspec.DecodeError as error:
            if answer.status != _CUT_SHORT:  # else the proxy may have nothing to list
                self._wrong(f"an answer can't be read: {error}: {answer.body[:200]!r}")
            return None
        asked = len(wish.places) + len(wish.cancels)
        if asked and len(parts) != asked:
            self._wrong(f"{wish} was answered with {len(parts)} orders")
            return None
        return parts

    def _taken(self, parts: list[_Part], wish: BulkWish, phase: str) -> list[ClientOrder]:
        taken = []
        for part, asked in zip(parts, wish.places, strict=True):
            if isinstance(part, _OrderTold):
                taken.append(self._believed(part, asked, phase))
                continue
            reason = f"in a list: {part.errors}"
            refused = Unanswered(reason=reason, possible=part.says(_UNKNOWN), wish=asked)
            self._result.unanswered.append(refused)
        return taken

    def _told_of_cancel(self, order_id: int, part: _Part) -> None:
        order = self._result.orders[order_id]
        if isinstance(part, _OrderTold):
            self._canceled(order, part)
        elif "state" in (part.errors or {}):
            order.closed = True  # filled meanwhile
        elif part.says(_NOT_FOUND):
            self._wrong(f"order {order_id} was not found")
        else:
            unanswered = Unanswered(
                reason=f"in a list: {part.errors}", possible=part.says(_UNKNOWN), order_id=order_id
            )
            self._result.unanswered.append(unanswered)

    def _all_canceled(
        self, member: int, wish: BulkWish, parts: list[_Part], *, is_all: bool
    ) -> None:
        """Orders of which the client was never told may be among them."""
        told = {part.id: part for part in parts if isinstance(part, _OrderTold)}
        if [one.id for one in parts if isinstance(one, _OrderTold)] != sorted(told):
            self._wrong(f"a cancel of everything was answered with orders {list(told)}")
        if is_all and len(told) != len(parts):
            self._wrong(f"a cancel of everything was answered with {len(parts)} parts")
        for order_id, part in told.items():
            if part.market != wish.symbol:
                self._wrong(f"the cancel of {wish.symbol} was answered with {part}")
            if order_id in self._result.orders:
                self._canceled(self._result.orders[order_id], part)
        if not is_all:
            return
        for order in self._result.orders.values():
            if (order.wish.member, order.wish.symbol) == (member, wish.symbol):
                order.closed = True

    def _no_part(self, wish: BulkWish, reason: str, *, possible: bool) -> None:
        for one in wish.places:
            unanswered = Unanswered(reason=reason, possible=possible, wish=one)
            self._result.unanswered.append(unanswered)
        for order_id in wish.cancels:
            unanswered = Unanswered(reason=reason, possible=possible, order_id=order_id)
            self._result.unanswered.append(unanswered)

    def _canceled(self, order: ClientOrder, told: _OrderTold) -> None:
        if order.cancelled_remaining is not None:
            self._wrong(f"order {order.order_id} was told twice as cancelled now")
        order.cancelled_remaining = told.remaining_quantity
        if told.state != "cancelled" or told.id != order.order_id:
            self._wrong(f"cancel of order {order.order_id} was answered with {told}")

    def _wrong(self, text: str) -> None:
        self._result.wrong.append(text)

    def close(self) -> None:
        self._connection.close()

    async def _exchange(self, method: bytes, target: bytes, member: int, body: bytes) -> HttpAnswer:
        self._numbers += 1
        self._result.requests += 1
        headers = b"X-Member-Id: %d\r\nX-Request-Id: %b\r\nAccept: application/json\r\n" % (
            member,
            _request_id(member, self._numbers).encode(),
        )
        if body:
            kind = b"application/json" if body[:1] == b"{" else b"application/x-www-form-urlencoded"
            headers += b"Content-Type: %b\r\n" % kind
        try:
            answer = await self._connection.exchange(method, target, headers, body)
        except ExchangeFailed as failure:
            self.unreachable = not failure.sent
            raise
        self.unreachable = False
        return answer

    def _count(self, answer: HttpAnswer, scheduled_ns: int, phase: str, symbol: str) -> None:
        latency_us = (answer.answered_ns - scheduled_ns) // 1000
        self._result.count_answer(answer.status, time.time(), phase, symbol, latency_us)

    def _not_done(self, answer: HttpAnswer, wish: Wish | None = None, order_id: int = 0) -> None:
        self._result.unanswered.append(
            Unanswered(
                reason=f"status {answer.status}",
                possible=_may_be_done(answer.status),
                wish=wish,
                order_id=order_id,
            )
        )

    def _read(self, answer: HttpAnswer) -> _OrderTold | None:
        try:
            return _decoder.decode(answer.body).order
        except msgspec.DecodeError as error:
            self._wrong(f"an answer can't be read: {error}: {answer.body[:200]!r}")
            return None

    def _believe(self, answer: HttpAnswer, wish: Wish, phase: str) -> ClientOrder | None:
        told = self._read(answer)
        return self._believed(told, wish, phase) if told is not None else None

    def _believed(self, told: _OrderTold, wish: Wish, phase: str) -> ClientOrder:
        if told.id in self._result.orders:
            self._wrong(f"order id {told.id} was told twice")
        if _contradicts(told, wish):
            self._wrong(f"{wish} was answered with {told}")
        order = ClientOrder(
            order_id=told.id,
            wish=wish,
            phase=phase,
            state=told.state,
            remaining=told.remaining_quantity,
            fills=told.trades,
            request=_request_id(wish.member, self._numbers),
        )
        self._result.orders[told.id] = order
        return order


def _request_id(member: int, number: int) -> str:
    return f"load-{member}-{number}"


def _may_be_done(status: int) -> bool:
    """503 is a promise: nothing was done, and the same request may be sent again."""
    return status >= 500 and status != 503


def _bulk_request(wish: BulkWish) -> tuple[bytes, bytes, bytes]:
    if wish.places:
        body = msgspec.json.encode({"orders": [_request(one) for one in wish.places]})
        return b"POST", b"/api/v1/orders/batch", body
    if wish.cancels:
        if wish.cancels[0] % 2:  # as a browser's form would, every other one
            ids = b"".join(b"&ids[]=%d" % one for one in wish.cancels)
            return b"POST", b"/api/v1/orders/batch", b"_method=delete" + ids
        return b"DELETE", b"/api/v1/orders/batch", msgspec.json.encode({"ids": wish.cancels})
    return b"DELETE", b"/api/v1/orders?market=" + wish.symbol.encode(), b""


def _request(wish: Wish) -> dict[str, str]:
    fields = {"market": wish.symbol, "side": wish.side, "order_type": wish.order_type}
    if wish.price is not None:
        fields |= {"time_in_force": wish.time_in_force, "price": f"{wish.price:f}"}
    return fields | {"quantity": f"{wish.quantity:f}"}


def _contradicts(told: _OrderTold, wish: Wish) -> bool:
    echoed = (told.market, told.side, told.order_type, told.time_in_force, told.price)
    asked = (wish.symbol, wish.side, wish.order_type, wish.time_in_force, wish.price)
    filled = sum((fill.quantity for fill in told.trades), Decimal(0))
    return (
        echoed != asked
        or told.quantity != wish.quantity
        or told.filled_quantity != filled
        or told.remaining_quantity != told.quantity - filled
    )
