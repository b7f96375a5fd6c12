"""The sockets that a proxy accepts clients on."""

from __future__ import annotations

import socket

from bridge.errors import PortInUse
from bridge.limits import LISTEN_BACKLOG


def listening_socket(host: str, port: int) -> socket.socket:
    """Several processes may each have one of the same port; the kernel deals connections out.

    `port` 0 takes a free one. Raises PortInUse.
    """
    bound = bound_socket(host, port)
    bound.listen(LISTEN_BACKLOG)
    return bound


def bound_socket(host: str, port: int) -> socket.socket:
    """The same, not listening yet: the kernel gives it no connection. Raises PortInUse."""
    bound = _bound(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    bound.setblocking(False)
    return bound


def check_free(host: str, port: int) -> None:
    """Raises PortInUse where anybody listens: the kernel would let us share the port with another
    proxy, and clients would meet either.
    """
    if port:
        _bound(host, port, socket.SO_REUSEADDR).close()


def _bound(host: str, port: int, *options: int) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise PortInUse(
            f"the proxy can't listen on {host}:{port}: {error.strerror or error}; stop what "
            f"listens there, or change proxy.listen"
        ) from error
    return bound
