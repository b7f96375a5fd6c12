"""What the audit reads of the Rails exchange: its tables in the clients' words, and the journal."""

from __future__ import annotations

import psycopg
from rails_world import RailsWorld

from bridge.sandbox.audit import AuditResult, audit
from bridge.sandbox.audit_rows import Fill, LegacyOrder, LegacyRows, LegacyTrade
from bridge.sandbox.demo_audit import journal_events
from bridge.sandbox.told import LoadResult, Wish
from shadow.legacy.convert import scales

_ORDERS = """
    SELECT o.id, m.symbol, o.member_id,
        CASE o.side WHEN 'bid' THEN 'buy' WHEN 'ask' THEN 'sell' END,
        CASE o.order_type WHEN 1 THEN 'limit' WHEN 2 THEN 'market' END,
        CASE o.time_in_force WHEN 0 THEN 'gtc' WHEN 1 THEN 'ioc' END,
        o.price, o.quantity, o.remaining,
        CASE o.state WHEN 100 THEN 'open' WHEN 200 THEN 'filled' WHEN -100 THEN 'cancelled' END
    FROM orders o JOIN markets m ON m.id = o.market_id
"""
_TRADES = """
    SELECT m.symbol, t.taker_order_id, t.maker_order_id, t.price, t.quantity,
        CASE t.taker_side WHEN 'bid' THEN 'buy' WHEN 'ask' THEN 'sell' END
    FROM trades t JOIN markets m ON m.id = t.market_id ORDER BY t.id
"""
# Trades that contradict their own orders: whose they are, what they cost, when.
_WRONG_TRADES = """
    SELECT t.id FROM trades t
    JOIN orders maker ON maker.id = t.maker_order_id
    JOIN orders taker ON taker.id = t.taker_order_id
    WHERE (t.maker_id, t.taker_id, t.taker_side, t.market_id)
            IS DISTINCT FROM (maker.member_id, taker.member_id, taker.side, taker.market_id)
        OR maker.market_id <> taker.market_id OR maker.side = taker.side
        OR t.total <> t.price * t.quantity
        OR t.price <> maker.price OR t.created_at < maker.created_at
"""


async def audited(world: RailsWorld, results: list[LoadResult]) -> AuditResult:
    """When write-back has caught up."""
    events = await journal_events(world)
    with psycopg.connect(world.database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        rows = LegacyRows(
            orders={row[0]: _order(*row[1:]) for row in connection.execute(_ORDERS)},
            trades=tuple(_trade(*row) for row in connection.execute(_TRADES)),
        )
        assert connection.execute(_WRONG_TRADES).fetchall() == []
    return audit(results, rows, events, scales(world.config.instruments))


def _order(*values: object) -> LegacyOrder:
    *asked, remaining, state = values
    names = ("symbol", "member", "side", "order_type", "time_in_force", "price", "quantity")
    wish = Wish(**dict(zip(names, asked, strict=True)))  # type: ignore[arg-type]
    return LegacyOrder(wish=wish, remaining=remaining, state=state)  # type: ignore[arg-type]


def _trade(symbol: str, taker: int, maker: int, *fill_and_side: object) -> LegacyTrade:
    price, quantity, side = fill_and_side
    fill = Fill(price, quantity, maker)  # type: ignore[arg-type]
    return LegacyTrade(symbol=symbol, taker_order_id=taker, taker_side=str(side), fill=fill)
