"""What the shadow process waits for before it compares anything."""

from __future__ import annotations

import asyncio
import logging

import pytest
from legacy_side import MAPPING
from msgspec.structs import replace

from bridge.shadowing import patiently_resolved


def test_who_waits_for_the_table_of_instruments_can_be_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    symbol = replace(MAPPING.orders.symbol, table="markets")
    mapping = replace(MAPPING, orders=replace(MAPPING.orders, symbol=symbol))

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stop.set()

    async def main() -> None:
        async with asyncio.timeout(30):
            assert await patiently_resolved("postgresql://u@127.0.0.1:1/x", mapping, stop) is None

    stop = asyncio.Event()
    logger = logging.getLogger("bridge.shadowing")
    heard = Heard()
    logger.addHandler(heard)
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(heard)
    assert "waits for the table of instruments" in caplog.text
