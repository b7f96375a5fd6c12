"""What the daemons of `peatio` decide, as rows in a database with one of its two schemas."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from peatio import Generation, Order, Write

TICK, LOT = Decimal("0.01"), Decimal("0.0001")
_STATES = {
    "3": {"pending": 0, "wait": 100, "done": 200, "cancel": -100},
    "2015": {"wait": 100, "done": 200, "cancel": 0},
}


class Rows:
    """SQL of one transaction after the other; all values are numbers and words of our own."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._begin = datetime.now(UTC).replace(tzinfo=None)

    def schema(self) -> str:
        """Of what is there before the first order."""
        now = f"'{self._begin}'"
        accounts = "".join(self._account(member, now) for member in range(1, 6))
        if self._generation == "2015":
            return accounts
        return (
            f"INSERT INTO engines (name, driver) VALUES ('peatio', 'peatio');"
            f"INSERT INTO markets (symbol, base_unit, quote_unit, engine_id, position, created_at,"
            f" updated_at) VALUES ('btcusd', 'btc', 'usd', 1, 1, {now}, {now});{accounts}"
        )

    def transaction(self, writes: list[Write], at_ms: int) -> str:
        """Statements that PostgreSQL runs as one transaction."""
        now = f"'{self._begin + timedelta(milliseconds=at_ms)}'"
        return "".join(self._statements(one, now) for one in writes)

    def _account(self, member: int, now: str) -> str:
        if self._generation == "3":
            return "".join(
                "INSERT INTO accounts (member_id, currency_id, balance, created_at, updated_at)"
                f" VALUES ({member}, '{unit}', 1000000, {now}, {now});"
                for unit in ("btc", "usd")
            )
        return "".join(
            "INSERT INTO accounts (member_id, currency, balance, locked, created_at, updated_at)"
            f" VALUES ({member}, {code}, 1000000, 0, {now}, {now});"
            for code in (1, 2)
        )

    def _statements(self, write: Write, now: str) -> str:
        if write.verb == "insert":
            return self._insert(write.order, now)
        if write.verb == "trade":
            return self._trade(write, now)
        order = write.order
        done = f", done_at = {now}" if self._generation == "2015" and order.state == "done" else ""
        return (
            f"UPDATE orders SET state = {self._state(order)}, volume = {order.volume * LOT},"
            f" locked = {_money(order, order.locked)}, funds_received = {_received(order)},"
            f" trades_count = {order.trades_count}, updated_at = {now}{done}"
            f" WHERE id = {order.id};{self._lock(order, now)}"
        )

    def _insert(self, order: Order, now: str) -> str:
        kind = "OrderBid" if order.side == "buy" else "OrderAsk"
        price = "NULL" if order.price is None else order.price * TICK
        own, values = "market_id", f"'{order.market}'"
        bid, ask = "'usd'", "'btc'"
        if self._generation == "2015":
            own, values, bid, ask = "currency, source", "3, 'APIv2'", "1", "2"
        return (
            f"INSERT INTO orders (id, bid, ask, {own}, price, volume, origin_volume, state, type,"
            " member_id, ord_type, locked, origin_locked, created_at, updated_at) VALUES"
            f" ({order.id}, {bid}, {ask}, {values}, {price}, {order.volume * LOT},"
            f" {order.origin_volume * LOT}, {self._state(order)}, '{kind}', {order.member},"
            f" '{'limit' if order.price else 'market'}', {_money(order, order.locked)},"
            f" {_money(order, order.origin_locked)}, {now}, {now});"
        )

    def _lock(self, order: Order, now: str) -> str:
        """The worker that opens an order moves its money; the others are left out."""
        if order.state != "wait" or order.trades_count or self._generation == "2015":
            return ""
        unit = "usd" if order.side == "buy" else "btc"
        money = _money(order, order.origin_locked)
        return (
            f"UPDATE accounts SET balance = balance - {money}, locked = locked + {money}"
            f" WHERE member_id = {order.member} AND currency_id = '{unit}';"
            "INSERT INTO liabilities (code, currency_id, member_id, reference_type, reference_id,"
            f" debit, created_at, updated_at) VALUES (201, '{unit}', {order.member}, 'Order',"
            f" {order.id}, {money}, {now}, {now});"
        )

    def _trade(self, write: Write, now: str) -> str:
        trade, ask, bid = write.trade, write.order, write.bid
        assert trade is not None
        assert bid is not None
        price, amount = trade.price * TICK, trade.amount * LOT
        if self._generation == "2015":
            return (
                "INSERT INTO trades (price, volume, ask_id, bid_id, trend, currency, ask_member_id,"
                " bid_member_id, funds, created_at, updated_at) VALUES"
                f" ({price}, {amount}, {ask.id}, {bid.id}, 1, 3, {ask.member}, {bid.member},"
                f" {price * amount}, {now}, {now});"
            )
        maker, taker = (ask, bid) if trade.maker == ask.id else (bid, ask)
        return (
            "INSERT INTO trades (price, amount, total, maker_order_id, taker_order_id, market_id,"
            " maker_id, taker_id, taker_type, created_at, updated_at) VALUES"
            f" ({price}, {amount}, {price * amount}, {maker.id}, {taker.id}, '{ask.market}',"
            f" {maker.member}, {taker.member}, '{taker.side}', {now}, {now});"
        )

    def _state(self, order: Order) -> int:
        return _STATES[self._generation][order.state]


def _money(order: Order, amount: int) -> Decimal:
    return amount * TICK * LOT if order.side == "buy" else amount * LOT


def _received(order: Order) -> Decimal:
    return order.funds_received * (LOT if order.side == "buy" else TICK * LOT)
