"""Whether an upstream can answer: by connections that fail, and by asking it."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from bridge.config import HealthConfig
from bridge.limits import HEAD_BYTES_MAX
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.http1 import AnswerHeads, Refused
from bridge.proxy.plane.upstream import Address

_log = logging.getLogger(__name__)


class Health:
    """Down after `fall` failures in a row, up again after `rise` good answers in a row."""

    def __init__(self, address: Address, config: HealthConfig) -> None:
        self.up = True
        self._address = address
        self._config = config
        self._bad = 0
        self._good = 0

    def connected(self) -> None:
        """Where nothing is asked, a connection is a good answer. Else it says nothing: who accepts
        connections may be ill all the same.
        """
        if not self._config.path:
            self.good()

    def good(self) -> None:
        self._bad = 0
        self._good += 1
        if not self.up and self._good >= self._config.rise:
            self.up = True
            _log.warning("upstream %s is up again", self._address)

    def bad(self, reason: object) -> None:
        self._good = 0
        self._bad += 1
        if self.up and self._bad >= self._config.fall:
            self.up = False
            _log.warning("upstream %s is down: %s", self._address, reason)

    def fall(self) -> None:
        """Others have found it down."""
        self.up = False
        self._good = 0
        _log.warning("upstream %s is down: it can't be connected to", self._address)

    async def watch(self) -> None:
        """Asks until it is cancelled. Without a path only while it is down, whether it can be
        connected to.
        """
        config = self._config
        while True:
            if config.path or not self.up:
                await self._look()
            await asyncio.sleep(config.interval_ms / 1000)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._config.timeout_ms / 1000):
                flaw = await self._ask()
        except TimeoutError:
            flaw = f"no answer within {self._config.timeout_ms} ms"
        except OSError as error:
            flaw = str(error)
        if flaw:
            self.bad(flaw)
        else:
            self.good()

    async def _ask(self) -> str:
        """What is wrong; "": nothing."""
        address, path = self._address, self._config.path
        if address.port:
            reader, writer = await asyncio.open_connection(address.host, address.port)
        else:
            reader, writer = await asyncio.open_unix_connection(address.host)
        try:
            if not path:
                return ""
            writer.write(
                b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (path.encode(), address.authority)
                + b"User-Agent: railswitch\r\nConnection: close\r\n\r\n"
            )
            status = await _status(reader)
        finally:
            writer.close()
        if 0 < status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return ""
        return f"GET {path} was answered with {status or 'no HTTP'}"


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the final answer; 0: there is none."""
    heads = AnswerHeads(HeaderKinds())
    while data := await reader.read(HEAD_BYTES_MAX):
        while (head := heads.feed(data)) is not None:
            if isinstance(head, Refused):
                return 0
            if head.status >= HTTPStatus.OK:
                return head.status
            data = heads.rest
    return 0
