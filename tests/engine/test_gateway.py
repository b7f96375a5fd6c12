"""The service on real sockets: who is let in, what is answered and when, who is sent away."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_harness import KEYS, Raw, flat, open_market, orders, raw, run, service, until
from market_driver import BTC, cancel, changed, clear, new

from engine import limits
from engine.errors import EngineError, ListenFailed
from engine.gateway import Connection
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
from engine.types import EventKind, Role
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, encode_commands, session_command

SESSION_COMMAND = session_command(session=9, name="x", role=Role.ADMIN)


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


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (message(MessageType.COMMANDS), "0 bytes of commands"),
        (message(MessageType.COMMANDS, b"c" * 65), "65 bytes of commands"),
        (
            message(
                MessageType.COMMANDS,
                encode_commands([session_command(session=9, name="x", role=3)]),
            ),
            "by logging in",
        ),
        (HEADER.pack(limits.CLIENT_PAYLOAD_BYTES_MAX + 1, ord("C"), VERSION, 0), "the most is"),
        (HEADER.pack(64, ord("C"), 9, 0), "version 9"),
        (message(MessageType.ACCEPTED), "unknown type 65"),
        (message(MessageType.HEARTBEAT, b"h"), "a heartbeat with a payload"),
        (message(MessageType.SUBSCRIBE, b"s"), "a subscription with a payload"),
        (message(MessageType.QUERY, b"\xc1"), "no Query"),
        (packed(MessageType.LOGIN, Login(name="x", key=KEYS[Role.TRADE])), "a second login"),
        (message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(1)) * 2, "a second subscription"),
    ],
)
def test_bytes_that_are_no_message_end_the_connection_with_a_reason(
    tmp_path: Path, data: bytes, told: str
) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            await one.send(data)
            rejected = await one.rejected()
            assert rejected.code == RejectCode.PROTOCOL
            assert told in rejected.reason

    run(story())


def test_garbage_from_many_connections_never_stops_the_service(tmp_path: Path) -> None:
    chance = random.Random(5)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            for n in range(60):
                one = await Raw.connect(port)
                if n % 2:
                    await one.login(f"garbage-{n % 4}")
                one.writer.write(chance.randbytes(chance.randrange(1, 4_000)))
                if n % 3 == 0:
                    one.writer.write(message(MessageType.COMMANDS, chance.randbytes(640)))
                one.close()
            async with raw(port) as one:
                await one.login("proxy-0")
                await one.commands(*orders(1, 2, first_ref=1))
                assert flat(await one.answers(2))[-1].kind == EventKind.FILL

    run(story())


def test_every_field_of_a_command_may_be_garbage(tmp_path: Path) -> None:
    """Each is answered, by a reject with a reason."""
    chance = random.Random(6)

    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            for ref in range(1, 201):
                command = bytearray(chance.randbytes(64))
                command[0] = chance.choice([0, 1, 2, 16, 17, 18, 20, 255])
                command[16:24] = ref.to_bytes(8, "little")
                await one.send(message(MessageType.COMMANDS, bytes(command)))
            for ref, (event,) in enumerate(await one.answers(200), 1):
                assert (event.kind, event.ref) == (EventKind.REJECTED, ref)
                assert event.reason != Reason.NONE

    run(story())


def test_one_byte_at_a_time_is_as_good(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                login = packed(MessageType.LOGIN, Login(name="proxy-0", key=KEYS[Role.TRADE]))
                for at in range(len(login)):
                    await one.send(login[at : at + 1])
                    await asyncio.sleep(0)
                await one.expect(MessageType.ACCEPTED)
                data = message(MessageType.COMMANDS, encode_commands(orders(1, 4, first_ref=1)))
                for at in range(len(data)):
                    await one.send(data[at : at + 1])
                    await asyncio.sleep(0)
                assert [event.ref for event in flat(await one.answers(4))] == [1, 2, 2, 3, 4, 4]

    run(story())


def test_many_messages_in_one_read_are_all_answered_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                commands = orders(1, 500, first_ref=1)
                each = [message(MessageType.COMMANDS, encode_commands([one])) for one in commands]
                await one.send(message(MessageType.HEARTBEAT).join(each))
                answers = await one.answers(500)
                assert [answer[0].ref for answer in answers] == list(range(1, 501))
                seqs = [answer[0].seq for answer in answers]
                assert seqs == list(range(seqs[0], seqs[0] + 500))

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


def test_a_client_that_sends_too_much_waits_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PENDING_BYTES_MAX", 64 * 100)
    pauses: list[int] = []
    pass_on = Connection._pass_on

    def watched(self: Connection, commands: list[memoryview]) -> None:
        assert self._is_reading, "more was read while it should have waited"
        pass_on(self, commands)
        if not self._is_reading:
            pauses.append(self._pending_bytes)

    monkeypatch.setattr(Connection, "_pass_on", watched)
    count = 20_000
    rows = np.zeros(count, COMMAND_DTYPE)  # of an unknown kind: rejected, cheaply
    rows["ref"] = range(1, count + 1)

    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            for first in range(0, count, 500):
                batch = rows[first : first + 500].tobytes()
                one.writer.write(message(MessageType.COMMANDS, batch))
            refs: list[int] = []
            while len(refs) < count:
                payload = await one.expect(MessageType.EVENTS)
                refs += np.frombuffer(payload, EVENT_DTYPE, offset=EVENTS.size)["ref"].tolist()
            assert refs == list(range(1, count + 1))

    run(story())
    assert pauses


def test_a_client_that_does_not_read_is_disconnected_and_can_read_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OUTBOUND_BYTES_MAX", 2**18)

    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            one.reader._transport.pause_reading()  # type: ignore[attr-defined]
            for first in range(1, 400_000, 4_000):
                batch = [new(n, ref=n, instrument=9) for n in range(first, first + 4_000)]
                one.writer.write(message(MessageType.COMMANDS, encode_commands(batch)))
                await asyncio.sleep(0.001)
                if first > 100_000 and one.writer.transport.get_write_buffer_size() == 0:
                    break
            one.reader._transport.resume_reading()  # type: ignore[attr-defined]
            rejected = await one.rejected()
            assert rejected.code == RejectCode.SLOW
            assert "not read in time" in rejected.reason

    run(story())


def test_heartbeats_come_and_silence_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(limits, "SILENCE_S", 0.5)
    monkeypatch.setattr(limits, "LOGIN_S", 0.5)

    async def story() -> None:
        async with service(tmp_path) as port:
            async with raw(port) as lively, raw(port) as silent, raw(port) as nameless:
                await lively.login("lively")
                await silent.login("silent")
                ending = asyncio.ensure_future(asyncio.wait_for(silent.rejected(), 10))
                while not ending.done():
                    await lively.send(message(MessageType.HEARTBEAT))
                    await asyncio.sleep(0.02)
                assert ending.result().code == RejectCode.SILENT
                assert "no login within" in (await nameless.rejected()).reason
                assert (await lively.ask("status")).status is not None
                data = await lively.reader.readexactly(HEADER.size)
                assert data == message(MessageType.HEARTBEAT)

    run(story())


def test_connections_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)

    async def story() -> None:
        async with service(tmp_path) as port:
            async with raw(port) as one, raw(port) as two, raw(port) as three:
                await one.login("one")
                await two.login("two")
                rejected = await three.rejected()
                assert rejected.code == RejectCode.FULL
                assert "2 connections already" in rejected.reason

    run(story())


def test_questions_that_have_no_answer_are_told_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login()
            assert "instrument 5" in (await one.ask("book", 5)).error
            assert "book or status" in (await one.ask("weather")).error

    run(story())


def test_a_service_that_stops_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 0.2)

    async def story() -> None:
        async with service(tmp_path) as port:
            one = await Raw.connect(port)
            await one.login()
        assert (await one.rejected()).code == RejectCode.STOPPING

    run(story())


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path / "one") as port:
            with pytest.raises(ListenFailed, match=rf"127.0.0.1:{port}: .*in use.*engine\.listen"):
                async with service(tmp_path / "two", port=port):
                    pass
        # It did not leave its journal locked.
        async with service(tmp_path / "two"):
            pass

    run(story())


def test_an_implementation_that_is_none_is_an_error(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(EngineError, match="quantum"):
            async with service(tmp_path, implementation="quantum"):
                pass

    run(story())
