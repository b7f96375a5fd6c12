"""Between a client that speaks TLS and the Rust plane, which does not: bytes pass both ways."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast


class Relay(asyncio.Protocol):
    """The client's side. `adopt` gets the plane's end of a socket pair and the client's address."""

    def __init__(self, adopt: Callable[[socket.socket, bytes], None]) -> None:
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._client: asyncio.Transport | None = None
        self._inner = _Inner(self)
        self._early = bytearray()  # came before the plane's end was ready
        self._is_over = False

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = client = cast(asyncio.Transport, transport)
        client.pause_reading()
        peer = transport.get_extra_info("peername")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._adopt(theirs, peer[0].encode() if peer else b"unknown")
        self._opening = self._loop.create_task(self._open(ours))

    def data_received(self, data: bytes) -> None:
        if self._inner.transport is None:
            self._early += data
        else:
            self._inner.transport.write(data)

    def eof_received(self) -> bool:
        return False  # TLS has no half-closed connections

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        if self._inner.transport is not None:
            self._inner.transport.close()

    def pause_writing(self) -> None:
        if self._inner.transport is not None:
            self._inner.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._inner.transport is not None and not self._inner.transport.is_closing():
            self._inner.transport.resume_reading()

    # The plane's side.

    def write(self, data: bytes) -> None:
        if self._client is not None and not self._client.is_closing():
            self._client.write(data)

    def hold(self, is_full: bool) -> None:
        """The plane takes no more for now, or takes more again."""
        if self._client is None or self._client.is_closing():
            return
        if is_full:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    def end(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _open(self, ours: socket.socket) -> None:
        try:
            transport, _ = await self._loop.create_connection(lambda: self._inner, sock=ours)
        except OSError:
            ours.close()
            self.end()
            return
        if self._early:
            transport.write(bytes(self._early))
            self._early.clear()
        if self._is_over:
            transport.close()
        else:
            self.hold(False)


class _Inner(asyncio.Protocol):
    """The plane's side."""

    def __init__(self, relay: Relay) -> None:
        self.transport: asyncio.Transport | None = None
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._relay.write(data)

    def eof_received(self) -> bool:
        self._relay.end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.end()

    def pause_writing(self) -> None:
        self._relay.hold(True)

    def resume_writing(self) -> None:
        self._relay.hold(False)
