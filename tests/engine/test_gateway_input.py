"""Bytes that are no message, commands that make no sense, streams cut anywhere: each is answered or
sent away with a reason, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from engine_harness import (
    KEYS,
    WAIT_S,
    EngineProcess,
    Raw,
    engine_process,
    flat,
    open_market,
    orders,
    raw,
    run,
    service,
    started,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_driver import BTC, ETH, PRICE_MAX, QTY_MAX, cancel, changed, define, new, set_mode

from engine import limits
from engine.protocol import (
    HEADER,
    SUBSCRIBE,
    VERSION,
    Login,
    MessageReader,
    MessageType,
    Query,
    RejectCode,
    Rejected,
    message,
    packed,
)
from engine.reject import Reason
from engine.types import GATEWAY_KINDS, Command, CommandKind, EventKind, Mode, Role
from engine.wire import encode_commands


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (message(MessageType.COMMANDS), "0 bytes of commands"),
        (message(MessageType.COMMANDS, b"c" * 65), "65 bytes of commands"),
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


@pytest.mark.parametrize("kind", sorted(GATEWAY_KINDS))
def test_the_gateway_s_own_kinds_are_taken_from_nobody(tmp_path: Path, kind: CommandKind) -> None:
    """Wherever in a read they stand; what came in messages before is still done."""

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login(role=Role.ADMIN, name="control")
                fine = message(
                    MessageType.COMMANDS,
                    encode_commands([changed(define(ETH, "ETH-USD"), ref=3)]),
                )
                own = Command(kind=kind, session=1, ref=99, aux=1)
                batch = [changed(define(ETH, "ETH-USD"), ref=n) for n in range(4, 60)]
                await one.send(fine + message(MessageType.COMMANDS, encode_commands([*batch, own])))
                rejected = await one.rejected()
                assert rejected.code == RejectCode.PROTOCOL
                assert f"kind {int(kind)} are the gateway's own" in rejected.reason
            async with raw(port) as one:
                assert (await one.login(role=Role.ADMIN, name="control")).last_ref == 3

    run(story())


@pytest.mark.parametrize(
    ("prepare", "order", "reason"),
    [
        ([], new(1, instrument=9), Reason.UNKNOWN_INSTRUMENT),
        ([], new(1, instrument=ETH), Reason.INSTRUMENT_CLOSED),
        ([set_mode(Mode.SHADOW, 1, instrument=ETH)], new(1, instrument=ETH),
         Reason.INSTRUMENT_IN_SHADOW),
        ([], new(1, epoch=2), Reason.STALE_EPOCH),
        ([], new(1, epoch=0), Reason.STALE_EPOCH),
        ([], cancel(1, instrument=9), Reason.UNKNOWN_INSTRUMENT),
        ([], new(1, price_ticks=0), Reason.BAD_PRICE),
        ([], new(1, price_ticks=-(2**63)), Reason.BAD_PRICE),
        ([], new(1, price_ticks=2**63 - 1), Reason.PRICE_TOO_HIGH),
        ([], new(1, qty_lots=0), Reason.BAD_QUANTITY),
        ([], new(1, qty_lots=2**64 - 1), Reason.QUANTITY_TOO_LARGE),
    ],
)  # fmt: skip
def test_an_order_that_can_not_be_is_rejected_with_its_reason(
    tmp_path: Path, prepare: list[Command], order: Command, reason: Reason
) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port, "control", Role.ADMIN) as control:
                await control.send([define(ETH, "ETH-USD"), *prepare], timeout_s=WAIT_S)
            async with raw(port) as one:
                await one.login()
                await one.commands(changed(order, ref=1), changed(new(2), ref=2))
                rejected, accepted = flat(await one.answers(2))
                assert (rejected.kind, rejected.reason) == (EventKind.REJECTED, reason)
                assert accepted.kind == EventKind.ACCEPTED

    run(story())


def test_numbers_at_every_edge_leave_a_book_that_can_be(tmp_path: Path) -> None:
    edges = [0, 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**63)]
    rows = [
        changed(
            new(n + 1),
            **{name: value % 2**64 if name != "price_ticks" else value},
            ref=n + 1,
        )
        for n, (name, value) in enumerate(
            (name, value)
            for name in ("price_ticks", "qty_lots", "order_id", "account", "aux")
            for value in edges
        )
    ]

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                await one.commands(*rows)
                answers = await one.answers(len(rows))
                assert [answer[-1].ref for answer in answers] == list(range(1, len(rows) + 1))
            async with started(port) as reader:
                open_orders = (await reader.book(BTC)).orders
                accepted = [a[0] for a in answers if a[0].kind == EventKind.ACCEPTED]
                assert len(open_orders) == len(accepted)
                assert all(0 < each.price_ticks <= PRICE_MAX for each in open_orders)
                assert all(0 < each.leaves_lots <= QTY_MAX for each in open_orders)

    run(story())


def test_half_a_message_is_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            data = message(MessageType.COMMANDS, encode_commands(orders(1, 3, first_ref=1)))
            for cut in (1, 7, 8, 9, 71, len(data) - 1):
                async with raw(port) as one:
                    await one.login()
                    await one.send(data[:cut])
            async with raw(port) as one:
                assert (await one.login()).last_ref == 0

    run(story())


# --- whole streams of garbage, at a process of its own


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("garbage")) as one:
        yield one
        # Nothing that it was sent made it say anything of a failure, or end.
        code, told = one.terminate()
        assert (code, told) == (0, "")


LOGIN = packed(MessageType.LOGIN, Login(name="garbage", key=KEYS[Role.TRADE]))
FINE = [
    LOGIN,
    message(MessageType.HEARTBEAT),
    message(MessageType.SUBSCRIBE, SUBSCRIBE.pack(1)),
    message(MessageType.COMMANDS, encode_commands(orders(1, 3, first_ref=1))),
    packed(MessageType.QUERY, Query(id=1, what="status")),
    message(MessageType.LOGOUT),
]
WRONG = st.one_of(
    st.binary(max_size=100),
    st.sampled_from(FINE).flatmap(lambda one: st.integers(0, len(one)).map(lambda n: one[:n])),
    st.tuples(st.sampled_from(list(MessageType)), st.binary(max_size=200)).map(
        lambda told: message(*told)
    ),
    st.binary(min_size=64, max_size=640).map(lambda one: message(MessageType.COMMANDS, one)),
)
STREAMS = st.tuples(
    st.booleans(), st.lists(st.one_of(st.sampled_from(FINE), WRONG), max_size=6)
).map(lambda told: LOGIN * told[0] + b"".join(told[1]))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 400), max_size=3))
def test_any_stream_is_answered_in_messages_and_ended(
    engine: EngineProcess, stream: bytes, cuts: list[int]
) -> None:
    answers = read(engine.port, stream, sorted(cuts))
    kinds = [kind for kind, _ in answers]
    assert MessageType.REJECTED not in kinds[:-1]
    if kinds and kinds[-1] == MessageType.REJECTED:
        rejected = msgspec.msgpack.decode(answers[-1][1], type=Rejected)
        assert rejected.code in set(RejectCode)
        assert rejected.reason
    # Somebody else is served as ever.
    (accepted, reply) = read(engine.port, BYSTANDER, expected=2)
    assert (accepted[0], reply[0]) == (MessageType.ACCEPTED, MessageType.REPLY)


BYSTANDER = packed(
    MessageType.LOGIN, Login(name="bystander", key=KEYS[Role.READ_ONLY], observe=True)
) + packed(MessageType.QUERY, Query(id=1, what="status"))


def read(
    port: int, stream: bytes, cuts: Sequence[int] = (), *, expected: int = 0
) -> list[tuple[int, bytes]]:
    """What is answered to a client that sends this, in so many pieces: as many messages as it
    expects, or all until the end, after it has closed its side.
    """
    reader = MessageReader(payload_bytes_max=2**31)
    answers: list[tuple[int, bytes]] = []
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start, end in pairwise([0, *cuts, len(stream)]):
                one.sendall(stream[start:end])
            if not expected:
                one.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while (not expected or len(answers) < expected) and (data := one.recv(2**16)):
                answers += [(kind, bytes(payload)) for kind, payload in reader.feed(data)]
    return [answer for answer in answers if answer[0] != MessageType.HEARTBEAT]
