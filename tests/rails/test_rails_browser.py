"""Chromium on a page of the Rails exchange: its session, its forms, its cable."""

from __future__ import annotations

import asyncio

from running_browser import Browser, browser
from running_proxy import Proxy

__all__ = ["browser"]

CABLE = """
const told = [];
const socket = new WebSocket(`ws://${location.host}/cable?visitor=eve`, ["actioncable-v1-json"]);
const identifier = JSON.stringify({ channel: "MarketChannel", market: "SOL-USD" });
await new Promise((done, failed) => {
  socket.onerror = failed;
  socket.onmessage = async (event) => {
    const { type, message } = JSON.parse(event.data);
    if (type === "welcome") socket.send(JSON.stringify({ command: "subscribe", identifier }));
    if (type === "confirm_subscription")
      await fetch("/broadcasts?market=SOL-USD&text=news", { method: "POST" });
    if (message) { told.push(message.text); done(); }
  };
});
socket.close();
return told;
"""


def test_a_browser_places_and_cancels(browser: Browser, proxy: Proxy) -> None:
    """Rails checks the token, the session's cookie and the Origin of each form."""

    async def story() -> tuple[str, str, str]:
        async with browser.page(f"http://127.0.0.1:{proxy.port}/") as page:
            placed = await page.submit("#place")
            where = str(await page.run("return location.search"))
            canceled = await page.submit(".cancel:last-of-type")
            return placed, where, canceled

    placed, where, canceled = asyncio.run(story())
    number = where.removeprefix("?placed=")
    assert f"{number} buy 100.5 open" in placed
    assert f"{number} buy 100.5 cancelled" in canceled


def test_a_browser_hears_news_by_action_cable(browser: Browser, proxy: Proxy) -> None:
    told = asyncio.run(browser.run(f"http://127.0.0.1:{proxy.port}/", CABLE))
    assert told == ["news"]
