"""The golden test of transparency: both sides' bytes with the proxy between them, beside the same
exchange without it.

`golden_exchanges` has the exchanges, `golden_changes` what may differ. Each one also runs
with its bytes cut in two at every place, and one at a time, on both sides.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import pytest
from golden_changes import changed_answer, changed_request
from golden_exchanges import (
    CHUNKED,
    EXCHANGES,
    OK,
    POST,
    Do,
    Exchange,
    Raw,
    Until,
    answer,
    asked,
    get,
    given,
)
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from proxy_rig import Front, run
from wire import Message, Upstream, Wire, connect, content_so_far, fields_of, when

Cut = Callable[[bytes], list[bytes]]
ALONE_BYTES_MAX = 3_000  # sent one at a time up to here
CUTS_MAX = 300  # beyond: only around the ends of lines

# Bodies around every buffer that may be on the way: pieces of a socket's read, of a pipe, of a
# capture, of a bound; and beyond all of them.
SIZES = (1, 63, 64, 65, 1_023, 4_096, 16_385, 65_535, 65_536, 65_537, 131_073, 262_145, 6_000_007)


def whole(data: bytes) -> list[bytes]:
    return [data]


def one_by_one(data: bytes) -> list[bytes]:
    if len(data) > ALONE_BYTES_MAX:
        return [data]
    return [data[at : at + 1] for at in range(len(data))]


class Seen:
    """What the two sides read, in order."""

    def __init__(self) -> None:
        self.requests: list[Message | bytes] = []
        self.answers: list[Message | bytes] = []


class Play:
    """One exchange between a client's wire and whatever connections come to the monolith."""

    def __init__(self, exchange: Exchange, upstream: Upstream, client: Wire, cut: Cut) -> None:
        self.exchange = exchange
        self.upstream = upstream
        self.client = client
        self.cut = cut
        self.seen = Seen()
        self._methods: list[bytes] = []

    async def run(self) -> Seen:
        monolith = asyncio.create_task(self._monolith())
        try:
            await self._client()
            await monolith
        finally:
            monolith.cancel()
            self.client.transport.abort()
        return self.seen

    async def _client(self) -> None:
        wire, seen = self.client, self.seen.answers
        for step in self.exchange.client:
            if isinstance(step, bytes):
                await wire.sent(self.cut(step))
            elif step is Do.ANSWER:
                seen.append(await wire.message(b"GET"))
            elif step is Do.ANSWER_TO_HEAD:
                seen.append(await wire.message(b"HEAD"))
            elif step is Do.FIN:
                wire.fin()
            elif step is Do.END:
                seen.append(await wire.end())
            elif step is Do.CLOSE:
                wire.close()
            else:
                await _waited(step, wire, seen)

    async def _monolith(self) -> None:
        wire, seen = None, self.seen.requests
        for step in self.exchange.monolith:
            if step in (Do.REQUEST, Do.HEAD) or isinstance(step, Until) or wire is None:
                wire = await self.upstream.busy() if wire is None or not wire.buffer else wire
            if isinstance(step, bytes):
                await wire.sent(self.cut(step))
            elif step is Do.REQUEST:
                seen.append(await wire.message())
            elif step is Do.HEAD:
                await _head(wire)
            elif step is Do.CLOSE:
                wire.close()
                wire = None
            elif step is Do.LEAVE:
                seen.append(Message(await _head(wire), framing="left"))
                wire.left = True
            else:
                await _waited(step, wire, seen)


async def _head(wire: Wire) -> bytes:
    await when(wire.heard, lambda: b"\r\n\r\n" in wire.buffer, wire)
    return bytes(wire.buffer).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def _waited(step: object, wire: Wire, seen: list[Message | bytes]) -> None:
    if isinstance(step, Until):
        await when(wire.heard, lambda: step.content in content_so_far(wire.buffer), wire)
    else:
        assert isinstance(step, Raw)
        await when(wire.heard, lambda: len(wire.buffer) >= step.size or wire.ended, wire)
        seen.append(wire.taken(step.size))


async def played(exchange: Exchange, cuts: list[Cut]) -> tuple[Seen, list[Seen], int]:
    """Without the proxy, and with it once for each cut; and the monolith's port in between."""
    async with Upstream() as upstream:
        direct = await Play(exchange, upstream, await connect(upstream.port), whole).run()
    async with Upstream() as upstream, Front(upstream.address) as front:
        through = []
        for cut in cuts:
            through.append(await Play(exchange, upstream, await connect(front.port), cut).run())
        return direct, through, upstream.port


def compare(direct: Seen, through: Seen, port: int) -> None:
    requests = [one for one in direct.requests if isinstance(one, Message)]
    authority = b"127.0.0.1:%d" % port
    assert len(through.requests) == len(direct.requests)
    for sent, seen in zip(direct.requests, through.requests, strict=True):
        if isinstance(sent, Message):
            assert isinstance(seen, Message)
            assert seen == changed_request(sent, seen, authority=authority)
        else:
            assert seen == sent
    assert len(through.answers) == len(direct.answers)
    answered = 0
    for wanted, got in zip(direct.answers, through.answers, strict=True):
        if isinstance(wanted, Message):
            assert got == changed_answer(wanted, requests[min(answered, len(requests) - 1)])
            answered += wanted.status >= 200
        else:
            assert got == wanted


def names(exchanges: tuple[Exchange, ...]) -> list[str]:
    return [each.name for each in exchanges]


@pytest.mark.one_plane("no proxy in it")
def test_every_exchange_has_its_own_name() -> None:
    assert len(set(names(EXCHANGES))) == len(EXCHANGES)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=names(EXCHANGES))
def test_with_the_proxy_as_without(exchange: Exchange) -> None:
    direct, (through, alone), port = run(played(exchange, [whole, one_by_one]))
    assert direct.requests
    assert direct.answers
    compare(direct, through, port)
    compare(direct, alone, port)


def _longest(exchange: Exchange) -> int:
    sent = [step for step in (*exchange.client, *exchange.monolith) if isinstance(step, bytes)]
    return max(map(len, sent))


def _places(exchange: Exchange) -> Iterator[int]:
    """Where its bytes are cut: everywhere, or in a long one around the ends of lines."""
    if _longest(exchange) <= CUTS_MAX:
        yield from range(1, _longest(exchange))
        return
    near = set()
    for step in (*exchange.client, *exchange.monolith):
        if isinstance(step, bytes):
            for end in re.finditer(rb"\r\n", step):
                near |= {end.start() + by for by in (-1, 0, 1, 2, 3)}
    yield from sorted(near)[:CUTS_MAX]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=names(EXCHANGES))
def test_wherever_its_bytes_are_cut(exchange: Exchange) -> None:
    def at(place: int) -> Cut:
        return lambda data: [piece for piece in (data[:place], data[place:]) if piece]

    places = list(_places(exchange))
    direct, through, port = run(played(exchange, [at(place) for place in places]))
    for place, seen in zip(places, through, strict=True):
        try:
            compare(direct, seen, port)
        except AssertionError as error:
            error.add_note(f"cut at {place}")
            raise


def _chunked(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
def test_bodies_of_every_size_both_ways(size: int) -> None:
    data = bytes(n % 251 for n in range(min(size, 251 * 40))) * (size // (251 * 40) + 1)
    data = data[:size]
    framed = b"Content-Length: %d\r\n\r\n%b" % (size, data)
    cut = _chunked(data, max(size // 7, 1))
    exchanges = [
        asked("", POST + framed, b"HTTP/1.1 200 OK\r\n" + framed),
        asked("", POST + CHUNKED + cut, b"HTTP/1.1 200 OK\r\n" + CHUNKED + cut),
        asked("", POST + b"Expect: 100-continue\r\n" + framed),
        Exchange(
            "",
            (get(), Do.ANSWER, Do.END),
            (Do.REQUEST, b"HTTP/1.1 200 OK\r\n\r\n" + data, Do.CLOSE),
        ),
    ]

    async def story() -> None:
        for exchange in exchanges:
            direct, (through,), port = await played(exchange, [whole])
            compare(direct, through, port)

    run(story())


_NAME = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(lambda name: f"X{name}")
_VALUE = st.binary(max_size=30).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value))
_LINES = st.lists(
    st.tuples(_NAME, _VALUE).map(lambda pair: pair[0].encode() + b":" + pair[1]), max_size=8
)


def test_whatever_legal_fields_there_are() -> None:
    """Names and values that nobody thought of, on both sides."""

    @settings(max_examples=150)
    @drawn(_LINES, _LINES)
    def same(asked_with: list[bytes], given_with: list[bytes]) -> None:
        exchange = given("", answer(*given_with), request=get(*asked_with))
        direct, (through,), port = run(played(exchange, [whole]))
        compare(direct, through, port)

    same()


def test_the_comparison_notices_a_changed_byte() -> None:
    """The test of the test: whatever one byte of either side's reading is changed to is seen."""
    direct, (through,), port = run(played(asked("", get(b"X-A: 1"), OK), [whole]))
    compare(direct, through, port)
    for side in (through.requests, through.answers):
        (message,) = side
        assert isinstance(message, Message)
        for at in range(len(message.head) - 4):
            spoilt = bytearray(message.head)
            spoilt[at] = ord("0") if spoilt[at] == ord("9") else spoilt[at] ^ 1
            side[0] = message._replace(head=bytes(spoilt))
            try:
                made = b"X-Request-Id" in message.head[: at + 1]
                compare(direct, through, port)
            except Exception:  # any is as good as another
                continue
            assert made, message.head[:at]  # nobody can foretell the id that it made
        side[0] = message


def test_the_id_that_was_made_is_the_only_thing_not_foretold() -> None:
    _, (through,), _ = run(played(asked("", get(), OK), [whole]))
    (seen,) = through.requests
    assert isinstance(seen, Message)
    assert [one.name for one in fields_of(seen.head)] == [
        b"host",
        b"x-forwarded-for",
        b"x-request-id",
    ]
