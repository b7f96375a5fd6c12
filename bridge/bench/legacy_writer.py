"""The monolith of `bench legacy`: a sandbox exchange whose server writes matched orders by itself,
at full speed or at a rate, in transactions of the size that orders have.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

import bridge.sandbox
from bridge.config import Config, load
from bridge.fence import install_sql, polling_sql
from bridge.sandbox.provision import as_role, provision
from bridge.sandbox.servers import EmbeddedPostgres

CONFIG: Config = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
SYMBOLS = ("BTC-USD", "ETH-USD")
CHANGES_PER_PAIR = 4  # an order that rests; then one that fills it: its row, the fill, the maker's
COMMITS_PER_PAIR = 2

_PROCEDURE = """
CREATE PROCEDURE bench_trade(symbol text, pairs bigint, pairs_per_s float8)
LANGUAGE plpgsql AS $$
DECLARE
    began constant timestamptz := clock_timestamp();
    maker bigint;
    taker bigint;
BEGIN
    FOR pair IN 1 .. pairs LOOP
        IF pairs_per_s > 0 THEN
            PERFORM pg_sleep(extract(epoch FROM
                began + make_interval(secs => pair / pairs_per_s) - clock_timestamp()));
        END IF;
        INSERT INTO orders (market_id, member_id, side, order_type, time_in_force, price, quantity,
                remaining_quantity, state, created_at, updated_at)
            VALUES (symbol, 1, 1, 0, 0, 236.47, 2, 2, 0, clock_timestamp(), clock_timestamp())
            RETURNING id INTO maker;
        COMMIT;
        INSERT INTO orders (market_id, member_id, side, order_type, time_in_force, price, quantity,
                remaining_quantity, state, created_at, updated_at)
            VALUES (symbol, 2, 0, 0, 0, 236.47, 2, 0, 1, clock_timestamp(), clock_timestamp())
            RETURNING id INTO taker;
        INSERT INTO trades (market_id, maker_order_id, taker_order_id, price, quantity, taker_side,
                created_at, updated_at)
            VALUES (symbol, maker, taker, 236.47, 2, 0, clock_timestamp(), clock_timestamp());
        UPDATE orders SET remaining_quantity = 0, state = 1, updated_at = clock_timestamp()
            WHERE id = maker;
        COMMIT;
    END LOOP;
END $$"""


class Monolith:
    def __init__(self, server: EmbeddedPostgres) -> None:
        provision(server.url())
        self.application_url = as_role(server.url("exchange"), "exchange")
        self.url = as_role(server.url("exchange"), "railswitch")
        with psycopg.connect(self.application_url, autocommit=True) as connection:
            script = install_sql(CONFIG.mapping, CONFIG.legacy.publication, "railswitch")
            connection.execute(script.encode())
            connection.execute(_PROCEDURE)

    def install_polling(self) -> None:
        with psycopg.connect(self.application_url, autocommit=True) as connection:
            connection.execute(polling_sql(CONFIG.mapping, "railswitch").encode())

    async def trade(self, changes: int, *, changes_per_s: float = 0.0) -> int:
        """Returns how many changes were written, both instruments together. 0: at full speed, and
        not waiting for the disk.
        """
        pairs = max(1, changes // CHANGES_PER_PAIR // len(SYMBOLS))
        pairs_per_s = changes_per_s / CHANGES_PER_PAIR / len(SYMBOLS)
        await asyncio.gather(
            *(asyncio.to_thread(self._trade, one, pairs, pairs_per_s) for one in SYMBOLS)
        )
        return pairs * CHANGES_PER_PAIR * len(SYMBOLS)

    def _trade(self, symbol: str, pairs: int, pairs_per_s: float) -> None:
        with psycopg.connect(self.application_url, autocommit=True) as connection:
            if not pairs_per_s:
                connection.execute("SET synchronous_commit = off")
            connection.execute("CALL bench_trade(%s, %s, %s)", [symbol, pairs, pairs_per_s])
