"""Every problem of a mapping is found, and the sentence names its key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from legacy_side import CONFIG

from shadow.legacy.check_mapping import problems
from shadow.legacy.mapping import Amount, InstrumentConfig, Mapping
from shadow.legacy.shorthand import expanded


def mapped(path: str, value: Any) -> Mapping:
    """The sandbox's mapping with the value at this path put in, or taken out (None)."""
    data = msgspec.json.decode(msgspec.json.encode(CONFIG.mapping))
    *parents, last = path.split("/")
    at = data
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    if value is None:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return msgspec.convert(expanded(data), Mapping)


def instrument(**changes: Any) -> InstrumentConfig:
    return msgspec.structs.replace(CONFIG.instruments[0], **changes)


def test_the_sandboxs_mapping_has_no_problems() -> None:
    assert problems(CONFIG.mapping, CONFIG.instruments) == []


def test_two_values_of_the_database_may_mean_one_status() -> None:
    assert problems(mapped("orders/status/map/3", "canceled"), CONFIG.instruments) == []


def test_a_monolith_without_market_and_ioc_orders_needs_no_words_for_them() -> None:
    mapping = mapped("orders/ord_type/map", {"0": "limit"})
    tif = msgspec.structs.replace(mapping.orders.tif, map={"0": "gtc"})
    mapping = msgspec.structs.replace(
        mapping, orders=msgspec.structs.replace(mapping.orders, tif=tif)
    )
    assert problems(mapping, CONFIG.instruments) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("orders/side/map/1", "ask", '`mapping.orders.side.map`: "1" = "ask", but the words are'),
        ("orders/side/map/1", "buy", "`mapping.orders.side.map`: no value means sell"),
        ("orders/ord_type/map/0", None, "`mapping.orders.ord_type.map`: no value means limit"),
        ("orders/tif/map/0", None, "`mapping.orders.tif.map`: no value means gtc"),
        ("orders/status/map/1", None, "`mapping.orders.status.map`: no value means filled"),
        ("orders/status/map/0", "canceled", "`mapping.orders.status.map`: no value means open"),
        ("orders/side/column", "", "`mapping.orders.side.column` names no column"),
        ("orders/table", "a.b.c", '`mapping.orders.table` = "a.b.c" is neither'),
        ("orders/id_sequence", "", "`mapping.orders.id_sequence`"),
        ("orders/price", "", "`mapping.orders.price` names no column"),
        ("orders/leaves", "quantity", '`mapping.orders`: quantity and leaves all name column "qua'),
        ("orders/priority", [], "`mapping.orders.priority`: name the columns"),
        ("orders/priority", ["created_at"], '`mapping.orders.priority` must end with "id"'),
        ("fills/taker_side/map/0", None, "`mapping.fills.taker_side.map`: no value means buy"),
        ("fills/taker_order", "maker_order_id", "maker_order and taker_order all name column"),
        ("fills/table", "", "`mapping.fills.table`"),
        ("routes/0/fields/price", None, "(place /api/v1/orders): fields lacks price"),
        ("routes/0/fields/amount", "order.x", 'field "amount" is not one of'),
        ("routes/0/fields/price", "order..price", "does not say where the value is"),
        ("routes/4/fields/order_id", "path.no", '= "path.no", but the path has no :no'),
        ("routes/0/fields/price", ["order.price", "query."], '"query." does not say where'),
        ("routes/0/fields/price", [], "price does not say where the value is"),
        ("routes/4/fields/order_id", ["path.id", "path.no"], '= "path.no", but the path has no'),
        ("routes/0/defaults", {"kind": "limit"}, 'default "kind" is not one of'),
        ("routes/0/defaults", {"ord_type": "LIMIT"}, 'the default ord_type = "LIMIT" is none of'),
        ("errors", {"late": {"status": 422, "body": ""}}, "`mapping.errors.late` is none of our"),
        ("responses/order/price", "price:fixed", "`mapping.responses.order.price`"),
        ("adapter", "my_adapter", '`mapping.adapter` = "my_adapter" is not "module:Class"'),
        ("routes/0/method", "Post", 'method = "Post" is not one of DELETE, GET'),
        ("routes/0/path", "orders", "path must begin with /"),
        ("routes/0/path", "/api/", "path must be one or more pieces"),
        ("routes/0/path", "/api//orders", "path must be one or more pieces"),
        ("routes/0/path", "/api/orders(.:format)", "path must be one or more pieces"),
        ("routes/0/path", "/api/%6frders", "path must be one or more pieces"),
        ("routes/4/path", "/orders/:id/:id", 'each ":" of the path must begin a name of its own'),
        ("routes/4/path", "/orders/:1", 'each ":" of the path must begin a name of its own'),
        ("routes/0/fields/price", "each.price", '"each.price", but the route has no each'),
        ("routes/1/each", "path.ids", 'each = "path.ids" does not say where the list is'),
        ("routes/1/each", "", 'order_id = "each", but the route has no each'),
        ("routes/2/fields/tif", "each", 'an element that is a value ("each") has no fields'),
        ("routes/1/fields/order_id", "ids", 'no field begins with "each"'),
        ("routes/3/each", "ids", "each is of bulk place and cancel routes, not of cancel_all"),
        ("routes/3/fields/tif", "query.tif", 'field "tif" is not one of side, symbol'),
        ("responses/placed_many_status", 302, "`mapping.responses.placed_many_status` must be"),
        ("routes/4/method", "GET", "GET /api/v1/orders/:id is given 2 times"),
        ("identity_header", "X Member", "`mapping.identity_header`"),
        ("words/side/sell", "buy", '`mapping.words.side`: 2 of our words are "buy"'),
        ("words/side/sell", None, "`mapping.words.side` lacks sell"),
        ("words/status/done", "done", '`mapping.words.status`: "done" is not one of'),
        ("responses/order/id", None, "`mapping.responses.order` lacks id"),
        ("responses/order/fee", "fee", '`mapping.responses.order.fee` = "fee" is not one of'),
        ("responses/fill/fee", "fee", '`mapping.responses.fill.fee` = "fee" is not one of'),
        ("responses/placed_status", 302, "`mapping.responses.placed_status` must be from 200"),
    ],
)
def test_each_problem_of_a_mapping_names_its_key(path: str, value: Any, expected: str) -> None:
    found = problems(mapped(path, value), CONFIG.instruments)
    assert any(expected in one for one in found), found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"symbol": "A" * 17}, "symbol must be 1 to 16 bytes long"),
        ({"symbol": "€" * 6}, "symbol must be 1 to 16 bytes long"),
        ({"symbol": ""}, "symbol must be 1 to 16 bytes long"),
        ({"id": 0}, "id must be from 1 to 4294967295"),
        ({"tick": "0"}, "tick '0' of BTC-USD is not positive"),
        ({"tick": "-0.01"}, "tick '-0.01' of BTC-USD is not positive"),
        ({"tick": "a cent"}, "a cent is not a plain decimal number"),
        ({"lot": "1e-8"}, "1e-8 is not a plain decimal number"),
        ({"price_max": "0.015"}, "price_max 0.015 of BTC-USD is not a multiple of the tick"),
        ({"price_max": "92233720368547758.08"}, "is more than 9223372036854775807 ticks"),
        ({"quantity_max": "1000000000000"}, "is more than 18446744073709551615 lots"),
        ({"price_max": "0"}, "price_max must be at least one tick"),
        ({"quantity_max": "0"}, "quantity_max must be at least one lot"),
    ],
)
def test_each_problem_of_an_instrument_names_it(changes: dict[str, Any], expected: str) -> None:
    (found,) = problems(CONFIG.mapping, [instrument(**changes)])
    assert found.startswith(f"`instruments[0]` ({changes.get('symbol', 'BTC-USD')})")
    assert expected in found
    assert found.endswith(("64 bits", "long", "4294967295", "one tick", "one lot"))


def test_each_action_that_orders_need_has_a_route() -> None:
    routes = [one for one in CONFIG.mapping.routes if one.action != "place"]
    (found,) = problems(
        msgspec.structs.replace(CONFIG.mapping, routes=tuple(routes)), CONFIG.instruments
    )
    assert found == '`mapping.routes`: no route has action = "place" and no each'


def test_a_route_that_an_earlier_one_hides_is_named() -> None:
    """As in Rails the first one that fits counts, and its id would be "batch"."""
    routes = sorted(CONFIG.mapping.routes, key=lambda route: ":" not in route.path)
    (found,) = problems(
        msgspec.structs.replace(CONFIG.mapping, routes=tuple(routes)), CONFIG.instruments
    )
    assert "(cancel /api/v1/orders/batch): DELETE /api/v1/orders/:id stands before it" in found


def test_the_largest_numbers_that_fit_are_no_problem() -> None:
    largest = instrument(price_max="92233720368547758.07", quantity_max="184467440737.09551615")
    assert problems(CONFIG.mapping, [largest]) == []


def test_an_instrument_given_twice_is_one_problem_for_each_key() -> None:
    found = problems(CONFIG.mapping, [instrument(), instrument()])
    assert found == [
        "`instruments`: symbol 'BTC-USD' is given 2 times",
        "`instruments`: id 1 is given 2 times",
    ]


def test_no_instruments_are_a_problem() -> None:
    (found,) = problems(CONFIG.mapping, [])
    assert "at least one" in found


def test_what_a_market_buy_can_pay_is_for_a_monolith_that_matches_later() -> None:
    mapping = mapped("market_buy", "stop_level")
    assert ["`mapping.matching`" in one for one in problems(mapping, CONFIG.instruments)] == [True]
    later = msgspec.structs.replace(mapping, matching="later")
    [problem] = problems(later, CONFIG.instruments)
    assert "mapping.orders.funds" in problem
    orders = msgspec.structs.replace(later.orders, funds=Amount(column="locked"))
    later = msgspec.structs.replace(later, orders=orders)
    assert problems(later, CONFIG.instruments) == []
