"""TLS ends at the proxy: Rails still knows that its client came by https."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from certificates import Authority
from running_proxy import Proxy, Services, running_proxy
from running_rails import Rails
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(
    rails: Rails,
    plane: str,
    services: Services,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    certificate, key = authority.sign("proxy")
    directory: Path = tmp_path_factory.mktemp("proxy")
    tls = f'[proxy.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    upstream = f"http://127.0.0.1:{rails.port}"
    with running_proxy(services, upstream, plane, directory, tls) as running:
        yield running


def test_forms_pass_their_check_of_the_origin(secure: Proxy, authority: Authority) -> None:
    """Rails compares Origin with the scheme and host that it believes it was asked as."""
    base = f"https://127.0.0.1:{secure.port}"
    with requests.Session() as session:
        session.trust_env = False  # or a variable would say whom to trust
        session.verify = str(authority.certificate)
        session.headers["Origin"] = base
        told = session.get(f"{base}/whoami", timeout=PATIENCE_S).json()
        assert told["base_url"] == base
        page = session.get(f"{base}/", timeout=PATIENCE_S).text
        inputs = re.findall(r'<input value="([^"]*)"[^>]*name="(order[^"]*)"', page)
        form = {name: value for value, name in inputs}
        form["authenticity_token"] = re.findall(r'"authenticity_token" value="([^"]+)"', page)[0]
        placed = session.post(f"{base}/orders", data=form, timeout=PATIENCE_S)
        assert placed.status_code == 200
        assert placed.url.startswith(f"{base}/?placed=")


def test_action_cable_by_wss(secure: Proxy, authority: Authority) -> None:
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    with connect(
        f"wss://127.0.0.1:{secure.port}/cable?visitor=ada",
        ssl=trusted,
        subprotocols=[Subprotocol("actioncable-v1-json")],
        origin=Origin(f"https://127.0.0.1:{secure.port}"),
        proxy=None,
    ) as socket:
        assert socket.recv(PATIENCE_S) == '{"type":"welcome"}'
