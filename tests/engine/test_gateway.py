"""The service on real sockets: who is let in, what is answered and when, who is sent away."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_harness import (
    KEYS,
    by_command,
    flat,
    open_market,
    orders,
    raw,
    run,
    service,
    until,
)
from market_driver import BTC, cancel, changed, clear, market_or_skip, new

from engine.protocol import (
    EVENTS,
    HEADER,
    SUBSCRIBE,
    VERSION,
    Login,
    MessageType,
    RejectCode,
    message,
    packed,
)
from engine.reject import Reason
from engine.types import Command, CommandKind, EventKind, Role


class SlowDisk:
    """Holds every fdatasync until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.let_go.set()
        self.waiting = 0
        self._sync = os.fdatasync

    def sync(self, fd: int) -> None:
        self.waiting += 1
        assert self.let_go.wait(30)
        self.waiting -= 1
        self._sync(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk()
    monkeypatch.setattr(os, "fdatasync", slow.sync)
    yield slow
    slow.let_go.set()


def test_a_session_keeps_its_number_and_references_over_logins_and_restarts(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        for round_ in range(2):
            async with service(tmp_path) as port:
                await open_market(port, epoch=1 + round_)
                async with raw(port) as one:
                    accepted = await one.login()
                    assert (accepted.session, accepted.role) == (2, Role.TRADE)
                    assert accepted.last_ref == 40 * round_
                    assert (accepted.implementation, accepted.shard) == ("python", 1)
                    await one.commands(*orders(1, 40, first_ref=1 + 40 * round_))
                    answers = await one.answers(40)
                    assert answers[-1][0].ref == 40 + 40 * round_
                async with raw(port) as one:
                    accepted = await one.login()
                    assert accepted.last_ref == 40 + 40 * round_
                    assert accepted.head_seq == answers[-1][0].seq

    run(story())


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (packed(MessageType.LOGIN, Login(name="x", key="wrong")), "login", "unknown key"),
        (packed(MessageType.LOGIN, Login(name="x", key="")), "login", "unknown key"),
        (packed(MessageType.LOGIN, Login(name="x", key="schlüssel")), "login", "unknown key"),
        (packed(MessageType.LOGIN, Login(name="n" * 33, key=KEYS[Role.TRADE])), "login", "longer"),
        (packed(MessageType.LOGIN, Login(name="", key=KEYS[Role.TRADE])), "login", "no session"),
        (packed(MessageType.LOGIN, Login(name="a\nb", key=KEYS[Role.TRADE])), "login", "printable"),
        (message(MessageType.LOGIN, b"\xff"), "protocol", "no Login"),
        (message(MessageType.LOGIN, b"\x82\xa4name\xa1\xff\xa3key\xa1k"), "protocol", "no Login"),
        (message(MessageType.HEARTBEAT), "protocol", "first message must be a login"),
        (message(MessageType.COMMANDS, b"c" * 64), "protocol", "before the login"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "protocol", "protocol version"),
        (HEADER.pack(5_000, ord("L"), VERSION, 0), "protocol", "the most is 4096"),
    ],
)
def test_who_is_not_let_in_is_told_why(tmp_path: Path, data: bytes, code: str, told: str) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.send(data)
            rejected = await one.rejected()
            assert rejected.code == code
            assert told in rejected.reason

    run(story())


def test_each_session_is_sent_its_own_events_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one, raw(port) as other:
                await one.login("proxy-0")
                await other.login("proxy-1")
                await one.commands(changed(new(1, 1), ref=1))
                await one.answers(1)
                await other.commands(changed(new(2, 2), ref=1))
                ((accepted, fill),) = await other.answers(1)
                assert (accepted.order_id, fill.contra_id) == (2, 1)
                reply = await one.ask("status")  # the next thing that `one` is sent
                assert reply.status is not None

    run(story())


def test_roles_are_kept_apart(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login("shadow-feed", Role.SHADOW)
                await one.commands(changed(new(1), ref=1), changed(clear(), ref=2))
                answers = flat(await one.answers(2))
                assert [event.reason for event in answers] == [Reason.INSTRUMENT_LIVE] * 2
            async with raw(port) as one:
                await one.login("reader", Role.READ_ONLY)
                await one.commands(changed(cancel(1), ref=1))
                assert flat(await one.answers(1))[0].reason == Reason.NOT_PERMITTED
            async with raw(port) as one:
                login = Login(name="reader", key=KEYS[Role.ADMIN])
                await one.send(packed(MessageType.LOGIN, login))
                assert "has the role READ_ONLY" in (await one.rejected()).reason

    run(story())


def test_a_new_login_takes_the_session_over_from_the_old_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as old, raw(port) as new_one:
                await old.login()
                await old.commands(*orders(1, 3, first_ref=1))
                await old.answers(3)
                accepted = await new_one.login()
                assert accepted.last_ref == 3
                assert (await old.rejected()).code == RejectCode.TAKEN_OVER
                await new_one.commands(changed(new(9), ref=4))
                assert flat(await new_one.answers(1))[0].ref == 4

    run(story())


def test_a_takeover_waits_for_what_the_old_connection_had_sent(
    tmp_path: Path, disk: SlowDisk
) -> None:
    """Else the new connection could use a reference that is about to be used."""

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as old, raw(port) as new_one:
                await old.login()
                disk.let_go.clear()
                await old.commands(*orders(1, 3, first_ref=1))
                await until(lambda: disk.waiting, "the frame is being synced")
                await old.commands(*orders(4, 3, first_ref=4))
                login = Login(name="proxy-0", key=KEYS[Role.TRADE])
                await asyncio.sleep(0.05)
                await new_one.send(packed(MessageType.LOGIN, login))
                assert (await old.rejected()).code == RejectCode.TAKEN_OVER
                disk.let_go.set()
                payload = await new_one.expect(MessageType.ACCEPTED)
                assert b"\xa8last_ref\x06" in payload

    run(story())


def test_a_reference_sent_again_gets_its_original_outcome_byte_for_byte(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                await one.commands(*orders(1, 4, first_ref=1))
                original = await one.expect(MessageType.EVENTS)
            async with raw(port) as one:
                before = await one.login()
                await one.commands(*orders(1, 4, first_ref=1))
                assert await one.expect(MessageType.EVENTS) == original
                await one.commands(*orders(50, 1, first_ref=3))  # another order: it changes nothing
                (again,) = await one.answers(1)
                # It is not told of the first one's fills as if they were its own.
                assert (again[0].order_id, again[0].reason) == (50, Reason.REF_NOT_INCREASING)
                assert again[0].seq == 0
                reply = await one.ask("status")
                assert reply.status is not None
                assert reply.status.seq == before.head_seq

    run(story())


def test_every_kind_of_command_sent_again_gets_its_original_outcome_over_restarts_too(
    tmp_path: Path, implementation: str
) -> None:
    """Also where the gateway had commands of its own sequenced between them."""
    of_one = {"instrument": BTC, "epoch": 1, "account": 7, "order_id": 1}
    commands = [
        new(1, 1, 100, 9, ref=1),
        Command(kind=CommandKind.REDUCE, ref=2, qty_lots=8, **of_one),
        Command(kind=CommandKind.REPLACE, ref=3, price_ticks=90, qty_lots=7, aux=5, **of_one),
        cancel(1, ref=4),
        Command(kind=CommandKind.MASS_CANCEL, ref=5, account=7, flags=1, aux=1),
        new(9, 1, 100, 9, ref=6),
    ]

    async def story() -> None:
        originals: list[bytes] = []
        for round_ in range(2):
            async with service(tmp_path, implementation=implementation) as port:
                if not round_:
                    await open_market(port)
                for _ in range(2):
                    async with raw(port) as one:
                        accepted = await one.login(cancel_on_disconnect=True)
                        assert accepted.last_ref == (6 if originals else 0)
                        answers = []
                        for command in commands:
                            await one.commands(command)
                            answers.append(await one.expect(MessageType.EVENTS))
                        originals = originals or answers
                        assert answers == originals
                        await one.send(message(MessageType.LOGOUT))
        kinds = [next(by_command(one[EVENTS.size :]))[0].kind for one in originals]
        assert kinds == [
            EventKind.ACCEPTED,
            EventKind.REDUCED,
            EventKind.REPLACED,
            EventKind.REJECTED,
            EventKind.CANCELED,
            EventKind.ACCEPTED,
        ]

    market_or_skip(implementation)
    run(story())


def test_nothing_leaves_before_it_is_durable(tmp_path: Path, disk: SlowDisk) -> None:
    """Neither an answer nor a tail nor the state that a question would show."""

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one, raw(port) as other, raw(port) as follower:
                accepted = await one.login()
                await other.login("reader", Role.READ_ONLY)
                await follower.login("reader", Role.READ_ONLY, observe=True)
                next_seq = accepted.head_seq + 2
                await follower.send(message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(next_seq)))
                assert (await other.ask("book", BTC)).book.orders == b""  # type: ignore[union-attr]
                disk.let_go.clear()
                await one.commands(changed(new(1), ref=1))
                await until(lambda: disk.waiting, "the frame is being synced")
                asked = asyncio.ensure_future(other.ask("book", BTC))
                answered = asyncio.ensure_future(one.answers(1))
                followed = asyncio.ensure_future(follower.tail())
                done, _ = await asyncio.wait({asked, answered, followed}, timeout=0.3)
                assert not done
                disk.let_go.set()
                assert (await answered)[0][0].seq == next_seq
                assert (await followed)[:2] == (next_seq, next_seq)
                book = (await asked).book
                assert book is not None
                assert (book.seq, len(book.orders)) == (next_seq, 48)

    run(story())


def test_all_that_arrives_during_a_sync_is_the_next_frame(tmp_path: Path, disk: SlowDisk) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                before = (await one.ask("status")).status
                disk.let_go.clear()
                for ref in range(1, 31):
                    await one.commands(changed(new(ref), ref=ref))
                    await asyncio.sleep(0.002)
                disk.let_go.set()
                await one.answers(30)
                after = (await one.ask("status")).status
                assert before is not None
                assert after is not None
                assert after.frames - before.frames == 2

    run(story())


def test_questions_that_have_no_answer_are_told_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            assert "instrument 5" in (await one.ask("book", 5)).error
            assert "book, account or status" in (await one.ask("weather")).error

    run(story())
