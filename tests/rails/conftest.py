"""The Rails exchange, and a proxy in front of it, once for every module and plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import fresh_database
from running_proxy import Proxy, Services, no_other_proxy, plane, running_proxy, services
from running_rails import Rails, make_database, running_rails

from bridge.sandbox.provision import APPLICATION_ROLE, as_role
from bridge.sandbox.servers import EmbeddedPostgres

__all__ = ["no_other_proxy", "plane", "proxy", "rails", "services"]

_TEMPLATE = "rails_exchange"

# What a page's forms are sent to is order entry as well.
PAGES = """
[[mapping.routes]]
action = "place"
method = "POST"
path = "/orders"
fields = { symbol = "order.market", side = "order.side", price = "order.price", \
quantity = "order.quantity" }

[[mapping.routes]]
action = "cancel"
method = "DELETE"
path = "/orders/:id"
fields = { order_id = "path.id" }
"""


@pytest.fixture(scope="session")
def exchange_template(postgres_server: EmbeddedPostgres) -> str:
    make_database(postgres_server, _TEMPLATE)
    return _TEMPLATE


@pytest.fixture(scope="module")
def exchange_database(postgres_server: EmbeddedPostgres, exchange_template: str) -> Iterator[str]:
    """The application's URL of a fresh one: markets, members and accounts, no orders."""
    with fresh_database(postgres_server, exchange_template, owner=APPLICATION_ROLE) as url:
        yield as_role(url, APPLICATION_ROLE)


@pytest.fixture(scope="module")
def rails(exchange_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rails]:
    with running_rails(tmp_path_factory.mktemp("rails"), exchange_database) as running:
        yield running


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, rails: Rails) -> str:
    """A module that wants both asks for "tcp" and "unix"."""
    if getattr(request, "param", "tcp") == "unix":
        return f"unix:{rails.socket}"
    return f"http://127.0.0.1:{rails.port}"


@pytest.fixture(scope="module")
def proxy(
    rails: Rails,
    upstream: str,
    plane: str,
    services: Services,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("proxy")
    with running_proxy(services, upstream, plane, directory, PAGES) as running:
        yield running
