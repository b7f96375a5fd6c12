"""Too much, too slow, too many, or nothing at all: what the gateway does to stay able to answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from engine_harness import WAIT_S, Raw, open_market, orders, raw, run, service, started
from market_driver import new

from engine import limits
from engine.errors import EngineError, ListenFailed
from engine.gateway import Connection
from engine.protocol import EVENTS, HEADER, SUBSCRIBE, MessageType, RejectCode, message
from engine.types import EventKind, Role
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, encode_commands


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


def test_a_client_that_never_reads_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while its answers pile up, nor when it is sent away, nor by a tail it asked for."""
    monkeypatch.setattr(limits, "OUTBOUND_BYTES_MAX", 2**20)
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 600.0)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port, "proxy-1") as other:
                deaf, follower = await Raw.connect(port), await Raw.connect(port)
                await deaf.login()
                await follower.login("reader", Role.READ_ONLY, observe=True)
                await follower.send(message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(1)))
                for one in (deaf, follower):
                    one.reader._transport.pause_reading()  # type: ignore[attr-defined]
                answered = 0
                while "proxy-0" in (status := await other.status()).connected:
                    first = 1 + 4_000 * answered
                    batch = [new(n, ref=n, instrument=9) for n in range(first, first + 4_000)]
                    deaf.writer.write(message(MessageType.COMMANDS, encode_commands(batch)))
                    (answer,) = await other.send([new(10**9 + answered)], timeout_s=WAIT_S)
                    assert answer.events[0].kind == EventKind.ACCEPTED
                    answered += 1
                    assert answered < 1_000
                assert status.tails == 1
                assert len(await other.send(orders(1, 100), timeout_s=WAIT_S)) == 100
                for one in (deaf, follower):
                    one.writer.transport.abort()

    run(story())


def test_a_client_that_sends_one_byte_at_a_time_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as slow, started(port, "proxy-1") as other:
                await slow.login()
                data = message(MessageType.COMMANDS, encode_commands(orders(1, 2, first_ref=1)))
                for at in range(len(data)):
                    await slow.send(data[at : at + 1])
                    if at % 10 == 0:
                        await other.send([new(1_000 + at, price_ticks=50)], timeout_s=WAIT_S)
                assert len(await slow.answers(2)) == 2

    run(story())


def test_hundreds_of_connections_are_served_and_one_too_many_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 300)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as trader:
                many = [await Raw.connect(port) for _ in range(limits.CONNECTIONS_MAX - 1)]
                for n, one in enumerate(many):
                    await one.login(f"reader-{n}", Role.READ_ONLY, observe=True)
                    await one.send(message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(1)))
                async with raw(port) as late:
                    assert (await late.rejected()).code == RejectCode.FULL
                await trader.send([new(77)], timeout_s=WAIT_S)
                for one in many:
                    last_seq = 0
                    while last_seq < trader.head_seq:
                        _, last_seq, _, events = await one.tail()
                    assert events[-1].order_id == 77
                    one.close()

    run(story())
