"""Two connections after their protocol was switched: bytes pass both ways, unread."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from bridge.limits import TUNNEL_KEEPALIVE_S


class Tunnel:
    """Each side says what happens to it: `own` is the transport of the one that speaks."""

    def __init__(self, client: asyncio.Transport, upstream: asyncio.Transport) -> None:
        self._client = client
        self._upstream = upstream
        self._half_closed = False
        for transport in (client, upstream):
            _keep_alive(transport)

    def received(self, own: asyncio.Transport, data: bytes) -> None:
        peer = self._peer(own)
        if not peer.is_closing():
            peer.write(data)

    def full(self, own: asyncio.Transport) -> None:
        """It takes no more for now."""
        peer = self._peer(own)
        if not peer.is_closing():
            peer.pause_reading()

    def free(self, own: asyncio.Transport) -> None:
        peer = self._peer(own)
        if not peer.is_closing():
            peer.resume_reading()

    def ended(self, own: asyncio.Transport) -> bool:
        """It sends no more. True: it stays open for what the other side still sends."""
        peer = self._peer(own)
        if self._half_closed or not (own.can_write_eof() and peer.can_write_eof()):
            peer.close()
            return False
        self._half_closed = True
        if not peer.is_closing():
            peer.write_eof()
        return not peer.is_closing()

    def lost(self, own: asyncio.Transport) -> None:
        self._peer(own).close()

    def _peer(self, own: asyncio.Transport) -> asyncio.Transport:
        return self._upstream if own is self._client else self._client


def _keep_alive(transport: asyncio.Transport) -> None:
    """A tunnel may be idle for ever: only the kernel can tell a peer that is silent from one that
    is gone.
    """
    bound = transport.get_extra_info("socket")
    if bound is None or bound.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TUNNEL_KEEPALIVE_S)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, TUNNEL_KEEPALIVE_S // 4)
