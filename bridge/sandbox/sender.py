"""One client's requests to the exchange: sends them, and writes down what it was told."""

from __future__ import annotations

import time
from decimal import Decimal

import msgspec

from bridge.sandbox.client import ExchangeFailed, HttpAnswer, HttpConnection
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


_decoder = msgspec.json.Decoder(_Told)


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
        if answer.status != 200:
            if answer.status != 422:  # 422: filled meanwhile
                self._not_done(answer, order_id=order_id)
            return False
        told = self._read(answer)
        if told is None:
            return False
        order.cancelled_remaining = told.remaining_quantity
        if told.state != "cancelled" or told.id != order_id:
            self._result.wrong.append(f"cancel of order {order_id} was answered with {told}")
        return True

    def close(self) -> None:
        self._connection.close()

    async def _exchange(self, method: bytes, target: bytes, member: int, body: bytes) -> HttpAnswer:
        self._numbers += 1
        self._result.requests += 1
        headers = b"X-Member-Id: %d\r\nX-Request-Id: load-%d-%d\r\nAccept: application/json\r\n" % (
            member,
            member,
            self._numbers,
        )
        if body:
            headers += b"Content-Type: application/json\r\n"
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
                possible=answer.status >= 500,
                wish=wish,
                order_id=order_id,
            )
        )

    def _read(self, answer: HttpAnswer) -> _OrderTold | None:
        try:
            return _decoder.decode(answer.body).order
        except msgspec.DecodeError as error:
            self._result.wrong.append(f"an answer can't be read: {error}: {answer.body[:200]!r}")
            return None

    def _believe(self, answer: HttpAnswer, wish: Wish, phase: str) -> ClientOrder | None:
        told = self._read(answer)
        if told is None:
            return None
        if told.id in self._result.orders:
            self._result.wrong.append(f"order id {told.id} was told twice")
        if _contradicts(told, wish):
            self._result.wrong.append(f"{wish} was answered with {told}")
        order = ClientOrder(
            order_id=told.id,
            wish=wish,
            phase=phase,
            state=told.state,
            remaining=told.remaining_quantity,
            fills=told.trades,
        )
        self._result.orders[told.id] = order
        return order


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
