"""`railswitch init` on the Rails exchange: its own migration's tables, its own routes."""

from __future__ import annotations

import os
import subprocess

import onboard_world as world
import psycopg
import pytest
from onboard_rig import loaded, written
from running_rails import APPLICATION, rails_program

from bridge.onboard import routes as routes_of
from shadow.legacy.mapping import Symbol

# What `bin/rails routes` does, where there is no bin/rails.
_ROUTES = """
require "./config/environment"
require "action_dispatch/routing/inspector"
forms = ActionDispatch::Routing::ConsoleFormatter
form = ARGV.first == "expanded" ? forms::Expanded.new(width: 60) : forms::Sheet.new
puts ActionDispatch::Routing::RoutesInspector.new(Rails.application.routes.routes).format(form)
"""
_COLUMNS = (
    "SELECT table_name, column_name, data_type, numeric_scale FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name IN ('orders', 'trades', 'markets')"
    " ORDER BY 1, 2"
)


def routes(form: str) -> str:
    rails_program()
    url = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    return subprocess.run(
        ["ruby", "-e", _ROUTES, form],
        cwd=APPLICATION,
        env={**os.environ, **url},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("form", ["sheet", "expanded"])
def test_its_routes(form: str) -> None:
    found = routes_of.read(routes(form))
    assert {(one.action, one.method, one.path) for one in found.proposed} == {
        ("place", "POST", "/orders"),
        ("cancel", "DELETE", "/orders/:id"),
        ("place", "POST", "/api/v1/orders"),
        ("read", "GET", "/api/v1/orders/:id"),
        ("cancel", "DELETE", "/api/v1/orders/:id"),
    }


def test_its_tables_are_those_that_are_tried_without_rails(
    exchange_database: str, database: str
) -> None:
    world.execute(database, (world.HERE / "bridge/onboard_rails.sql").read_text())
    with psycopg.connect(exchange_database) as theirs, psycopg.connect(database) as ours:
        assert theirs.execute(_COLUMNS).fetchall() == ours.execute(_COLUMNS).fetchall()


def test_the_file_for_it(exchange_database: str) -> None:
    with psycopg.connect(exchange_database) as connection:
        ids = dict(connection.execute("SELECT symbol, id FROM markets").fetchall())
    names = zip(world.MARKETS, ("BTC-USD", "ETH-USD"), strict=True)
    world.rails_orders(exchange_database, {ours: ids[theirs] for ours, theirs in names})
    one = written(exchange_database, routes("sheet"))
    config = loaded(one)
    orders = config.mapping.orders
    assert orders.symbol == Symbol(column="market_id", table="markets", key="id", name="symbol")
    assert orders.status.map == {"100": "open", "200": "filled", "-100": "canceled"}
    assert orders.ord_type.map == {"1": "limit", "2": "market"}
    assert [(its.symbol, its.tick, its.lot) for its in config.instruments] == [
        ("BTC-USD", "0.01", "0.00000001"),
        ("ETH-USD", "0.01", "0.00000001"),
        ("SOL-USD", "0.001", "0.0001"),
    ]
    assert {found.key for found in one.recognised.decisions} == {
        "mapping.orders.tif.map.0",
        "mapping.orders.tif.map.1",
    }
