"""`railswitch init` as its users have it: the file, the summary, the exit codes."""

from __future__ import annotations

import stat
from pathlib import Path

import onboard_world as world
import pytest
from running_cli import railswitch, railswitch_process

from bridge.config import load
from bridge.sandbox.provision import as_role

ROUTES = """\
  Prefix Verb   URI Pattern               Controller#Action
  orders POST   /api/v1/orders(.:format)      api/v1/orders#create
   order DELETE /api/v1/orders/:id(.:format)  api/v1/orders#destroy
"""


@pytest.fixture
def exchange(legacy_database: str) -> str:
    world.sandbox(legacy_database)
    return as_role(legacy_database, "exchange")


def test_from_nothing_to_a_file_that_loads(exchange: str, tmp_path: Path) -> None:
    file, routes = tmp_path / "railswitch.toml", tmp_path / "routes.txt"
    routes.write_text(ROUTES)
    ran = railswitch(
        *("init", "--database-url", exchange, "--routes", str(routes), "--output", str(file)),
        *("--upstream", "http://127.0.0.1:3000"),
    )
    assert (ran.code, ran.err) == (0, "")
    assert "orders       orders   certain" in ran.out
    assert "2 of 2 routes are order entry" in ran.out
    assert "mapping.orders.tif.map.0" in ran.out
    assert f"railswitch doctor --config {file}" in ran.out
    assert "railswitch mapping check" in ran.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = railswitch("doctor", "--config", str(file))
    assert refused.code == 2
    assert f"{file}:" in refused.err
    assert "`mapping.identity_header` is still to be decided" in refused.err
    file.write_text(world.decided(file.read_text(), lambda key: None))
    loaded = load(file)
    assert loaded.legacy.database_url == exchange
    assert loaded.mapping.identity_header == "X-Member-Id"
    assert [route.action for route in loaded.mapping.routes] == ["place", "cancel"]
    checked = railswitch("mapping", "check", "--config", str(file))
    assert checked.code == 0, checked.out
    assert "0 problems" in checked.out


def test_for_programs(exchange: str, tmp_path: Path) -> None:
    file = tmp_path / "railswitch.toml"
    ran = railswitch("init", "--database-url", exchange, "--output", str(file), "--json")
    assert ran.code == 0
    found = {one["key"]: one for one in ran.json["findings"]}
    assert found["mapping.orders.side.map.0"]["confidence"] == "certain"
    assert found["mapping.orders.side.map.0"]["value"] == "buy"
    assert found["mapping.orders.tif.map.1"]["value"] is None
    assert "mapping.orders.tif.map.1" in ran.json["decisions"]
    assert {one["table"] for one in ran.json["looked"]} >= {"orders", "trades", "markets"}
    assert exchange not in ran.out


def test_a_file_that_is_there_is_kept(exchange: str, tmp_path: Path) -> None:
    file = tmp_path / "railswitch.toml"
    file.write_text("mine = true\n")
    words = ("init", "--database-url", exchange, "--output", str(file))
    ran = railswitch(*words)
    assert ran.code == 4
    assert "--force" in ran.err
    assert file.read_text() == "mine = true\n"
    assert railswitch(*words, "--force").code == 0
    assert "[mapping.orders]" in file.read_text()


def test_no_exchange_is_told_by_the_exit_code(database: str, tmp_path: Path) -> None:
    file = tmp_path / "railswitch.toml"
    ran = railswitch("init", "--database-url", database, "--output", str(file))
    assert ran.code == 1
    assert "no table's name and columns look like orders" in ran.out
    assert 'table = "DECIDE"' in file.read_text()


def test_a_password_in_the_url_is_never_shown(exchange: str, tmp_path: Path) -> None:
    url = exchange.replace("exchange@", "exchange:s3cret@")
    file = tmp_path / "railswitch.toml"
    for more in ((), ("--json", "--force")):
        ran = railswitch("init", "--database-url", url, "--output", str(file), *more)
        assert ran.code == 0
        assert "s3cret" not in ran.out + ran.err
    assert "s3cret" in file.read_text()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--database-url", "postgresql://nobody@127.0.0.1:1/none"), 5, "127.0.0.1"),
        (("--database-url", "mysql://root@localhost/peatio"), 2, "postgresql://"),
        (("--database-url", "URL", "--routes", "missing.txt"), 2, "missing.txt"),
        (("--database-url", "URL", "--orders", "nope"), 2, "--orders nope"),
        (("--database-url", "URL", "--output", "no/such/dir/x.toml"), 2, "can't be written"),
        ((), 2, "--database-url"),
    ],
)
def test_what_can_not_be_used_is_said(
    exchange: str, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    given = tuple(exchange if word == "URL" else word for word in words)
    ran = railswitch("init", *given, cwd=tmp_path)
    assert ran.code == code
    assert says in ran.err


def test_routes_that_are_none_are_said(exchange: str, tmp_path: Path) -> None:
    routes = tmp_path / "routes.txt"
    routes.write_text("rails aborted!\n")
    ran = railswitch("init", "--database-url", exchange, "--routes", str(routes), cwd=tmp_path)
    assert ran.code == 2
    assert "bin/rails routes" in ran.err


def test_in_a_process_of_its_own(exchange: str, tmp_path: Path) -> None:
    """Whatever it imports, nothing is written beside the answer."""
    ran = railswitch_process(
        "init", "--database-url", exchange, "--output", str(tmp_path / "x.toml"), "--json"
    )
    assert (ran.code, ran.err) == (0, "")
