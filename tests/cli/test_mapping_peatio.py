"""A monolith that matches later, and books the lower id as maker: its own mapping makes sense of
its rows, and another does not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from peatio import Exchange, Generation, Settings
from peatio_rows import Rows

from bridge.config import Config, load
from bridge.mapping_check import check
from shadow.legacy.audit_types import Audit, Weight

LEGACIES = Path(__file__).parents[1] / "legacies"
SYMBOLS = {"3": "btcusd", "2015": "btccny"}
replace = msgspec.structs.replace


def traded(database: str, generation: Generation) -> Config:
    """The configuration of a database in which such an exchange has traded."""
    config = load(LEGACIES / f"peatio_{generation}.toml")
    exchange = Exchange(4, Settings(generation=generation, market=SYMBOLS[generation]))
    rows = Rows(generation)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute((LEGACIES / f"peatio_{generation}.sql").read_bytes())
        connection.execute(rows.schema().encode())
        written = [rows.transaction(one.writes, one.at_ms) for one in exchange.run(600)]
        connection.execute("".join(written).encode())
        connection.execute("SELECT pg_sleep(0.6)")  # the last of them is dated so far ahead
    return replace(config, legacy=replace(config.legacy, database_url=database))


def with_orders(config: Config, **changes: Any) -> Config:
    orders = replace(config.mapping.orders, **changes)
    return replace(config, mapping=replace(config.mapping, orders=orders))


def checked(config: Config) -> Audit:
    return asyncio.run(check(config, last=10_000))


def problems(config: Config) -> set[str]:
    return {one.key for one in checked(config).oddities if one.weight is Weight.PROBLEM}


@pytest.mark.parametrize("generation", ["3", "2015"])
def test_its_own_mapping_has_no_finding_and_a_wrong_one_has(
    database: str, generation: Generation
) -> None:
    config = traded(database, generation)
    found = checked(config)
    assert found.oddities == ()
    assert found.fills > 100
    (told,) = found.instruments
    assert told.open_buys
    side = config.mapping.orders.side
    other = {value: "sell" if word == "buy" else "buy" for value, word in side.map.items()}
    swapped = with_orders(config, side=replace(side, map=other))
    assert "mapping.orders.side.map" in problems(swapped)
    left_out = {value: word for value, word in _status(config).items() if word != "filled"}
    status = replace(config.mapping.orders.status, map=left_out)
    assert "mapping.orders.status.map" in problems(with_orders(config, status=status))


def test_its_market_needs_the_rule_of_the_lower_id(database: str) -> None:
    config = traded(database, "3")
    fills = replace(config.mapping.fills, maker_rule="resting")
    wrong = replace(config, mapping=replace(config.mapping, fills=fills))
    assert "mapping.fills.maker_rule" in problems(wrong)


def _status(config: Config) -> dict[str, str]:
    return config.mapping.orders.status.map
