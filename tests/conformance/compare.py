"""The same requests direct and through the proxy: only what is documented may differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
from peers import Came, Peer

SHOWN_BYTES_MAX = 300
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te"}
ADDED = {"x-forwarded-for", "x-request-id"}
CLOCKED = {"date"}  # of the answer: two requests, two seconds
DRAWN = {"sec-websocket-key"}  # another one each time
FRAMING = {"transfer-encoding", "content-length"}
CLIENT_ADDRESS = "127.0.0.1"


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as the client's own parser tells it."""

    status: int
    reason: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


Story = Callable[[int], Sequence[Got]]  # with the port to go to


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Both ends' view of one story."""

    client: list[Got]
    server: list[Came]


def both_ways(story: Story, peer: Peer, proxy_port: int) -> tuple[Heard, Heard]:
    """Direct, and through the proxy."""
    return _heard(story, peer, peer.port), _heard(story, peer, proxy_port)


def assert_alike(story: Story, peer: Peer, proxy_port: int, *, framing: bool = True) -> Heard:
    """Equal but for the documented additions. `framing`: the body's too, as it is on 1.1.

    Returns what was seen through the proxy.
    """
    direct, through = both_ways(story, peer, proxy_port)
    assert direct.client, "the story asked for nothing"
    assert len(direct.client) == len(through.client)
    for one, other in zip(direct.client, through.client, strict=True):
        assert _shown(one, framing=framing) == _shown(other, framing=framing)
    assert [one.target for one in direct.server] == [one.target for one in through.server]
    for came, passed in zip(direct.server, through.server, strict=True):
        assert_passed(came, passed)
    return through


def assert_passed(direct: Came, through: Came) -> None:
    """What the monolith sees of a request: the same, and what the proxy is documented to add."""
    assert (through.method, through.target) == (direct.method, direct.target)
    assert through.version == "HTTP/1.1"
    assert _digest(through.body) == _digest(direct.body)
    unknown = HOP_BY_HOP | ADDED | DRAWN
    assert _without(through.fields, unknown) == _without(direct.fields, unknown)
    assert _kept_open(through)
    came_for = values(direct, "x-forwarded-for")
    expected = ", ".join([*came_for[-1:], CLIENT_ADDRESS])
    assert values(through, "x-forwarded-for") == [*came_for[:-1], expected]
    (request_id,) = values(through, "x-request-id")
    assert request_id
    assert values(direct, "x-request-id") in ([], [request_id])


def values(came: Came, name: str) -> list[str]:
    return [value for known, value in came.fields if known.lower() == name]


def _kept_open(came: Came) -> bool:
    """Nothing of the client's own connection comes to the monolith."""
    return all(one.lower() in ("upgrade", "keep-alive") for one in values(came, "connection"))


def _heard(story: Story, peer: Peer, port: int) -> Heard:
    """Addresses are written as PORT, so that they can be compared."""
    peer.came.clear()
    client = [
        msgspec.structs.replace(got, fields=_neutral(got.fields, port)) for got in story(port)
    ]
    server = [
        msgspec.structs.replace(came, fields=_neutral(came.fields, port)) for came in peer.came
    ]
    return Heard(client=client, server=server)


def _neutral(fields: tuple[tuple[str, str], ...], port: int) -> tuple[tuple[str, str], ...]:
    return tuple((name, value.replace(f":{port}", ":PORT")) for name, value in fields)


def _shown(got: Got, *, framing: bool) -> tuple[object, ...]:
    unknown = HOP_BY_HOP | CLOCKED | (set() if framing else FRAMING)
    return got.status, got.reason, _without(got.fields, unknown), _digest(got.body)


def _without(fields: Sequence[tuple[str, str]], names: set[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if name.lower() not in names]


def _digest(body: bytes) -> bytes:
    if len(body) <= SHOWN_BYTES_MAX:
        return body
    return b"%d bytes %s" % (len(body), hashlib.sha256(body).hexdigest().encode())
