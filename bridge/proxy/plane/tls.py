"""TLS between clients and the proxy. Who is still shaking hands counts as a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from bridge.config import ProxyTls
from bridge.errors import ConfigError
from bridge.limits import ACCEPT_PAUSE_S, TLS_CLOSE_S, TLS_HANDSHAKE_S

_log = logging.getLogger(__name__)


def server_context(tls: ProxyTls) -> ssl.SSLContext | None:
    """None: plain HTTP. Raises ConfigError, with the file that does not do."""
    if not tls.certificate:
        return None
    for key, file in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"proxy.tls.{key}: {file} can't be read: {error.strerror}; give the path of a "
                f"file in PEM that the proxy's user may read"
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"proxy.tls: {tls.certificate} with {tls.key} can't be used: {error}; give a "
            f"certificate with its chain and the key that belongs to it, in PEM, without a password"
        ) from error
    return context


def _no_password() -> str:
    """Asked for on the terminal otherwise, of whoever is there."""
    raise ValueError("the key has a password")


class TlsListener:
    """Accepts clients and shakes hands with them; then `protocol` gets the connection."""

    def __init__(
        self,
        bound: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        has_room: Callable[[int], bool],
    ) -> None:
        """`has_room` gets the number of handshakes: False, and the newcomer is closed."""
        self._bound = bound
        self._context = context
        self._protocol = protocol
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    async def close(self) -> None:
        """Accepts no more. Handshakes are broken off: no request of theirs has come."""
        tasks = (self._accepting, *self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._bound.close()

    async def _accept(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._bound)
            except OSError as error:
                _log.error("clients can't be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if not self._has_room(len(self._handshakes)):
                accepted.close()
                continue
            handshake = self._loop.create_task(self._shake(accepted))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _shake(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # not TLS, no common version, too slow, gone
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_CLOSE_S,
            )
