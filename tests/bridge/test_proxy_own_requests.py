"""Requests of our own to the monolith: sent once, with nothing in them that is not meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxy_rig import Monolith, Visit, response, run

from bridge.errors import LegacyNotReached, LegacyOutcomeUnknown
from bridge.proxy.desk.own_requests import OwnRequests


def own_request(own: OwnRequests, method: bytes = b"DELETE") -> Any:
    return own.ask(method, b"/a%20b?c=%2F", [(b"Cookie", b"a=1"), (b"x", "ü".encode())], b"", b"")


def test_a_request_of_our_own_is_sent_once_whatever_happens(tmp_path: Path) -> None:
    came: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        came.append(await visit.request())
        if len(came) == 1:
            await visit.answer(response(b"ok", "200 OK", b"Set-Cookie: b=2"))
            await visit.reader.read()  # kept open, as a monolith would

    async def story() -> None:
        for path in (None, tmp_path / "sock"):
            came.clear()
            there = Monolith(monolith)
            there.path = path
            async with there:
                own = OwnRequests([there.upstream])
                try:
                    assert await own_request(own) == (200, b"ok")
                    with pytest.raises(LegacyOutcomeUnknown):
                        await own_request(own)
                finally:
                    await own.close()
            assert [one.split(b"\r\n")[0] for one in came] == [b"DELETE /a%20b?c=%2F HTTP/1.1"] * 2
            assert b"\r\nCookie: a=1\r\n" in came[1]  # and not the monolith's own
            assert "\r\nx: ü\r\n".encode() in came[1]

    run(story())


def test_another_upstream_gets_what_the_first_has_not_been_sent() -> None:
    async def story() -> None:
        async with Monolith(response(b"second")) as second:
            own = OwnRequests(["http://127.0.0.1:1", second.upstream])
            nowhere = OwnRequests(["http://127.0.0.1:1", "unix:/nowhere"])
            try:
                assert await own_request(own) == (200, b"second")
                with pytest.raises(LegacyNotReached):
                    await own_request(nowhere)
            finally:
                await own.close()
                await nowhere.close()

    run(story())


def test_a_monolith_that_never_answers_has_an_unknown_outcome() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.reader.read()

    async def story() -> None:
        async with Monolith(monolith) as there:
            own = OwnRequests([there.upstream], connect_s=0.1, answer_s=0.1)
            try:
                with pytest.raises(LegacyOutcomeUnknown):
                    await own_request(own, b"POST")
            finally:
                await own.close()

    run(story())
