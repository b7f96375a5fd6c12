"""The sandbox monolith: Rails' manners from outside, its tables from inside, and its faults."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from exchange_calls import call, limit, place
from running import ROOT, fresh_database, monolith_command, running_monolith

from bridge.errors import ConfigError
from bridge.sandbox import processes
from bridge.sandbox.monolith import parse_faults
from bridge.sandbox.servers import EmbeddedPostgres

ORDERS = "/api/v1/orders"


@pytest.fixture(scope="module")
def exchange(postgres_server: EmbeddedPostgres, legacy_template: str) -> Iterator[tuple[str, str]]:
    """(base URL, database URL) of one monolith for all tests that leave no crossing orders."""
    with fresh_database(postgres_server, legacy_template, owner="exchange") as database:
        with running_monolith(database) as url:
            yield url, database


@pytest.fixture
def base(exchange: tuple[str, str]) -> Iterator[str]:
    """Empties the book afterwards, so that tests can share one monolith."""
    url, database = exchange
    yield url
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE orders SET state = 2 WHERE state = 0")


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        time.sleep(0.01)


def test_a_new_order_is_answered_as_rails_would(base: str) -> None:
    status, answer, headers = call(base, "POST", ORDERS, limit("buy", "236.47", "2.0"))
    order = answer["order"]
    assert status == 201
    assert list(order) == [
        *("id", "market", "side", "order_type", "time_in_force", "price", "quantity"),
        *("remaining_quantity", "filled_quantity", "state", "created_at", "updated_at", "trades"),
    ]
    assert order | {"id": 0, "created_at": "", "updated_at": ""} == {
        "id": 0,
        "market": "BTC-USD",
        "side": "buy",
        "order_type": "limit",
        "time_in_force": "gtc",
        "price": "236.47",
        "quantity": "2.0",
        "remaining_quantity": "2.0",
        "filled_quantity": "0.0",
        "state": "open",
        "created_at": "",
        "updated_at": "",
        "trades": [],
    }
    assert order["created_at"].endswith("Z")
    assert len(order["created_at"]) == len("2015-05-01T12:30:00.123Z")
    assert headers["Content-Type"] == "application/json; charset=utf-8"


def test_answers_carry_the_headers_of_rails_middleware(base: str) -> None:
    _, _, headers = call(base, "GET", "/api/v1/markets", headers={"X-Request-Id": "a b/c-1@x"})
    assert headers["X-Request-Id"] == "abc-1@x"
    assert float(headers["X-Runtime"]) > 0
    assert headers["ETag"].startswith('W/"')
    assert headers["Cache-Control"] == "max-age=0, private, must-revalidate"
    assert headers["Server"] is None
    again = call(base, "GET", "/api/v1/markets", headers={"If-None-Match": headers["ETag"]})
    assert again[:2] == (304, None)
    assert len(call(base, "GET", "/api/v1/markets")[2]["X-Request-Id"]) == 36


def test_orders_meet_by_price_and_then_by_time_at_the_makers_price(base: str) -> None:
    later_better = [
        place(base, limit("sell", price, "1.0"))["id"] for price in ("101.0", "100.0", "100.0")
    ]
    taker = place(base, limit("buy", "101.0", "2.5"), member="8")
    assert [
        (trade["maker_order_id"], trade["price"], trade["quantity"]) for trade in taker["trades"]
    ] == [
        (later_better[1], "100.0", "1.0"),
        (later_better[2], "100.0", "1.0"),
        (later_better[0], "101.0", "0.5"),
    ]
    assert (taker["state"], taker["filled_quantity"]) == ("filled", "2.5")
    maker = call(base, "GET", f"{ORDERS}/{later_better[0]}")[1]["order"]
    assert (maker["state"], maker["remaining_quantity"], maker["trades"]) == ("open", "0.5", [])


def test_what_an_ioc_or_a_market_order_does_not_fill_is_cancelled(base: str) -> None:
    place(base, limit("sell", "50.0", "1.0"))
    ioc = place(base, limit("buy", "50.0", "3.0", time_in_force="ioc"), member="8")
    assert (ioc["state"], ioc["remaining_quantity"]) == ("cancelled", "2.0")
    place(base, limit("buy", "49.0", "1.0"))
    market = {"order": {"market": "BTC-USD", "side": "sell", "order_type": "market", "quantity": 4}}
    order = place(base, market, member="8")
    assert (order["state"], order["price"], order["time_in_force"]) == ("cancelled", None, "ioc")
    assert [trade["price"] for trade in order["trades"]] == ["49.0"]


def test_the_tables_hold_what_was_answered(base: str, exchange: tuple[str, str]) -> None:
    maker = place(base, limit("sell", "70.5", "2.0"))["id"]
    taker = place(base, limit("buy", "71.0", "0.5"), member="9")["id"]
    found = rows(
        exchange[1],
        "SELECT id, member_id, side, remaining_quantity::text, state, lock_version,"
        f" updated_at > created_at FROM orders WHERE id IN ({maker}, {taker}) ORDER BY id",
    )
    assert found == [
        (maker, 7, 1, "1.50000000", 0, 1, True),
        (taker, 9, 0, "0.00000000", 1, 1, False),
    ]
    assert rows(
        exchange[1],
        "SELECT maker_order_id, price::text, quantity::text, taker_side FROM trades"
        f" WHERE taker_order_id = {taker}",
    ) == [(maker, "70.50000000", "0.50000000", 0)]


def test_an_order_may_come_unwrapped_or_as_a_form_and_the_query_wins(base: str) -> None:
    root = {"market": "BTC-USD", "side": "buy", "price": 20, "quantity": 1.5}
    assert place(base, root)["price"] == "20.0"
    form = b"order[market]=BTC-USD&order[side]=buy&order[price]=21&order[quantity]=1"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer, _ = call(base, "POST", ORDERS, form, headers=kind)
    assert (status, answer["order"]["price"]) == (201, "21.0")
    query = "?order[market]=BTC-USD&order[side]=buy&order[price]=22&order[quantity]=1"
    status, answer, _ = call(base, "POST", ORDERS + query, limit("buy", "21", "1"))
    assert (status, answer["order"]["price"]) == (201, "22.0")


def test_every_invalid_field_is_named_with_its_first_error(base: str) -> None:
    listed = ["is not included in the list"]
    cases: list[tuple[dict[str, Any], dict[str, list[str]]]] = [
        ({"side": "hold"}, {"side": listed}),
        (
            {"order_type": "stop", "time_in_force": "fok"},
            {"order_type": listed, "time_in_force": listed},
        ),
        ({"price": None}, {"price": ["can't be blank"]}),
        ({"price": "1e2"}, {"price": ["is not a number"]}),
        ({"price": "-1"}, {"price": ["must be greater than 0"]}),
        ({"price": "1.001"}, {"price": ["must be a multiple of 0.01"]}),
        ({"price": "1000000000.01"}, {"price": ["must be less than or equal to 1000000000"]}),
        ({"order_type": "market"}, {"price": ["must be blank"]}),
        ({"quantity": "0.000000001"}, {"quantity": ["must be a multiple of 0.00000001"]}),
        (
            {"market": "DOGE", "side": "", "price": "1.001", "quantity": True},
            {"market": ["must exist"], "side": listed, "quantity": ["is not a number"]},
        ),
    ]
    for change, errors in cases:
        body = {"order": limit("buy", "10", "1")["order"] | change}
        status, answer, _ = call(base, "POST", ORDERS, body)
        assert (status, answer) == (422, {"errors": errors}), change
        assert list(answer["errors"]) == list(errors)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"order":{}}', b'{"order":3}', b"", b"\xff"]
)
def test_a_request_without_an_order_is_a_bad_request(base: str, body: bytes) -> None:
    assert call(base, "POST", ORDERS, body)[:2] == (400, {"status": 400, "error": "Bad Request"})


@pytest.mark.parametrize("member", [None, "", "0", "seven", "-7", "9223372036854775808"])
def test_who_does_not_say_who_he_is_is_not_served(base: str, member: str | None) -> None:
    for method, path, body in (("POST", ORDERS, b"{"), ("DELETE", f"{ORDERS}/1", None)):
        assert call(base, method, path, body, member=member)[:2] == (401, {"error": "Unauthorized"})


def test_only_the_owner_cancels_and_only_once(base: str) -> None:
    order = place(base, limit("buy", "30.0", "2.0"))
    path = f"{ORDERS}/{order['id']}"
    missing = (404, {"status": 404, "error": "Not Found"})
    assert call(base, "DELETE", path, member="8")[:2] == missing
    assert call(base, "DELETE", f"{ORDERS}/abc")[:2] == missing
    assert call(base, "DELETE", f"{ORDERS}/99999999999999999999")[:2] == missing
    status, answer, _ = call(base, "DELETE", path)
    assert status == 200
    assert answer["order"] | {"updated_at": ""} == order | {"state": "cancelled", "updated_at": ""}
    assert call(base, "DELETE", path)[:2] == (422, {"errors": {"state": ["is not open"]}})


def test_members_read_their_own_orders_and_everyone_reads_trades(base: str) -> None:
    mine = place(base, limit("sell", "90.0", "1.0"), member="21")
    taker = place(base, limit("buy", "90.0", "1.0"), member="22")
    assert call(base, "GET", f"{ORDERS}/{taker['id']}", member="22")[1]["order"] == taker
    assert call(base, "GET", f"{ORDERS}/{mine['id']}", member="22")[0] == 404
    place(base, limit("sell", "95.0", "1.0"), member="21")
    path = f"{ORDERS}?market=BTC-USD&state=filled"
    listed = call(base, "GET", path, member="21")[1]["orders"]
    assert [order["id"] for order in listed] == [mine["id"]]
    trade = call(base, "GET", "/api/v1/trades?market=BTC-USD")[1]["trades"][0]
    assert (trade["price"], trade["quantity"], trade["taker_side"]) == ("90.0", "1.0", "buy")
    markets = call(base, "GET", "/api/v1/markets")[1]["markets"]
    assert [market["id"] for market in markets] == ["BTC-USD", "ETH-USD", "SOL-USD"]
    assert call(base, "GET", "/up")[0] == 200
    assert call(base, "GET", "/api/v1/nothing")[:2] == (404, {"status": 404, "error": "Not Found"})


def test_a_database_that_refuses_the_write_gives_503_and_nothing_happened(
    monolith: str, legacy_database: str
) -> None:
    maker = place(monolith, limit("sell", "10.0", "1.0"))["id"]
    refusal = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION 'the engine owns it' USING ERRCODE = '55000';
        END $$;
        CREATE TRIGGER fence BEFORE INSERT OR UPDATE ON orders
          FOR EACH ROW EXECUTE FUNCTION refuse();
    """
    unavailable = (503, {"status": 503, "error": "Service Unavailable"})
    with psycopg.connect(legacy_database, autocommit=True) as connection:
        connection.execute(refusal)
        assert call(monolith, "POST", ORDERS, limit("buy", "10.0", "1.0"))[:2] == unavailable
        assert call(monolith, "DELETE", f"{ORDERS}/{maker}")[:2] == unavailable
        connection.execute("DROP TRIGGER fence ON orders")
    assert rows(legacy_database, "SELECT id, state FROM orders") == [(maker, 0)]
    assert place(monolith, limit("buy", "10.0", "1.0"))["state"] == "filled"


def test_a_lost_database_connection_is_a_500_and_the_next_request_gets_a_new_one(
    monolith: str, legacy_database: str
) -> None:
    place(monolith, limit("buy", "1.0", "1.0"))
    with psycopg.connect(legacy_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    answers = [call(monolith, "POST", ORDERS, limit("buy", "1.0", "1.0")) for _ in range(8)]
    statuses = [status for status, _, _ in answers]
    assert set(statuses) <= {201, 500}
    assert statuses[-1] == 201
    [(count,)] = rows(legacy_database, "SELECT count(*) FROM orders")
    assert count == 1 + statuses.count(201)


@pytest.mark.monolith_options("--fault", "priority:BTC-USD:1", "--fault", "rounding:ETH-USD:1")
def test_faults_break_time_priority_and_prices(monolith: str) -> None:
    makers = [place(monolith, limit("sell", "100.0", "1.0"))["id"] for _ in range(2)]
    taker = place(monolith, limit("buy", "100.0", "1.0"), member="8")
    assert [trade["maker_order_id"] for trade in taker["trades"]] == [makers[1]]
    place(monolith, limit("sell", "10.07", "1.0", market="ETH-USD"))
    taker = place(monolith, limit("buy", "11", "1.0", market="ETH-USD"), member="8")
    assert [trade["price"] for trade in taker["trades"]] == ["10.1"]


@pytest.mark.monolith_options("--fault", "dark:SOL-USD:200", "--workers", "1")
def test_the_console_fault_writes_orders_that_no_request_made(
    monolith: str, legacy_database: str
) -> None:
    query = "SELECT market_id, count(*) FROM orders GROUP BY 1"
    wait_until(lambda: dict(rows(legacy_database, query)).get("SOL-USD", 0) > 5, "some dark orders")
    assert dict(rows(legacy_database, query)).keys() == {"SOL-USD"}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def process(legacy_database: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, base URL) of a monolith with one worker."""
    command = monolith_command(legacy_database, "--workers", "1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        yield parent, parent.stdout.readline().strip()
        parent.kill()


def test_a_killed_worker_is_replaced_and_a_killed_parent_takes_its_workers_along(
    process: tuple[subprocess.Popen[str], str],
) -> None:
    parent, url = process
    [first] = children(parent.pid)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: bool(set(children(parent.pid)) - {first}), "another worker")

    def serves() -> bool:
        try:
            return call(url, "GET", "/up")[0] == 200
        except OSError:
            return False

    wait_until(serves, "an answer of the new worker")
    [second] = children(parent.pid)
    parent.kill()
    wait_until(lambda: not processes.alive(second), "the orphan has ended")


def test_faults_are_written_kind_symbol_number() -> None:
    faults = parse_faults(["priority:ETH-USD:0.02", "dark:SOL-USD:5"])
    assert (faults.priority, faults.rounding, faults.dark) == (
        {"ETH-USD": 0.02},
        {},
        {"SOL-USD": 5},
    )
    for wrong in ("priority", "priority:ETH-USD", "priority:ETH-USD:2", "slow:X:1", "dark:X:-1"):
        with pytest.raises(ConfigError, match="--fault"):
            parse_faults([wrong])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--database-url", "postgresql://nobody@127.0.0.1:1/x"], "can't be used"),
        (["--database-url", "URL", "--fault", "priority:DOGE:0.1"], "DOGE"),
        (["--database-url", "URL", "--port", "PORT"], "another program listens"),
    ],
)
def test_what_it_cannot_start_with_is_said_in_one_line(
    options: list[str], said: str, exchange: tuple[str, str]
) -> None:
    url, database = exchange
    meant = {"URL": database, "PORT": url.rpartition(":")[2]}
    command = [*monolith_command(database)[:3], *(meant.get(word, word) for word in options)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def many(*orders: dict[str, Any]) -> dict[str, Any]:
    return {"orders": [order["order"] for order in orders]}


def form(pairs: str) -> tuple[bytes, dict[str, str]]:
    return pairs.encode(), {"Content-Type": "application/x-www-form-urlencoded"}


def test_several_orders_of_one_request_are_each_taken_or_refused(base: str) -> None:
    wrong = {"order": {"market": "BTC-USD", "side": "up", "price": "1", "quantity": "1"}}
    body = many(limit("buy", "100", "1"), wrong, limit("sell", "100", "0.5"))
    status, answer, _ = call(base, "POST", f"{ORDERS}/batch", body)
    assert status == 201
    bought, refused, sold = answer["orders"]
    assert (bought["state"], sold["state"]) == ("open", "filled")
    assert sold["trades"][0]["maker_order_id"] == bought["id"]
    assert refused == {"errors": {"side": ["is not included in the list"]}}
    assert call(base, "POST", f"{ORDERS}/batch", {"orders": []})[0] == 400
    assert call(base, "POST", f"{ORDERS}/batch", body, member=None)[0] == 401


def test_several_orders_are_canceled_by_their_ids(base: str) -> None:
    first, second = (place(base, limit("buy", "90", "1"))["id"] for _ in range(2))
    status, answer, _ = call(base, "DELETE", f"{ORDERS}/batch", {"ids": [first, first, 10**9]})
    assert status == 200
    canceled, again, missing = answer["orders"]
    assert (canceled["id"], canceled["state"]) == (first, "cancelled")
    assert again == {"errors": {"state": ["is not open"]}}
    assert missing == {"errors": {"base": ["Not Found"]}}
    body, headers = form(f"_method=delete&ids[]={second}")
    status, answer, _ = call(base, "POST", f"{ORDERS}/batch", body, headers=headers)
    assert [order["id"] for order in answer["orders"]] == [second]


def test_everything_is_canceled_that_the_filter_names_and_the_member_owns(base: str) -> None:
    bids = [place(base, limit("buy", price, "1"))["id"] for price in ("80", "81")]
    other = place(base, limit("sell", "990", "1"))["id"]
    another = place(base, limit("buy", "82", "1"), member="8")["id"]
    status, answer, _ = call(base, "DELETE", f"{ORDERS}?market=BTC-USD&side=buy")
    assert (status, [order["id"] for order in answer["orders"]]) == (200, bids)
    assert call(base, "DELETE", f"{ORDERS}?side=middle")[1] == {"orders": []}
    body, headers = form("_method=delete")
    status, answer, _ = call(base, "POST", f"{ORDERS}.json/?market=", body, headers=headers)
    assert [order["id"] for order in answer["orders"]] == [other]
    status, answer, _ = call(base, "GET", f"{ORDERS}/{another}", member="8")
    assert answer["order"]["state"] == "open"


def test_orders_come_as_forms_and_paths_in_every_spelling(base: str) -> None:
    body, headers = form("order[market]=BTC-USD&order[side]=buy&order[price]=70&order[quantity]=1")
    for target in (ORDERS, f"/{ORDERS}//", f"{ORDERS}.json", f"{ORDERS};a=b"):
        status, answer, _ = call(base, "POST", target, body, headers=headers)
        assert status == 201, answer
    order_id = answer["order"]["id"]
    headers = {"X-HTTP-Method-Override": "delete"}
    status, answer, _ = call(base, "POST", f"{ORDERS}/{order_id}.json", headers=headers)
    assert (status, answer["order"]["state"]) == (200, "cancelled")
    assert call(base, "POST", f"{ORDERS}/{order_id}")[0] == 404
