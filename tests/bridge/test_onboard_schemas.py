"""`railswitch init` on four monoliths: what it claims is so, and the file loads once decided."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import onboard_world as world
import pytest
from onboard_rig import loaded, written

from bridge import config
from bridge.errors import ConfigError
from bridge.sandbox.load import Load
from bridge.sandbox.provision import RAILSWITCH_ROLE, as_role
from bridge.undecided import undecided
from shadow.legacy.mapping import Enumerated, Symbol
from shadow.legacy.shorthand import expanded

sys.path.insert(0, str(world.HERE / "legacies"))

from peatio import Exchange, Generation, Settings
from peatio_rows import Rows

SANDBOX = Path(__file__).parents[2] / "bridge/sandbox/railswitch.toml"
RAILS_ROUTES = """\
 api_v1_orders POST   /api/v1/orders(.:format)      api/v1/orders#create
  api_v1_order GET    /api/v1/orders/:id(.:format)  api/v1/orders#show
               DELETE /api/v1/orders/:id(.:format)  api/v1/orders#destroy
"""
PEATIO_ROUTES = """\
POST  /api/v2/market/orders
POST  /api/v2/market/orders/:id/cancel
"""


def test_the_sandbox(legacy_database: str) -> None:
    world.sandbox(legacy_database)
    one = written(as_owner(legacy_database), RAILS_ROUTES)
    assert "mapping.orders.tif.map.0" in one.open
    assert not {key for key in one.open if key.startswith(("mapping.fills", "instruments"))}
    assert one.confidence("mapping.orders.status.map.2") == "certain"
    mapping = loaded(one).mapping
    sandbox = config.parse(SANDBOX.read_text(), source="x").mapping
    assert msgspec.structs.replace(mapping.fills, maker_rule="resting") == sandbox.fills
    assert mapping.orders == sandbox.orders


def as_owner(url: str) -> str:
    return as_role(url, "exchange")


def test_the_sandbox_filled_by_its_own_load(legacy_database: str, monolith: str) -> None:
    """Whatever it claims after a few seconds of trade is what the sandbox's own file says."""

    async def trade() -> None:
        load = Load(monolith, rate_per_s=None, clients=8)
        load.phase("all")
        await load.start()
        await asyncio.sleep(1.0)
        await load.stop()

    asyncio.run(trade())
    one = written(as_owner(legacy_database))
    known = dict(flat(expanded_file(SANDBOX.read_text())))
    claimed = {
        key: value
        for key, value in flat(expanded_file(one.text))
        if value != "DECIDE" and key.startswith(("mapping.orders", "mapping.fills", "instruments"))
    }
    assert len(claimed) > 30
    assert {key: value for key, value in claimed.items() if known.get(key, value) != value} == {}
    assert {key for key in claimed if key not in known} <= {"mapping.fills.maker_rule"}


def flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and path != "mapping.orders.priority":
        inner = dict(enumerate(value)).items()
    else:
        return [(path, value)]
    return [one for key, v in inner for one in flat(v, f"{path}.{key}" if path else str(key))]


def test_the_rails_application(database: str) -> None:
    world.rails(database)
    one = written(database, RAILS_ROUTES)
    assert one.open & {key for key in one.open if key.startswith("mapping.orders")} == {
        "mapping.orders.tif.map.0",
        "mapping.orders.tif.map.1",
    }
    mapping = loaded(one).mapping
    orders = mapping.orders
    assert orders.symbol == Symbol(column="market_id", table="markets", key="id", name="symbol")
    assert orders.side == Enumerated(column="side", map={"bid": "buy", "ask": "sell"})
    assert orders.ord_type.map == {"1": "limit", "2": "market"}
    assert orders.tif.map == {"0": "gtc", "1": "ioc"}
    assert orders.status.map == {"100": "open", "200": "filled", "-100": "canceled"}
    assert (orders.quantity.column, orders.leaves.column) == ("quantity", "remaining")
    assert (mapping.fills.maker_order, mapping.fills.maker_account) == (
        "maker_order_id",
        "maker_id",
    )
    assert mapping.matching == "in_transaction"
    assert [route.path for route in mapping.routes][:1] == ["/api/v1/orders"]
    assert one.recognised.unfilled == ("source",)
    assert [part.table for part in one.recognised.parts] == [
        "orders",
        "trades",
        "markets",
        "accounts",
    ]


def test_peatio_3(database: str) -> None:
    world.peatio_3(database)
    one = written(database, PEATIO_ROUTES)
    mapping = loaded(one).mapping
    orders, fills = mapping.orders, mapping.fills
    assert orders.symbol == Symbol(column="market_id")
    assert (orders.quantity.column, orders.leaves.column) == ("origin_volume", "volume")
    assert orders.side == Enumerated(column="type", map={"OrderBid": "buy", "OrderAsk": "sell"})
    assert orders.tif == Enumerated(other="gtc")
    assert orders.status.map == {"100": "open", "200": "filled", "-100": "canceled"}
    assert (fills.maker_order, fills.taker_order) == ("maker_order_id", "taker_order_id")
    assert (fills.maker_account, fills.taker_account) == ("maker_id", "taker_id")
    assert (fills.quantity.column, fills.total.column) == ("amount", "total")
    assert fills.taker_side == Enumerated(column="taker_type", map={"buy": "buy", "sell": "sell"})
    assert "mapping.matching" in one.open
    assert mapping.matching == "later"
    assert [(one.symbol, one.tick, one.lot) for one in loaded(one).instruments] == [
        ("btcusd", "0.01", "0.0001"),
        ("ethusd", "0.01", "0.0001"),
    ]
    assert "market_type is spot in every row seen" in one.text


def test_peatio_2015(database: str) -> None:
    world.peatio_2015(database)
    one = written(database, PEATIO_ROUTES)
    assert {"mapping.orders.symbol.map.3", "instruments.0.symbol"} <= one.open
    named = {"3": '"btccny"', "4": '"ethcny"'}
    answers = {
        f"mapping__{part}__symbol__map__{n}": name
        for part in ("orders", "fills")
        for n, name in named.items()
    }
    answers |= {"instruments__0__symbol": '"btccny"', "instruments__1__symbol": '"ethcny"'}
    mapping = loaded(one, **answers).mapping
    orders, fills = mapping.orders, mapping.fills
    assert orders.symbol == Symbol(column="currency", map={"3": "btccny", "4": "ethcny"})
    assert orders.status.map == {"100": "open", "200": "filled", "0": "canceled"}
    assert (fills.buy_order, fills.sell_order) == ("bid_id", "ask_id")
    assert (fills.buy_account, fills.sell_account) == ("bid_member_id", "ask_member_id")
    assert fills.maker_rule == "lower_id"
    assert fills.taker_side == Enumerated()  # the trend is no side
    assert fills.total.column == "funds"


@pytest.mark.parametrize("name", ["sandbox", "rails", "peatio_3", "peatio_2015"])
def test_what_is_open_is_refused_all_at_once_with_its_line(
    name: str, database: str, legacy_database: str
) -> None:
    url = legacy_database if name == "sandbox" else database
    getattr(world, name)(url)
    one = written(as_owner(url) if name == "sandbox" else url)
    still = list(undecided(tomllib.loads(one.text)))
    assert len(still) == len(one.open)
    with pytest.raises(ConfigError) as caught:
        config.parse(one.text, source="railswitch.toml")
    said = str(caught.value).splitlines()
    assert len(said) == len(still)
    for path, sentence in zip(still, said, strict=True):
        assert f"`{path}`" in sentence
        line = int(sentence.split(":")[1])
        assert "DECIDE" in one.text.splitlines()[line - 1]


@pytest.mark.parametrize("generation", ["3", "2015"])
def test_peatio_as_its_daemons_write_it(generation: Generation, database: str) -> None:
    """Whatever is claimed of it is what its own railswitch.toml says, and the rest is asked."""
    folder, rows = world.HERE / "legacies", Rows(generation)
    committed = Exchange(1, Settings(generation=generation)).run(1_500)
    world.execute(
        database,
        (folder / f"peatio_{generation}.sql").read_text(),
        rows.schema(),
        "".join(rows.transaction(one.writes, one.at_ms) for one in committed),
    )
    one = written(database)
    known = dict(flat(expanded_file((folder / f"peatio_{generation}.toml").read_text())))
    ours = dict(flat(expanded_file(one.text)))
    claimed = {
        key: value
        for key, value in ours.items()
        if value != "DECIDE" and key.startswith(("mapping.orders.", "mapping.fills."))
    }
    assert len(claimed) > 25
    assert {key: value for key, value in claimed.items() if known.get(key) != value} == {}
    asked = {"mapping.matching", "mapping.market_buy", "mapping.orders.priority"}
    assert asked <= one.open


def expanded_file(text: str) -> dict[str, Any]:
    data = tomllib.loads(text)
    return data | {"mapping": expanded(data["mapping"])}


def test_every_line_says_how_sure_it_is(database: str) -> None:
    world.peatio_3(database)
    lines = written(database).text.splitlines()
    sure = ("# certain: ", "# likely: ")
    for before, line in itertools.pairwise(lines):
        if " = " in line and not line.startswith("#"):
            told = any(one in line for one in sure) or before.startswith(sure)
            assert told or line.endswith('"DECIDE"'), line


def test_a_role_that_may_only_read_is_enough(legacy_database: str) -> None:
    world.sandbox(legacy_database)
    world.execute(legacy_database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO railswitch")
    one = written(as_role(legacy_database, RAILSWITCH_ROLE))
    assert one.recognised.is_exchange
