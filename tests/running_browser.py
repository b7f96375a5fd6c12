"""Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from programs import needed

PATIENCE_S = 30.0
_MESSAGE_BYTES_MAX = 1 << 26
# It is root in a container as often as not, and must ask for nothing but what the test asks for.
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-proxy-server", "--remote-debugging-port=0", "about:blank"),
)


class Browser:
    """A running one; each page is of a profile of its own."""

    def __init__(self, devtools: str) -> None:
        self._devtools = devtools

    async def run(self, url: str, script: str) -> Any:
        """Goes to `url` and runs the body of an async function there: what it returns."""
        async with asyncio.timeout(PATIENCE_S), self.page(url) as page:
            return await page.run(script)

    @contextlib.asynccontextmanager
    async def page(self, url: str) -> AsyncIterator[Page]:
        async with aiohttp.ClientSession() as session:
            connect = session.ws_connect(self._devtools, max_msg_size=_MESSAGE_BYTES_MAX)
            async with connect as socket:
                page = Page(socket)
                await page.open()
                await page.go(url)
                yield page
                await page.close()


class Page:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = ""
        self._context = ""
        self._loaded = 0

    async def open(self) -> None:
        self._context = (await self._ask("Target.createBrowserContext"))["browserContextId"]
        target = await self._ask(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = await self._ask(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        await self._ask("Page.enable")

    async def close(self) -> None:
        self._session = ""
        await self._ask("Target.disposeBrowserContext", browserContextId=self._context)

    async def go(self, url: str) -> None:
        """Until its load event."""
        loaded = self._loaded
        answer = await self._ask("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        await self._until_loaded(loaded + 1)

    async def run(self, script: str) -> Any:
        """The body of an async function: what it returns."""
        answer = await self._ask(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def submit(self, selector: str) -> str:
        """Submits a form and follows; the text of the page that it leads to."""
        loaded = self._loaded
        await self.run(f"document.querySelector({selector!r}).submit()")
        await self._until_loaded(loaded + 1)
        return str(await self.run("return document.body.innerText"))

    async def _until_loaded(self, count: int) -> None:
        while self._loaded < count:
            self._hear(await self._socket.receive_json())

    async def _ask(self, method: str, **parameters: object) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        while True:
            heard = await self._socket.receive_json()
            if heard.get("id") == number:
                assert "error" not in heard, heard["error"]
                return heard["result"]
            self._hear(heard)

    def _hear(self, heard: dict[str, Any]) -> None:
        self._loaded += heard.get("method") == "Page.loadEventFired"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = needed("chromium", "chromium-headless-shell", package="chromium")
    profile: Path = tmp_path_factory.mktemp("chromium")
    log = profile / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, *_OPTIONS, f"--user-data-dir={profile}"], stdout=said, stderr=said
        )
    with process:
        try:
            yield Browser(_devtools(process, log))
        finally:
            process.terminate()


def _devtools(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, which it says once it does."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"^DevTools listening on (\S+)$", log.read_text(), re.MULTILINE)
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"Chromium did not start:\n{log.read_text()}")
