"""Order entry found in what `bin/rails routes` prints, in each of its forms."""

from __future__ import annotations

import pytest

from bridge.onboard.routes import Line, Proposed, missing, parse, read

CLASSIC = """\
                    Prefix Verb   URI Pattern                                Controller#Action
                      root GET    /                                          pages#show
                    orders POST   /orders(.:format)                          orders#create
                     order DELETE /orders/:id(.:format)                      orders#destroy
      batch_api_v1_orders DELETE /api/v1/orders/batch(.:format)             api/v1/orders#cancel_all {:format=>:json}
             api_v1_orders GET    /api/v1/orders(.:format)                   api/v1/orders#index {:format=>:json}
                           POST   /api/v1/orders(.:format)                   api/v1/orders#create {:format=>:json}
              api_v1_order GET    /api/v1/orders/:id(.:format)               api/v1/orders#show {:format=>:json}
                           PATCH  /api/v1/orders/:id(.:format)               api/v1/orders#update {:format=>:json}
                           PUT    /api/v1/orders/:id(.:format)               api/v1/orders#update {:format=>:json}
                           DELETE /api/v1/orders/:id(.:format)               api/v1/orders#destroy {:format=>:json}
             api_v1_trades GET    /api/v1/trades(.:format)                   api/v1/trades#index
               admin_order DELETE /admin/orders/:id(.:format)                admin/orders#destroy
                       web GET|POST /(:locale)/orders/:id/cancel(.:format)   orders#cancel
"""  # noqa: E501

EXPANDED = """\
--[ Route 1 ]--------------------------------------------
Prefix            | root
Verb              | GET
URI               | /
Controller#Action | pages#show
--[ Route 2 ]--------------------------------------------
Prefix            | orders
Verb              | POST
URI               | /orders(.:format)
Controller#Action | orders#create
Source Location   | config/routes.rb:3
--[ Route 3 ]--------------------------------------------
Prefix            | order
Verb              | DELETE
URI               | /orders/:id(.:format)
Controller#Action | orders#destroy
"""

GRAPE = """\
POST  /api/v2/market/orders
POST  /api/v2/market/orders/:id/cancel
POST  /api/v2/market/orders/cancel
GET  /api/v2/market/orders
GET  /api/v2/market/orders/:id
POST  /api/v2/admin/orders/:id/cancel
POST  /api/v2/management/orders
GET  /api/v2/public/markets/:market/order-book
"""


def shown(text: str) -> list[tuple[str, str, str]]:
    return [(one.action, one.method, one.path) for one in read(text).proposed]


def test_the_classic_table() -> None:
    assert set(shown(CLASSIC)) == {
        ("place", "POST", "/orders"),
        ("cancel", "DELETE", "/orders/:id"),
        ("cancel", "POST", "/orders/:id/cancel"),
        ("cancel", "DELETE", "/api/v1/orders/batch"),
        ("place", "POST", "/api/v1/orders"),
        ("read", "GET", "/api/v1/orders/:id"),
        ("cancel", "DELETE", "/api/v1/orders/:id"),
    }


def test_a_bulk_route_stands_before_the_placeholder_that_would_take_its_requests() -> None:
    text = "DELETE /orders/:id(.:format) orders#destroy\nDELETE /orders/batch orders#many"
    first, second = read(text).proposed
    assert (first.path, first.bulk) == ("/orders/batch", True)
    assert second == Proposed(
        action="cancel", method="DELETE", path="/orders/:id", order_id="path.id"
    )


def test_the_expanded_form() -> None:
    assert shown(EXPANDED) == [("place", "POST", "/orders"), ("cancel", "DELETE", "/orders/:id")]


def test_the_lines_of_a_grape_application() -> None:
    assert set(shown(GRAPE)) == {
        ("place", "POST", "/api/v2/market/orders"),
        ("cancel_all", "POST", "/api/v2/market/orders/cancel"),
        ("cancel", "POST", "/api/v2/market/orders/:id/cancel"),
        ("read", "GET", "/api/v2/market/orders/:id"),
    }


def test_the_table_of_a_grape_application_has_its_version_in_a_column() -> None:
    text = "    POST  |  /api/:version/market/orders(.json)  |  v2  |  Create an order."
    assert parse(text) == [Line(method="POST", path="/api/v2/market/orders")]


def test_routes_of_the_old_peatio() -> None:
    text = (
        "POST /api/v2/orders\nPOST /api/v2/orders/multi\nPOST /api/v2/orders/clear\n"
        "POST /api/v2/order/delete\nGET /api/v2/order\n"
    )
    assert set(shown(text)) == {
        ("place", "POST", "/api/v2/orders"),
        ("place", "POST", "/api/v2/orders/multi"),
        ("cancel_all", "POST", "/api/v2/orders/clear"),
        ("cancel", "POST", "/api/v2/order/delete"),
        ("read", "GET", "/api/v2/order"),
    }
    (multi,) = [one for one in read(text).proposed if one.bulk]
    assert multi.path.endswith("multi")


def test_what_writes_orders_and_is_not_understood_is_told() -> None:
    others = read(CLASSIC).others
    assert Line(method="PATCH", path="/api/v1/orders/:id") in others
    assert Line(method="DELETE", path="/admin/orders/:id") in others
    assert all("trades" not in one.path for one in others)


@pytest.mark.parametrize("text", ["", "no routes here\n", "GET", "\x00\x01 POST orders"])
def test_what_is_no_list_of_routes_gives_none(text: str) -> None:
    assert read(text).lines == 0


def test_what_every_monolith_has_and_this_one_lacks() -> None:
    assert missing(read("GET /api/v1/orders/:id").proposed) == ["place", "cancel"]
    assert missing(read(EXPANDED).proposed) == []
