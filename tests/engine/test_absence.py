"""Sessions that go away, and what becomes of the orders of those that asked for it. Seen in the
tail, as everything is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from engine_harness import (
    KEYS,
    WAIT_S,
    Raw,
    open_market,
    raw,
    run,
    seen,
    service,
    started,
    until,
)
from market_driver import BTC, changed, new

from engine import limits
from engine.client import EngineClient
from engine.errors import LoginRefused
from engine.protocol import Login, MessageType, RejectCode, message, packed
from engine.reject import Reason
from engine.types import EventKind, Role
from engine.wire import encode_commands


async def entered(port: int, *ids: int, cancel_on_disconnect: bool = True) -> Raw:
    """A session of its own, with these orders."""
    one = await Raw.connect(port)
    accepted = await one.login(cancel_on_disconnect=cancel_on_disconnect)
    assert accepted.cancel_on_disconnect == cancel_on_disconnect
    if ids:
        placed = [changed(new(n), ref=accepted.last_ref + i) for i, n in enumerate(ids, 1)]
        await one.commands(*placed)
        await one.answers(len(ids))
    return one


async def log_out(one: Raw) -> None:
    await one.send(message(MessageType.LOGOUT))


async def vanish(one: Raw) -> None:
    one.writer.transport.abort()


async def talk_nonsense(one: Raw) -> None:
    await one.send(b"x" * 100)


async def close_its_side(one: Raw) -> None:
    one.writer.write_eof()


async def say_nothing(one: Raw) -> None:
    """For as long as it takes."""


@pytest.mark.parametrize(
    "leave", [log_out, vanish, talk_nonsense, close_its_side, say_nothing], ids=lambda f: f.__name__
)
def test_a_session_that_goes_away_takes_its_orders_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Raw], Awaitable[None]]
) -> None:
    if leave is say_nothing:
        monkeypatch.setattr(limits, "SILENCE_S", 0.3)
        monkeypatch.setattr(limits, "HEARTBEAT_S", 0.05)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port, "proxy-1") as other, seen(port) as found:
                await other.send([new(9)], timeout_s=WAIT_S)
                one = await entered(port, 1, 2, 3)
                await leave(one)
                await until(lambda: found.of(EventKind.MASS_CANCELED), "its orders are canceled")
                assert found.ids(Reason.DISCONNECTED) == [1, 2, 3]
                (last,) = found.of(EventKind.MASS_CANCELED)
                assert (last.qty_lots, last.leaves_lots, last.ref) == (3, 0, 0)
                # Nobody else's.
                assert [each.order_id for each in (await other.book(BTC)).orders] == [9]
                one.close()

    run(story())


def test_what_a_reader_too_slow_left_open_is_canceled_when_it_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when it has read why."""
    monkeypatch.setattr(limits, "OUTBOUND_BYTES_MAX", 2**18)
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 600.0)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with seen(port) as found:
                one = await entered(port, 1)
                one.reader._transport.pause_reading()  # type: ignore[attr-defined]
                for first in range(2, 400_000, 4_000):
                    batch = [new(n, ref=n, instrument=9) for n in range(first, first + 4_000)]
                    one.writer.write(message(MessageType.COMMANDS, encode_commands(batch)))
                    await asyncio.sleep(0.001)
                    if found.of(EventKind.MASS_CANCELED):
                        break
                await until(lambda: found.of(EventKind.MASS_CANCELED), "its orders are canceled")
                assert found.ids(Reason.DISCONNECTED) == [1]
                await vanish(one)

    run(story())


def test_a_session_that_did_not_ask_keeps_its_orders(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            await vanish(await entered(port, 1, cancel_on_disconnect=False))
            async with started(port) as one:
                assert len((await one.book(BTC)).orders) == 1
            async with seen(port) as found, started(port, "proxy-1") as other:
                await other.send([new(2)], timeout_s=WAIT_S)
                await until(lambda: 2 in [each.order_id for each in found.events], "the tail came")
                assert found.of(EventKind.MASS_CANCELED) == []
                assert found.of(EventKind.SESSION_OPTIONS) == []

    run(story())


def test_the_option_is_journalled_when_it_changes_and_only_then(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with seen(port) as found:
                for wish in (True, True, False, False, True):
                    one = await entered(port, cancel_on_disconnect=wish)
                    await log_out(one)
                    with pytest.raises(EOFError):
                        await one.receive()
                    one.close()
                told = lambda: found.of(EventKind.SESSION_OPTIONS)  # noqa: E731
                await until(lambda: len(told()) == 3, "three changes")
                assert [event.contra_id for event in told()] == [1, 0, 1]
                assert {event.contra_leaves_lots for event in told()} == {2}
        async with service(tmp_path) as port, seen(port) as found:
            one = await entered(port)  # as the journal has it already
            await log_out(one)
            await until(lambda: len(found.of(EventKind.MASS_CANCELED)) == 4, "four times gone")
            assert len(found.of(EventKind.SESSION_OPTIONS)) == 3
            one.close()

    run(story())


def test_a_takeover_cancels_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with seen(port) as found:
                old = await entered(port, 1)
                newer = await entered(port, 2)
                assert (await old.rejected()).code == RejectCode.TAKEN_OVER
                async with started(port, "proxy-1") as other:
                    book = await other.book(BTC)
                    assert [each.order_id for each in book.orders] == [1, 2]
                await vanish(newer)
                await until(lambda: found.of(EventKind.MASS_CANCELED), "its orders are canceled")
                assert found.ids(Reason.DISCONNECTED) == [1, 2]

    run(story())


def test_a_login_without_the_option_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            old = await entered(port, 1)
            newer = await entered(port, 2, cancel_on_disconnect=False)
            await vanish(newer)
            async with started(port, "proxy-1") as other:
                await other.send([new(3)], timeout_s=WAIT_S)
                assert len((await other.book(BTC)).orders) == 3
            old.close()

    run(story())


def test_commands_before_a_logout_are_done_before_the_cancels(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with seen(port) as found:
                one = await entered(port)
                last = message(MessageType.COMMANDS, encode_commands([changed(new(7), ref=1)]))
                await one.send(last + message(MessageType.LOGOUT))
                await until(lambda: found.of(EventKind.MASS_CANCELED), "its orders are canceled")
                assert found.ids(Reason.DISCONNECTED) == [7]
                one.close()

    run(story())


def test_a_client_of_python_asks_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            one = EngineClient(
                host="127.0.0.1",
                port=port,
                name="proxy-0",
                key=KEYS[Role.TRADE],
                cancel_on_disconnect=True,
            )
            await one.start()
            await one.send([new(1)], timeout_s=WAIT_S)
            async with seen(port) as found:
                await one.close()
                await until(lambda: found.ids(Reason.DISCONNECTED) == [1], "its order is canceled")

    run(story())


@pytest.mark.parametrize("role", [Role.SHADOW, Role.ADMIN, Role.READ_ONLY])
def test_only_who_trades_may_ask(tmp_path: Path, role: Role) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            one = EngineClient(
                host="127.0.0.1",
                port=port,
                name="somebody",
                key=KEYS[role],
                cancel_on_disconnect=True,
            )
            with pytest.raises(LoginRefused, match="only a session of role TRADE"):
                await one.start()
            async with raw(port) as observer:
                login = Login(
                    name="x", key=KEYS[Role.TRADE], observe=True, cancel_on_disconnect=True
                )
                await observer.send(packed(MessageType.LOGIN, login))
                assert (await observer.rejected()).code == RejectCode.LOGIN

    run(story())


def test_more_orders_than_one_command_cancels_are_canceled_before_the_session_is_back(
    tmp_path: Path, implementation: str
) -> None:
    count = 2 * limits.MASS_CANCEL_MAX + 100

    async def story() -> None:
        async with service(tmp_path, implementation=implementation) as port:
            await open_market(port)
            async with seen(port) as found:
                one = EngineClient(
                    host="127.0.0.1",
                    port=port,
                    name="proxy-0",
                    key=KEYS[Role.TRADE],
                    cancel_on_disconnect=True,
                )
                await one.start()
                same_side = [new(n, 1, 100 + n % 50) for n in range(1, count + 1)]
                await one.send_batch(encode_commands(same_side), timeout_s=60)
                assert one._link is not None
                one._link.abort()
                await until(lambda: not one.is_connected, "it is noticed")
                # It is let in again only when nothing of it is left.
                (answer,) = await one.send([new(count + 1)], timeout_s=60)
                assert [each.order_id for each in (await one.book(BTC)).orders] == [count + 1]
                await until(lambda: found.events[-1].seq >= answer.seq, "the tail came")
                told = [(e.qty_lots, e.leaves_lots) for e in found.of(EventKind.MASS_CANCELED)]
                most = limits.MASS_CANCEL_MAX
                assert told == [(most, count - most), (most, count - 2 * most), (100, 0)]
                await one.close()

    run(story())


def test_after_a_restart_who_is_not_back_in_time_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ABSENCE_GRACE_S", 1.0)
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 0.1)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            back = await entered(port, 1)
            gone = await Raw.connect(port)
            await gone.login("proxy-1", cancel_on_disconnect=True)
            await gone.commands(changed(new(2), ref=1))
            await gone.answers(1)
            stays = await Raw.connect(port)
            await stays.login("proxy-2")
            await stays.commands(changed(new(3), ref=1))
            await stays.answers(1)
        for each in (back, gone, stays):
            each.close()
        async with service(tmp_path) as port:
            back = await entered(port)
            async with seen(port) as found:
                await until(lambda: found.of(EventKind.MASS_CANCELED), "its orders are canceled")
                assert found.ids(Reason.DISCONNECTED) == [2]
                book = (await back.ask("book", BTC)).book
                assert book is not None
                assert len(book.orders) == 2 * 48
            back.close()

    run(story())
