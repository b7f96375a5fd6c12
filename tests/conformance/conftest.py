"""Peers that nobody here wrote, and a proxy in front of each, once for every module and plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import AioPeer, Peer, StandardPeer
from running_proxy import Proxy, Services, no_other_proxy, plane, running_proxy, services

pytest.register_assert_rewrite("compare")  # or it would not tell what differs

__all__ = ["no_other_proxy", "peer", "plane", "proxy", "services"]


@pytest.fixture(scope="module", params=[AioPeer, StandardPeer], ids=["aiohttp.web", "http.server"])
def peer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    with request.param(tmp_path_factory.mktemp("peer")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(
    peer: Peer, plane: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """In front of `peer`."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    with running_proxy(services, f"http://127.0.0.1:{peer.port}", plane, directory) as running:
        yield running
