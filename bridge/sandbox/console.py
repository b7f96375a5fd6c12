"""The console fault: someone at a Rails console writes orders that no proxy ever sees."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from random import Random

import psycopg

from bridge.sandbox.exchange import Exchange
from bridge.sandbox.params import MarketRules, NewOrder

CONSOLE_MEMBER = 100
_log = logging.getLogger(__name__)
_FIRST_PRICE = Decimal(100)


async def write_orders(
    exchange: Exchange, rules: MarketRules, per_s: float, chance: Random
) -> None:
    """Limit orders around the last trade, `per_s` on average at random moments; until cancelled."""
    while True:
        await asyncio.sleep(chance.expovariate(per_s))
        try:
            latest = await exchange.trades(rules.symbol)
            middle = latest[0]["price"] if latest else _FIRST_PRICE
            await exchange.place(_order(rules, middle, chance))
        except psycopg.Error as error:
            _log.warning("the console could not write a %s order: %s", rules.symbol, error)


def _order(rules: MarketRules, middle: Decimal, chance: Random) -> NewOrder:
    offset = middle * chance.randint(-20, 20) / 10_000
    return NewOrder(
        market=rules.symbol,
        member=CONSOLE_MEMBER,
        side=chance.randint(0, 1),
        order_type=0,
        time_in_force=0,
        price=max(rules.tick, ((middle + offset) // rules.tick) * rules.tick),
        quantity=rules.lot * chance.randint(1, 10_000),
    )
