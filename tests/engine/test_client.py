"""The client against a real service, and over connections that break."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from engine_harness import client, open_market, orders, run, service, started, until
from market_driver import BTC, cancel, changed, new

from engine import limits
from engine.client import EngineClient
from engine.errors import (
    EngineUnavailable,
    LoginRefused,
    OutcomeUnknown,
    QueryRefused,
    SessionTaken,
)
from engine.outcomes import Outcomes
from engine.reject import Reason
from engine.types import EventKind, Mode, Role


class Wire:
    """Stands between client and service, and can be cut."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.to_port = to_port
        self.cuts_answers = False  # passes on what the client sends, and nothing back
        self.swallowed = 0  # bytes of answers
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        await asyncio.gather(
            self._pass_on(reader, there[1], back=False),
            self._pass_on(there[0], writer, back=True),
        )
        self._writers -= {writer, there[1]}

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                if back and self.cuts_answers:
                    self.swallowed += len(data)
                else:
                    writer.write(data)
        writer.transport.abort()


@asynccontextmanager
async def wire(to_port: int) -> AsyncIterator[Wire]:
    one = Wire(to_port)
    server = await asyncio.start_server(one.join, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        one.cut()
        await asyncio.sleep(0.01)


def test_answers_come_in_the_order_of_the_commands(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                assert (one.role, one.session, one.implementation) == (Role.TRADE, 2, "python")
                answers = await one.send([*orders(1, 10), cancel(99)], timeout_s=10)
                assert [answer.seq for answer in answers] == list(range(5, 16))
                assert [answer.events[0].ref for answer in answers] == list(range(1, 12))
                assert answers[1].events[1].kind == EventKind.FILL
                assert answers[-1].events[0].reason == Reason.UNKNOWN_ORDER
                assert answers[1].at_ns == answers[0].at_ns + 1_000
                assert one.head_seq == 15
                assert await one.send([], timeout_s=1) == []

    run(story())


def test_many_sends_at_once_keep_their_order_and_get_their_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                sends = [one.send(orders(1 + 4 * n, 4), timeout_s=20) for n in range(300)]
                answers = await asyncio.gather(*sends)
                refs = [answer.events[0].ref for each in answers for answer in each]
                assert refs == list(range(1, 1_201))
                ids = [answer.events[0].order_id for each in answers for answer in each]
                assert ids == refs

    run(story())


def test_own_references_are_kept_and_resent_ones_get_their_outcome(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                first = await one.send(orders(1, 3, first_ref=1_000), timeout_s=10)
                (free,) = await one.send([new(9)], timeout_s=10)
                assert free.events[0].ref == 1_003
            async with started(port) as one:
                assert await one.send(orders(1, 3, first_ref=1_000), timeout_s=10) == first
                (skipped,) = await one.send([new(10, ref=7)], timeout_s=10)
                assert (skipped.seq, skipped.events[0].reason) == (0, Reason.REF_NOT_INCREASING)

    run(story())


def test_a_reference_can_not_be_sent_twice_at_the_same_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, started(port) as one:
            with pytest.raises(ValueError, match="twice"):
                await one.send([new(1, ref=5), new(2, ref=5)], timeout_s=10)
            with pytest.raises(struct.error):
                await one.send([new(2**70)], timeout_s=10)
            assert len(await one.send([new(1, ref=5)], timeout_s=10)) == 1

    run(story())


def test_more_than_may_be_unanswered_is_sent_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT_UNANSWERED_MAX", 100)
    monkeypatch.setattr(limits, "FRAME_COMMANDS_MAX", 64)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                long = one.send(orders(1, 1_000), timeout_s=20)
                short = one.send(orders(2_001, 2), timeout_s=20)
                answers, last = await asyncio.gather(long, short)
                assert [answer.events[0].ref for answer in answers] == list(range(1, 1_001))
                assert [answer.events[0].ref for answer in last] == [1_001, 1_002]

    run(story())


def test_a_connection_that_breaks_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            await open_market(port)
            one = client(between.port)
            await one.start()
            sends = []
            for n in range(1, 2_001):
                sends.append(asyncio.ensure_future(one.send([new(n)], timeout_s=30)))
                await asyncio.sleep(0)
                if n % 250 == 100:
                    between.cuts_answers = True
                    before = between.swallowed
                if n % 250 == 150:
                    # Some commands have arrived, and their answers never will.
                    await until(lambda b=before: between.swallowed > b, "answers are lost")
                    between.cut()
                    between.cuts_answers = False
            answers = [answer for (answer,) in await asyncio.gather(*sends)]
            assert [answer.events[0].order_id for answer in answers] == list(range(1, 2_001))
            assert {answer.events[0].kind for answer in answers} == {EventKind.ACCEPTED}
            seqs = [answer.seq for answer in answers]
            assert seqs == sorted(set(seqs))
            book = await one.book(BTC)
            assert [order.order_id for order in book.orders] == list(range(1, 2_001))
            await one.close()

    run(story())


def test_a_service_that_restarts_is_found_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            one = client(port)
            await one.start()
            before = await one.send([new(1)], timeout_s=10)
        await until(lambda: not one.is_connected, "the loss is noticed")
        waiting = asyncio.ensure_future(one.send([new(2)], timeout_s=20))
        asking = asyncio.ensure_future(one.status(timeout_s=20))
        await asyncio.sleep(0.1)
        async with service(tmp_path, port=port):
            (answer,) = await waiting
            assert answer.seq == before[0].seq + 1
            assert (await asking).seq >= before[0].seq
            await one.close()

    run(story())


def test_what_was_never_sent_is_told_from_what_has_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            await open_market(port)
            one = client(between.port)
            await one.start()
            between.cuts_answers = True
            with pytest.raises(OutcomeUnknown, match="1 of 1 commands of 'proxy-0'"):
                await one.send([new(1)], timeout_s=0.3)
            between.to_port = _unused_port()
            between.cut()
            await until(lambda: not one.is_connected, "the loss is noticed")
            with pytest.raises(EngineUnavailable, match="nothing was sent"):
                await one.send([new(2)], timeout_s=0.1)
            between.to_port, between.cuts_answers = port, False
            # The first one was executed. Its reference tells so.
            (answer,) = await one.send([new(1, ref=1)], timeout_s=10)
            assert answer.events[0].kind == EventKind.ACCEPTED
            assert [order.order_id for order in (await one.book(BTC)).orders] == [1]
            await one.close()

    run(story())


def test_a_cancelled_send_is_not_sent_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            one = client(port)
            await one.start()
        await until(lambda: not one.is_connected, "the loss is noticed")
        sending = asyncio.ensure_future(one.send([new(1)], timeout_s=20))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with service(tmp_path, port=port):
            await until(lambda: one.is_connected, "it is connected again")
            await one.send([new(2)], timeout_s=10)
            assert [order.order_id for order in (await one.book(BTC)).orders] == [2]
            await one.close()

    run(story())


def test_who_is_not_let_in_learns_it_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            stranger = EngineClient(host="127.0.0.1", port=port, name="proxy-0", key="guess")
            with pytest.raises(LoginRefused, match="'proxy-0' in: unknown key"):
                await stranger.start()

    run(story())


def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        port = _unused_port()
        with pytest.raises(EngineUnavailable, match=rf"127.0.0.1:{port} .*Is it running"):
            await client(port).start(timeout_s=0.2)
        with pytest.raises(EngineUnavailable, match="has not been started"):
            await client(port).send([new(1)], timeout_s=1)

    run(story())


def test_a_client_starts_before_its_engine(tmp_path: Path) -> None:
    async def story() -> None:
        port = _unused_port()
        one = client(port)
        starting = asyncio.ensure_future(one.start(timeout_s=20))
        await asyncio.sleep(0.1)
        async with service(tmp_path, port=port):
            await starting
            await one.close()

    run(story())


def test_a_client_whose_session_was_taken_over_does_not_fight_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as old, started(port) as newer:
                await until(lambda: not old.is_connected, "the takeover is noticed")
                with pytest.raises(SessionTaken, match="'proxy-0' was taken over"):
                    await old.send([new(1)], timeout_s=5)
                with pytest.raises(SessionTaken):
                    await old.status()
                assert len(await newer.send([new(1)], timeout_s=5)) == 1

    run(story())


def test_a_closed_client_tells_whoever_waits(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            await open_market(port)
            one = client(between.port)
            await one.start()
            between.cuts_answers = True
            sending = asyncio.ensure_future(one.send([new(1)], timeout_s=20))
            await asyncio.sleep(0.05)
            await one.close()
            with pytest.raises(OutcomeUnknown, match="has been closed"):
                await sending
            with pytest.raises(EngineUnavailable, match="has been closed"):
                await one.send([new(1)], timeout_s=20)

    run(story())


def test_book_and_status_show_the_market(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                sent = [new(1, 1, 100), new(2, 2, 110), new(3, 1, 105), new(4, 1, 100)]
                await one.send(sent, timeout_s=10)
                book = await one.book(BTC)
                assert (book.seq, book.mode, book.epoch) == (one.head_seq, Mode.LIVE, 1)
                assert [order.order_id for order in book.orders] == [3, 1, 4, 2]
                status = await one.status()
                assert (status.seq, status.shard, status.implementation) == (8, 1, "python")
                assert [(each.name, each.open_orders) for each in status.instruments] == [
                    ("BTC-USD", 4)
                ]
                assert [(each.name, each.last_ref) for each in status.sessions] == [
                    ("control", 2),
                    ("proxy-0", 4),
                ]
                assert status.connected == ("proxy-0",)
                with pytest.raises(QueryRefused, match="instrument 77"):
                    await one.book(77)

    run(story())


def test_silence_of_the_engine_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(limits, "SILENCE_S", 0.4)
    monkeypatch.setattr(limits, "CONNECT_S", 0.3)

    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            one = client(between.port)
            await one.start()
            between.cuts_answers = True
            await until(lambda: not one.is_connected, "silence is noticed")
            between.cuts_answers = False
            await until(lambda: one.is_connected, "it is connected again")
            await one.close()

    run(story())


def test_outcomes_that_expired_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sequencer.Outcomes", partial(Outcomes, bytes_max=2_000))

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                for n in range(1, 20):
                    await one.send([new(n)], timeout_s=10)
                (answer,) = await one.send([changed(new(1), ref=1)], timeout_s=10)
                assert (answer.seq, answer.at_ns) == (0, 0)
                assert answer.events[0].reason == Reason.OUTCOME_EXPIRED
                assert len((await one.book(BTC)).orders) == 19

    run(story())


def _unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
