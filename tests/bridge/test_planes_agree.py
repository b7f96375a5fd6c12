"""The Rust plane beside the asyncio plane, which is its specification: what one reads, refuses and
passes on, the other does too.

First their codecs and routers, on what Hypothesis makes; then whole exchanges between a client and
a scripted monolith.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import fuzz_http
import proxy_rig
import pytest
from fuzz_http import IDENTITY
from golden_exchanges import EXCHANGES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy_rig import MAPPING, Visit, between, response, run
from smuggling_corpus import REQUESTS

from bridge import limits
from bridge.proxy.plane.body import ChunkedBody, trailer_lines
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.http1 import Refused, RequestHeads
from bridge.proxy.route import Router, settle
from shadow.legacy.paths import pattern_of

core: Any = pytest.importorskip("bridge.proxy._core")

PLANES = ("python", "rust")


# --- reading


def test_the_bounds_are_the_same() -> None:
    names = ("HEAD_BYTES_MAX", "TARGET_BYTES_MAX", "FIELDS_MAX", "INFORMATIONAL_MAX")
    for name in (*names, "CHUNK_EXTENSION_BYTES_MAX"):
        assert getattr(core, name) == getattr(limits, name)
    longest = b"1;%b\r\na\r\n0\r\n\r\n" % (b"x" * core.CHUNK_EXTENSION_BYTES_MAX)
    assert by_chunked_body([longest]) == core.read_chunks(longest)
    with pytest.raises(NotChunked):
        by_chunked_body([longest.replace(b";", b";x")])


_METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"X" * 32, b"X" * 33, b"G/T")
_TARGETS = (
    b"/",
    b"*",
    b"/a?b=c",
    b"http://h/x",
    b"HTTPS://h",
    b"http://g/",
    b"ftp://h/",
    b"h:80",
    b"/a#b",
    b"/\xe9",
    b"/" + b"t" * limits.TARGET_BYTES_MAX,
)
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1")
_FIELD_NAMES = (
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect"),
    *(b"X-Forwarded-For", b"X_Forwarded_For", b"X-Request-Id", b"X_Request_Id", b"TE", b"X-A"),
    *(b"X-Member-Id", b"x_member_id", b"Content-Type", b"Content_Type", b"Content_Length"),
    *(b"Keep-Alive", b"Keep_Alive", b"Proxy-Authorization", b"X-HTTP-Method-Override", b"Host "),
)
_VALUES = (
    *(b"", b"h", b" h ", b"h:80", b"h/x", b"5", b"05", b"5, 5", b"chunked", b"Chunked", b"gzip"),
    *(b"gzip, chunked", b"chunked, gzip", b"close", b"keep-alive", b"upgrade, x-a", b"websocket"),
    *(b"h2c", b"100-continue", b"host, x-member-id", b"\xff", b"a\x01", b"\x7f", b"1" * 18),
    *(b"1" * 19, b"content-length", b"x_member_id , te", b" \t", b"connection", b"expect"),
)
_BREAKS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\n ", b"\0\r\n")
_lines = st.tuples(
    st.sampled_from(_FIELD_NAMES), st.sampled_from((b":", b": ")), st.sampled_from(_VALUES)
).map(b"".join)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Near to what is right: most of what can be wrong is of one kind at a time."""
    start = b" ".join(draw(st.sampled_from(one)) for one in (_METHODS, _TARGETS, _VERSIONS))
    lines = draw(st.lists(_lines, max_size=6))
    if draw(st.integers(0, 3)):
        start = b"%b /x HTTP/1.%b" % (
            draw(st.sampled_from(_METHODS[:3])),
            draw(st.sampled_from((b"0", b"1"))),
        )
        lines.insert(draw(st.integers(0, len(lines))), b"Host: h")
    ends = [draw(st.sampled_from(_BREAKS)) for _ in lines]
    blank = b"\r\n" * draw(st.sampled_from((0, 0, 0, 1, 2, 3)))
    return (
        blank + start + b"\r\n" + b"".join(map(b"".join, zip(lines, ends, strict=True))) + b"\r\n"
    )


class HeadRead(NamedTuple):
    taken: int
    out: bytes
    length: int  # -1: chunks
    keeps: bool
    switches: bool


def by_python(data: bytes) -> HeadRead | int:
    """What is read; or the status that it is refused with; 0: it is incomplete."""
    reader = RequestHeads(HeaderKinds(IDENTITY))
    head = reader.feed(data)
    if head is None:
        return 0
    if isinstance(head, Refused):
        return int(head.status)
    taken = len(data) - len(reader.rest)
    length = -1 if head.chunked else head.length
    return HeadRead(taken, fuzz_http._written(head), length, head.keep_alive, head.upgrade)


def by_core(data: bytes) -> HeadRead | int:
    what, *told = core.read_request(data, IDENTITY.lower().encode())
    if what == "read":
        return HeadRead(*told)
    return int(told[0]) if told else 0


def agree_on_head(data: bytes) -> None:
    python, rust = by_python(data), by_core(data)
    if b"\r\n\r\n" in data.lstrip(b"\r\n") and not re.search(rb"\0|[^\r]\n|\r[^\n]", data):
        assert rust == python
    else:  # one of several flaws; or the asyncio plane has refused it before its end
        assert isinstance(rust, int)
        assert isinstance(python, int)
        assert bool(python) >= bool(rust)


def test_a_head_is_read_alike() -> None:
    @settings(max_examples=3_000)
    @given(heads())
    def alike(data: bytes) -> None:
        agree_on_head(data)

    alike()


@pytest.mark.parametrize(
    "data",
    [
        *(case.sent for case in REQUESTS),
        *(step for one in EXCHANGES for step in one.client if isinstance(step, bytes)),
    ],
)
def test_what_is_known_to_deceive_is_read_alike(data: bytes) -> None:
    head = data.lstrip(b"\r\n").partition(b"\r\n\r\n")[0]
    if len(head) < limits.HEAD_BYTES_MAX - 4:
        agree_on_head(data[: data.find(head) + len(head) + 4])


class NotChunked(Exception):
    pass


def by_chunked_body(pieces: Sequence[bytes]) -> tuple[bytes, bytes, int] | None:
    """As `core.read_chunks`."""
    body, content, came = ChunkedBody(), b"", 0
    for piece in pieces:
        came += len(piece)
        content += b"".join(body.feed(piece))
        if body.flawed:
            raise NotChunked
        if body.done:
            passing = trailer_lines(body.trailers, HeaderKinds()) + b"\r\n"
            return content, passing, came - len(body.rest)
    return None


def by_core_chunks(data: bytes) -> Any:
    try:
        return core.read_chunks(data)
    except ValueError:
        return "flawed"


_CHUNK_PIECES = (
    *(b"1\r\na\r\n", b"A\r\n0123456789\r\n", b"0\r\n", b"000\r\n", b"\r\n", b"3;x=y\r\nabc\r\n"),
    *(
        b"0\r\n\r\n",
        b"X-Sum: 1\r\n",
        b"Host: h\r\n",
        b"x: y\n",
        b" z\r\n",
        b"a",
        b"\0",
        b"\r",
        b"\n",
    ),
    *(
        b"fffffffffffffff0\r\n",
        b"8000000000000000\r\n",
        b"10000000000000000\r\n",
        b"0x1\r\n",
        b"-1",
    ),
    *(b"1 \r\na\r\n", b";" + b"e" * 256 + b"\r\n", b"1;" + b"e" * 257 + b"\r\na\r\n", b"GET / "),
)


def test_chunks_are_read_alike_wherever_they_are_cut() -> None:
    @settings(max_examples=3_000)
    @given(st.lists(st.sampled_from(_CHUNK_PIECES), max_size=7), st.integers(1, 30))
    def alike(parts: list[bytes], size: int) -> None:
        data = b"".join(parts)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        try:
            python = by_chunked_body(pieces)
        except NotChunked:
            # It may be seen there before all of the trailers have come.
            assert (
                by_core_chunks(data) == "flawed" or by_core_chunks(data + b"\r\n\r\n") == "flawed"
            )
        else:
            assert by_core_chunks(data) == python

    alike()


# --- routes

_ROUTER = Router(MAPPING.routes)
_ROUTES = [
    (one.method, one.path, one.action, pattern_of(one.path).pattern.decode())
    for one in MAPPING.routes
]
_PATH_PIECES = (
    *("/", "//", "/api", "/v1", "/orders", "/api/v1/orders", "/5", "/batch", ".json", ".", ";x"),
    *("?x=/", "%6f", "%6F", "%2F", "%ff", "\xe9", "%ed%a0%80", "http://h", "://", "*", "orders"),
)
_FORM_PIECES = (
    *(b"_method=", b"_method[]=", b"_method", b"%5fmethod=", b"delete", b"DELETE", b"get", b"put"),
    *(b"&", b";", b" ", b"+", b"=", b"\0", b"%64elete", b"%", b"a=b", b"[", b"post", b"link"),
)
_TYPES = (
    *(b"", b"application/json", b"application/x-www-form-urlencoded", b"text/plain", b" , "),
    *(b"multipart/form-data; boundary=x", b"Application/X-WWW-Form-URLencoded ;q", b"multipart/x"),
    *(b"multipart/mixed", b"application/x-www-form-urlencoded,x", b"\xa0multipart/related"),
)


def routed(
    method: bytes, target: bytes, named: bytes, content_type: bytes, body: bytes
) -> tuple[str, list[tuple[str, str]]] | None:
    """As `core.find_route`."""
    found = _ROUTER.match(method, target, named, content_type)
    match = settle(found, content_type, body) if found is not None else None
    return (match[0].action, list(match[1].items())) if match is not None else None


def test_a_route_is_found_alike() -> None:
    @settings(max_examples=3_000)
    @given(
        st.sampled_from((b"GET", b"POST", b"POST", b"POST", b"DELETE", b"HEAD", b"PUT", b"post")),
        st.one_of(
            st.lists(st.sampled_from(_PATH_PIECES), max_size=6).map("".join),
            st.sampled_from(["/api/v1/orders", "/api/v1/orders/5.json", "/api/v1/orders/a%00b"]),
        ),
        st.sampled_from((b"", b"", b"DELETE", b"delete", b"GET", b"x", b"DELETE,GET")),
        st.sampled_from(_TYPES),
        st.lists(st.sampled_from(_FORM_PIECES), max_size=7).map(b"".join),
    )
    def alike(method: bytes, path: str, named: bytes, kind: bytes, body: bytes) -> None:
        target = path.encode("latin-1")
        rust = core.find_route(_ROUTES, (method, target), named, kind, body)
        assert rust == routed(method, target, named, kind, body), (method, target, named, kind)

    alike()


# --- whole exchanges


class Script(NamedTuple):
    """A client's bytes, with what the monolith does about them. `LAST` ends its connection."""

    requests: tuple[bytes, ...]
    answers: tuple[bytes, ...]  # by the number in the target; the last bytes of each say what then
    sizes: tuple[int, int]  # of the pieces in which both sides send
    ends: bool  # the client sends no more behind them


_HEADS = re.compile(rb"(?:HTTP/1.1 1.*?\r\n\r\n)*HTTP.*?\r\n\r\n", re.DOTALL)
LAST, EARLY = b"<close>", b"<early>"
_BODIES = (b"", b"x", b"hello", b"GET /9 HTTP/1.1\r\nHost: h\r\n\r\n", b"b" * 70_000)
_FRAMES = ("none", "length", "chunked", "1.0", "1.0 kept", "closing", "expect")
_ANSWERS = (
    response(b"ok"),
    response(b"ok", "201 Created", b"X-A: 1"),
    response(b"o" * 70_000),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end" + LAST,
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok" + LAST,
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(b"hinted"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"continued"),
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" + LAST,
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok" + LAST,
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokX",
    LAST,
    EARLY + response(b"too soon", "413 Payload Too Large"),
)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    asked, count = [], draw(st.integers(1, 3))
    for n in range(count):
        frame, body = draw(st.sampled_from(_FRAMES)), draw(st.sampled_from(_BODIES))
        path = draw(st.sampled_from((b"/%d", b"/api/v1/orders?%d")))
        method = draw(st.sampled_from((b"GET", b"POST", b"HEAD")))
        version = b"1.0" if frame.startswith("1.0") else b"1.1"
        head = b"%b %b HTTP/%b\r\nHost: h\r\nX-Request-Id: %d\r\n" % (method, path % n, version, n)
        if frame == "1.0 kept":
            head += b"Connection: keep-alive\r\n"
        elif frame == "closing":
            head += b"Connection: close\r\n"
        if frame == "chunked":
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            asked.append(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
        elif frame == "none":
            asked.append(head + b"\r\n")
        else:
            head += b"Expect: 100-continue\r\n" * (frame == "expect")
            asked.append(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answers = [draw(st.sampled_from(_ANSWERS)) for _ in range(count)]
    sizes = (draw(st.sampled_from((7, 100, 9_000, 1 << 20))) for _ in range(2))
    return Script(tuple(asked), tuple(answers), tuple(sizes), draw(st.booleans()))  # type: ignore[arg-type]


def pieces(data: bytes, size: int) -> list[bytes]:
    size = max(size, len(data) // 50)
    return [data[at : at + size] for at in range(0, len(data), size)]


async def seen(script: Script) -> tuple[list[bytes], bytes]:
    """The requests that came to the monolith, and all that the client got."""
    came: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        while True:
            head = await visit.reader.readuntil(b"\r\n\r\n")
            (number,) = re.findall(rb"^\w+ .*?(\d) HTTP", head)
            answer = script.answers[int(number)]
            if not answer.startswith(EARLY):
                head += await visit._body(head)
            came.append(head)
            shown = answer.removeprefix(EARLY).removesuffix(LAST)
            if head.startswith(b"HEAD") and (heads := _HEADS.match(shown)):
                shown = heads[0]
            for piece in pieces(shown, script.sizes[1]):
                await visit.answer(piece)
            if answer.endswith(LAST):
                return
            if answer.startswith(EARLY):
                await visit.reader.read()
                return

    async with between(monolith) as (front, _):
        client = await front.client()
        got = asyncio.create_task(client.rest())
        try:
            for piece in pieces(b"".join(script.requests), script.sizes[0]):
                await client.send(piece)
            if script.ends:
                client.writer.write_eof()
            else:
                await client.send(b"GET / HTTP/9.9\r\n\r\n")  # is refused, and ends it
        except ConnectionError:
            pass
        return [joined(one) for one in came], joined(await got)


_CHUNKS_FOLLOW = re.compile(rb"chunked\r\n(?:[^\r\n]+\r\n)*\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def joined(data: bytes) -> bytes:
    """With each chunked body in one chunk: they may be cut anew."""
    out, at = b"", 0
    while follow := _CHUNKS_FOLLOW.search(data, at):
        out, at, content = out + data[at : follow.end()], follow.end(), b""
        while (chunk := _CHUNK.match(data, at)) and int(chunk[1], 16):
            end = chunk.end() + int(chunk[1], 16)
            content, at = content + data[chunk.end() : end], end + 2
        out += b"%x\r\n%b\r\n" % (len(content), content) if content else b""
    return out + data[at:]


def comparable(script: Script) -> bool:
    """Whether what is seen depends on nothing but what is sent: not where an answer comes, or a
    connection ends, while the client still sends.
    """
    final = [n for n, one in enumerate(script.requests) if ends(one, script.answers[n])]
    return not final or final[0] == len(script.requests) - 1


def ends(asked: bytes, answer: bytes) -> bool:
    kept = b"HTTP/1.1" in asked[:60] or b"keep-alive" in asked[:120]
    awaited = b"Expect" in asked and not asked.startswith(b"HEAD")
    return (
        not kept
        or b"Connection: close" in asked[:120]
        or answer.endswith(LAST)
        or answer.startswith(EARLY)
        or awaited
        or b"okX" in answer
        or b"Length: x" in answer
    )


def test_whole_exchanges_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(
        max_examples=120,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(scripts().filter(comparable))
    def same(script: Script) -> None:
        by_plane = []
        for name in PLANES:
            monkeypatch.setattr(proxy_rig, "PLANE", name)
            by_plane.append(run(seen(script)))
        python, rust = by_plane
        assert rust == python

    same()
