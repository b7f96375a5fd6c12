"""Sends requests of our own to the monolith (`bridge.proxy.desk.monolith`), by aiohttp.

Each has a connection of its own: a kept one may be closing already, and what was written to it then
has an unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from bridge.config_rules import upstream_address
from bridge.errors import LegacyNotReached, LegacyOutcomeUnknown
from bridge.limits import OWN_ANSWER_BYTES_MAX, UPSTREAM_CONNECT_S, UPSTREAM_HEAD_S

_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # not to be added by aiohttp


class OwnRequests:
    """`ask` is an `AskMonolith`."""

    def __init__(
        self,
        upstreams: Sequence[str],
        *,
        connect_s: float = UPSTREAM_CONNECT_S,
        answer_s: float = UPSTREAM_HEAD_S,
    ) -> None:
        self._upstreams = [upstream_address(upstream) for upstream in upstreams]
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s)
        self._answer_s = connect_s + answer_s
        self._sessions: list[aiohttp.ClientSession] = []

    async def ask(
        self,
        method: bytes,
        target: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        body: bytes,
        content_type: bytes,
    ) -> tuple[int, bytes]:
        headers = _headers(fields, content_type)
        failure: Exception | None = None
        # Another upstream is tried only where none has been sent anything.
        for session, base in zip(self._opened(), self._bases(), strict=True):
            url = URL(base + target.decode("latin-1"), encoded=True)
            try:
                async with asyncio.timeout(self._answer_s):
                    return await self._ask(session, method.decode("latin-1"), url, headers, body)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                failure = error
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                said = str(error) or type(error).__name__
                raise LegacyOutcomeUnknown(f"the monolith gave no whole answer: {said}") from error
        raise LegacyNotReached(f"the monolith can't be connected to: {failure}") from failure

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes,
    ) -> tuple[int, bytes]:
        async with session.request(
            method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=_OURS,
        ) as response:
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > OWN_ANSWER_BYTES_MAX:
                    raise ValueError("its answer is too long")
            return response.status, bytes(answer)

    def _opened(self) -> list[aiohttp.ClientSession]:
        if not self._sessions:
            self._sessions = [self._session(*upstream) for upstream in self._upstreams]
        return self._sessions

    def _session(self, host: str, port: int) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=_connector(host, port),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
        )
        # It would send a DELETE again when the answer is a closed connection. There is no public
        # option; aiohttp's own test client sets the same.
        assert session._retry_connection
        session._retry_connection = False
        return session

    def _bases(self) -> list[str]:
        return [
            f"http://{f'[{host}]' if ':' in host else host}:{port}" if port else "http://localhost"
            for host, port in self._upstreams
        ]


def _connector(host: str, port: int) -> aiohttp.BaseConnector:
    if port:
        return aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.UnixConnector(host, force_close=True, limit=0)


def _headers(fields: Sequence[tuple[bytes, bytes]], content_type: bytes) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in fields:
        # aiohttp writes UTF-8; what is none goes as the characters that Latin-1 has for it.
        try:
            headers.add(name.decode("latin-1"), value.decode())
        except UnicodeDecodeError:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
    if content_type:
        headers["Content-Type"] = content_type.decode("latin-1")
    return headers
