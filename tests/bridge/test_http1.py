"""HTTP as bytes: whatever the cut of the input, the same heads, bodies and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.proxy.plane.body import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    EndlessBody,
    LengthBody,
    chunk,
    trailer_lines,
)
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.http1 import AnswerHead, AnswerHeads, Refused, RequestHead, RequestHeads

KINDS = HeaderKinds("X-Account-Id")
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"


def request_head(data: bytes) -> RequestHead:
    found = RequestHeads(KINDS).feed(data)
    assert isinstance(found, RequestHead), found
    return found


def answer_head(data: bytes, *, upgrade: bool = False, no_chunks: bool = False) -> AnswerHead:
    heads = AnswerHeads(KINDS)
    heads.upgrade, heads.no_chunks = upgrade, no_chunks
    found = heads.feed(data)
    assert isinstance(found, AnswerHead), found
    return found


def shown(head: RequestHead | AnswerHead) -> tuple[object, ...]:
    return tuple(
        tuple(value) if isinstance(value := getattr(head, name), list) else value
        for name in head.__slots__
    )


class Reading:
    """All that a reader of this side finds in a connection's bytes."""

    def __init__(self, heads: RequestHeads | AnswerHeads) -> None:
        self.found: list[object] = []
        self.content = b""  # of the body that isn't complete
        self.ended = False
        self._heads = heads
        self._body: Body | None = None

    def feed(self, data: bytes) -> None:
        while data and not self.ended:
            data = self._feed_body(data, self._body) if self._body else self._feed_head(data)

    def _feed_head(self, data: bytes) -> bytes:
        head = self._heads.feed(data)
        if head is None:
            return b""
        if isinstance(head, Refused):
            self.found.append(head)
            self.ended = True
            return b""
        self.found.append(shown(head))
        if head.chunked:
            self._body = ChunkedBody()
        elif head.length > 0:
            self._body = LengthBody(head.length)
        return self._heads.rest

    def _feed_body(self, data: bytes, body: Body) -> bytes:
        self.content += b"".join(body.feed(data))
        self.ended = body.flawed
        if not body.done:
            return b""
        self.found += (self.content, tuple(body.trailers))
        self.content, self._body = b"", None
        return body.rest

    def outcome(self) -> tuple[object, ...]:
        begun = self._heads.begun and not self.ended
        return self.found, self.content, self.ended, begun


def cuts(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        yield data[at:place]
        at = place
    yield data[at:]


@contextmanager
def small_bounds() -> Iterator[None]:
    with (
        mock.patch("bridge.proxy.plane.http1.HEAD_BYTES_MAX", 90),
        mock.patch("bridge.proxy.plane.body.HEAD_BYTES_MAX", 40),
        mock.patch("bridge.proxy.plane.http1.FIELDS_MAX", 3),
        mock.patch("bridge.proxy.plane.http1.TARGET_BYTES_MAX", 8),
    ):
        yield


_PIECES = (
    *(b"GET / HTTP/1.1\r\n", b"POST /orders HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"Host: h\r\n"),
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 404\r\n",
        b"CONNECT h HTTP/1.1\r\n",
        b"GET / HTTP/2.0\r\n",
    ),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close, x\r\n"),
    *(b"Content_Length: 3\r\n", b"X: y\r\n", b"X-Account-Id: 7\r\n", b"Upgrade: a\r\n", b"a: b"),
    *(b"\r\n", b"3\r\nabc\r\n", b"3;a=b\r\nabc\r\n", b"0\r\n", b"1f\r\n", b"abc", b"HTTP/1.1 "),
    *(b"\r", b"\n", b"\x00", b" ", b":", b"\x7f", b"\xff", b"0", b"GET", b"a" * 50),
)
_STREAMS = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=3), max_size=14).map(b"".join)
_CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=6)


@pytest.mark.parametrize("heads", [RequestHeads, AnswerHeads])
@given(data=_STREAMS, places=_CUTS)
@example(data=GET + b"\r\n" + GET + b"X: a\nb\r\n\r\n", places=[3])
@example(data=b"\r\n\r\n" + GET + b"\r\n", places=[1, 3])
@example(data=b"\r\n\r\n\r\n" + GET + b"\r\n", places=[])
@example(data=GET + b"X: " + b"a" * 61 + b"\r\n\r\n", places=[89])  # one byte too many
@example(data=GET + b"X: " + b"a" * 58 + b"\r\n\r\n", places=[89])
@example(data=b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200 + b"\r\n\r\n", places=[90])
def test_every_cut_gives_the_same(
    heads: type[RequestHeads] | type[AnswerHeads], data: bytes, places: list[int]
) -> None:
    for bounds in (small_bounds, lambda: mock.patch.dict({})):
        with bounds():
            outcomes = []
            single = [data[at : at + 1] for at in range(len(data))]
            for pieces in ([data], list(cuts(data, places)), single):
                reading = Reading(heads(KINDS))
                for piece in pieces:
                    reading.feed(piece)
                outcomes.append(reading.outcome())
            assert outcomes[1] == outcomes[0]
            assert outcomes[2] == outcomes[0]


_TOKENS = st.text("!#$%&'*+-.^_`|~azAZ09", min_size=1, max_size=12).map(str.encode)
_TEXTS = st.lists(
    st.sampled_from([b"\t", b" ", b"!", b"a", b":", b"~", b"\x80", b"\xff"]), max_size=9
).map(b"".join)
_FIELDS = st.lists(st.tuples(_TOKENS, _TEXTS), max_size=6)


@given(
    method=_TOKENS.filter(lambda name: name != b"CONNECT"),
    fields=_FIELDS,
    content=st.lists(st.binary(min_size=1, max_size=40), max_size=4),
    trailers=_FIELDS,
    places=_CUTS,
)
def test_what_is_written_is_read_again(
    method: bytes,
    fields: list[tuple[bytes, bytes]],
    content: list[bytes],
    trailers: list[tuple[bytes, bytes]],
    places: list[int],
) -> None:
    lines = [b"%b:%b\r\n" % field for field in fields if not KINDS[field[0]]]
    framing = b"Transfer-Encoding: chunked\r\n" if trailers or len(content) != 1 else b""
    body = b"".join(content)
    end = [b"%b:%b\r\n" % field for field in trailers]
    if framing:
        wire = b"".join(map(chunk, content)) + LAST_CHUNK + b"".join(end) + b"\r\n"
    else:
        framing, wire = b"Content-Length: %d\r\n" % len(body), body
    data = method + b" /x HTTP/1.1\r\nHost: h\r\n" + b"".join(lines) + framing + b"\r\n" + wire
    heads, read, found, rest = RequestHeads(KINDS), b"", None, b""
    reader: Body | None = None
    for piece in cuts(data + b"next", places):
        if reader is None:
            found = heads.feed(piece)
            if found is None:
                continue
            assert isinstance(found, RequestHead)
            reader = ChunkedBody() if found.chunked else LengthBody(found.length)
            piece = heads.rest
        if reader.done:
            rest += piece
        else:
            read += b"".join(reader.feed(piece))
            rest += reader.rest if reader.done else b""
    assert found is not None
    assert reader is not None
    assert (found.method, found.target) == (method, b"/x")
    assert found.lines == [b"Host: h\r\n", *lines, framing]
    assert (read, rest, reader.flawed) == (body, b"next", False)
    passing = [b"%b:%b\r\n" % field for field in trailers if not KINDS[field[0]]]
    assert trailer_lines(reader.trailers, KINDS) == b"".join(passing)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: h\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\nX: a\x00", 400),
        (b"GET / HTTP/1.1\r\nX: a\rb", 400),
        (b"GET  / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1 \r\n", 400),
        (b"GET / HTTP/3.1\r\n", 505),
        (b"CONNECT h:1 HTTP/1.1\r\n", 405),
        (b"GET / HTTP/1.1\r\nX : a\r\n", 400),
        (b"GET / HTTP/1.1\r\n: a\r\n", 400),
        (b"GET / HTTP/1.1\r\nX\r\n", 400),
        (b"GET / HTTP/1.1\r\n\tX: a\r\n", 400),
    ],
)
def test_what_can_become_nothing_good_is_refused_before_its_end(data: bytes, status: int) -> None:
    found = RequestHeads(KINDS).feed(data)
    assert isinstance(found, Refused)
    assert found.status == status


def test_a_head_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    with small_bounds():
        filler = b"X: " + b"a" * (90 - len(GET) - 3 - 4)
        assert isinstance(RequestHeads(KINDS).feed(GET + filler + b"\r\n\r\n"), RequestHead)
        found = RequestHeads(KINDS).feed(GET + filler + b"a\r\n\r\n")
        assert isinstance(found, Refused)
        assert found.status == 431


@pytest.mark.parametrize(
    ("target", "method", "passes"),
    [
        (b"/a?b#c", b"GET", False),
        (b"/\xc3\xa9", b"GET", True),
        (b"*", b"OPTIONS", True),
        (b"*", b"GET", False),
        (b"h/x", b"GET", False),
        (b"http://h", b"GET", True),
        (b"HTTPS://h?x", b"GET", True),
        (b"http://h:80/", b"GET", False),
        (b"http://other@h/", b"GET", False),
        (b"ftp://h/", b"GET", False),
    ],
)
def test_targets(target: bytes, method: bytes, passes: bool) -> None:
    found = RequestHeads(KINDS).feed(method + b" " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert isinstance(found, RequestHead) == passes


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: CLOSE\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: a, close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_whether_the_connection_is_kept(
    version: bytes, connection: bytes, keep_alive: bool
) -> None:
    head = request_head(b"GET / HTTP/" + version + b"\r\nHost: h\r\n" + connection + b"\r\n")
    assert head.keep_alive == keep_alive
    assert head.lines == [b"Host: h\r\n"]
    answer = answer_head(b"HTTP/" + version + b" 200 OK\r\n" + connection + b"\r\n")
    assert answer.keep_alive == keep_alive


@pytest.mark.parametrize(
    ("line", "fields", "passes"),
    [
        (b"GET / HTTP/1.1", b"Connection: a, upgrade\r\nUpgrade: websocket\r\n", True),
        (b"GET / HTTP/1.1", b"Upgrade: websocket\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: a, H2C\r\n", False),
        (b"POST / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: a\r\n", False),
        (b"GET / HTTP/1.0", b"Connection: Upgrade\r\nUpgrade: a\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n", True),
    ],
)
def test_another_protocol_is_asked_for_only_in_one_way(
    line: bytes, fields: bytes, passes: bool
) -> None:
    head = request_head(line + b"\r\nHost: h\r\n" + fields + b"\r\n")
    assert head.upgrade == passes
    assert any(line.startswith(b"Upgrade:") for line in head.lines) == passes


def test_what_the_monolith_will_not_see_is_not_read_here() -> None:
    """Else an order would be captured as somebody's who is nobody for the monolith."""
    head = request_head(
        GET + b"Connection: x-account-ID, Content-Type, X-HTTP-Method-Override\r\n"
        b"X-Account-Id: 7\r\nContent-Type: text/xml\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
    )
    assert (head.identity, head.content_type, head.override) == (None, None, None)
    assert head.lines == [b"Host: h\r\n"]


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        (b"X-Account-Id:7 \r\n", b"7"),
        (b"x_account-id: 7\r\n", b"7"),
        (b"X-Account-Id: 7\r\nX-Account-Id: 8\r\n", b"7,8"),
        (b"X-Account-Id: \r\nX_Account_Id: 8\r\n", b",8"),
    ],
)
def test_several_identities_are_none(fields: bytes, identity: bytes) -> None:
    assert request_head(GET + fields + b"\r\n").identity == identity


def test_spellings_with_underscores_are_what_rack_makes_of_them() -> None:
    head = request_head(
        GET + b"X-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 5\r\nX_Request_Id: one\r\n"
        b"X_HTTP_METHOD_OVERRIDE: PATCH\r\nX-HTTP-Method-Override: PUT\r\nX_Forwarded_Proto: a\r\n"
        b"\r\n"
    )
    assert head.lines[head.forwarded_at] == b"X_Forwarded_For: 5\r\n"
    assert head.request_id == b"one"
    assert head.override == b"PATCH,PUT"
    assert head.forwarded_proto


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\n\n",
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_a_bad_gateway(data: bytes) -> None:
    found = AnswerHeads(KINDS).feed(data)
    assert isinstance(found, Refused)
    assert found.status == 502


def test_an_answer_s_lines_pass_as_they_came() -> None:
    data = (
        b"HTTP/1.0 200\r\nHost:a\r\nX-Account-Id:  7\r\nUpgrade: x\r\ncontent_length: 3\r\n"
        b"Transfer-Encoding: Chunked\r\nKeep-Alive: 5\r\nConnection: q\r\nQ: 1\r\n\r\n"
    )
    plain = [b"Host:a\r\n", b"X-Account-Id:  7\r\n", b"content_length: 3\r\n"]
    head = answer_head(data)
    assert head.line == b"HTTP/1.1 200\r\n"
    assert head.lines == [*plain, b"Transfer-Encoding: Chunked\r\n"]
    assert answer_head(data, no_chunks=True).lines == plain
    assert b"Upgrade: x\r\n" in answer_head(data, upgrade=True).lines


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"\r\n",
        b"1\na\r\n",
        b"1;" + b"a" * 257 + b"\r\n",
        b"1;\x00\r\n",
        b"1;a\nb\r\n",
        b"1" * 17,
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
        b"0\r\nA: " + b"a" * 65_536,
        b"0\r\n" + b"A: b\r\n" * 257 + b"\r\n",
    ],
)
def test_chunks_that_could_be_read_in_two_ways_are_flawed(data: bytes) -> None:
    whole = ChunkedBody()
    whole.feed(data)
    assert whole.flawed
    assert not whole.done


def test_a_body_may_be_without_end() -> None:
    body = EndlessBody()
    assert body.feed(b"abc") == [b"abc"]
    assert body.feed(b"") == []
    assert not body.done
