"""Bytes by which two readers of HTTP have been made to disagree, and what becomes of each.

The kinds are common knowledge of the field (RFC 9112 section 11, the CVEs named here, and what
those who study desynchronised connections have published since 2005). Each request is refused with
one of its statuses, or passes in a form that all read alike; each answer is a 502, is broken off,
or reaches the client as exactly one answer.
"""

from __future__ import annotations

from typing import NamedTuple

from golden_exchanges import CHUNKED, OK, POST, H, get

from bridge.limits import FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX

EVIL = b"GET /admin HTTP/1.1\r\nHost: exchange.test\r\n\r\n"
PASSES = 0


class Case(NamedTuple):
    name: str
    sent: bytes
    statuses: tuple[int, ...]  # PASSES: it goes on, alone; requests behind it are their own
    in_body: bool = False  # the flaw is behind the head, which may have gone on


def door(name: str, sent: bytes, *statuses: int) -> Case:
    return Case(name, sent, statuses or (400,))


def inside(name: str, sent: bytes) -> Case:
    return Case(name, sent, (400,), in_body=True)


def passes(name: str, sent: bytes) -> Case:
    return Case(name, sent, (PASSES,))


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def _chunks(*parts: bytes) -> bytes:
    return POST + CHUNKED + b"".join(parts)


_TE = b"Transfer-Encoding: chunked"
_END = b"0\r\n\r\n"

# Content-Length and Transfer-Encoding, and the ways to have one of them overlooked.
BOTH = (
    door("CL.TE", _post(b"Content-Length: 6", _TE, body=_END + b"G")),
    door("CL.TE with a request inside", _post(b"Content-Length: 50", _TE, body=_END + EVIL)),
    door("TE.CL", _post(_TE, b"Content-Length: 4", body=b"2c\r\n" + EVIL + b"\r\n" + _END)),
    door("both, and a length of nothing", _post(b"Content-Length: 0", _TE, body=_END)),
    door(
        "both, the coding named in Connection",
        _post(b"Connection: transfer-encoding", b"Content-Length: 5", _TE, body=_END),
    ),
    door(
        "both, the length named in Connection",
        _post(b"Connection: content-length", b"Content-Length: 5", _TE, body=_END),
    ),
    door("both, on 1.0", b"POST /f HTTP/1.0\r\n" + H + b"Content-Length: 5\r\n" + CHUNKED + _END),
    door("chunks on 1.0", b"POST /f HTTP/1.0\r\n" + H + CHUNKED + _END),
    door("both on a GET", get(b"Content-Length: 5", _TE) + _END),
    *(
        door(f"TE.TE {line!r}", _post(b"Content-Length: 4", line, body=b"5c\r\n" + EVIL), 400, 501)
        for line in (
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunkedx",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding\t: chunked",
            b"Transfer-Encoding:\tchunked",
            b"Transfer-Encoding:\x0bchunked",
            b"Transfer-Encoding:\x0cchunked",
            b"Transfer-Encoding: \x00chunked",
            b"Transfer-Encoding: chunked\x00",
            b"Transfer-Encoding: chunked\r",
            b"Transfer-Encoding: \rchunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding:\n chunked",
            b"Transfer-Encoding:\r\n\tchunked",
            b" Transfer-Encoding: chunked",
            b"\tTransfer-Encoding: chunked",
            b"X: x\nTransfer-Encoding: chunked",
            b"X: x\rTransfer-Encoding: chunked",
            b"X: x\r\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: 'chunked'",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: cow",
            b"Transfer-Encoding:",
            b"Transfer-Encoding: chunk\xc3\xa9d",
            b"Transfer-Encoding: \xa0chunked",
            b"Transfer-Encoding\x00: chunked",
            b"Transfer-Encoding\xa0: chunked",
            b"\x00Transfer-Encoding: chunked",
            b"Transfer_Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
            b"Transfer-Encoding;: chunked",
            b"Transfer Encoding: chunked",
            b"Transfer-Encoding chunked",
            b"(Transfer-Encoding): chunked",
        )
    ),
    *(
        door(f"coding alone {line!r}", _post(line, body=_END), 400, 501)
        for line in (
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding:",
            b"Transfer_Encoding: chunked",
            b"transfer_encoding: chunked",
        )
    ),
)

LENGTHS = (
    *(
        door(f"length {line!r}", _post(line, body=b"abcdefghij" + EVIL))
        for line in (
            b"Content-Length: +3",
            b"Content-Length: -3",
            b"Content-Length: 0x3",
            b"Content-Length: 3.0",
            b"Content-Length: 3e0",
            b"Content-Length: 3 3",
            b"Content-Length: 3,3",
            b"Content-Length: 3, 4",
            b"Content-Length: 3;",
            b"Content-Length: 3abc",
            b"Content-Length: 1_0",
            b"Content-Length: \xef\xbc\x93",
            b"Content-Length: \xb2",
            b"Content-Length:",
            b"Content-Length: ",
            b"Content-Length: \x003",
            b"Content-Length: 3\x00",
            b"Content-Length: 3\x0b",
            b"Content-Length: '3'",
            b"Content-Length : 3",
            b"Content-Length\t: 3",
            b" Content-Length: 3",
            b"Content-Length:\r\n 3",
            b"Content-Length: 3\r\n 4",
            b"Content_Length: 3",
            b"CONTENT_LENGTH: 3",
            b"Content-Length: 3\r\nContent_Length: 5",
            b"Content-Length: 3\r\nContent-Length: 3",
            b"Content-Length: 3\r\nContent-Length: 4",
            b"Content-Length: 3\r\ncontent-length: 0",
            b"Content-Length: 9223372036854775808",
            b"Content-Length: 18446744073709551619",
            b"Content-Length: 99999999999999999999999999999999",
            b"Content-Length: 0000000000000000003",
            b"X: x\nContent-Length: 3",
            b"X: x\rContent-Length: 3",
        )
    ),
    passes("CL.0", _post(b"Content-Length: 44", body=EVIL[:44]) + get(target=b"/2")),
    passes("0.CL", get() + EVIL),
    passes("a GET with a body", get(b"Content-Length: 44") + EVIL[:44]),
    passes("a length in tabs", _post(b"Content-Length:\t 3 \t", body=b"abc")),
)

CHUNKS = (
    *(
        inside(f"chunk size {size!r}", _chunks(size, b"abc\r\n", _END))
        for size in (
            b"0x3\r\n",
            b"0X3\r\n",
            b"+3\r\n",
            b"-3\r\n",
            b"3_\r\n",
            b"0_3\r\n",
            b" 3\r\n",
            b"3 \r\n",
            b"3\t\r\n",
            b"3 ;x\r\n",
            b"3\n",
            b"3\r",
            b"3\r\r\n",
            b"3\x00\r\n",
            b"3\x0b\r\n",
            b"3,\r\n",
            b"3.\r\n",
            b"3h\r\n",
            b"3\xa0\r\n",
            b"\xef\xbc\x93\r\n",
            b"\r\n",
            b";x\r\n",
            b"g\r\n",
            b"\r3\r\n",
            b"\n3\r\n",
            b'"3"\r\n',
            b"fffffffffffffffff\r\n",
            b"10000000000000003\r\n",
            b"00000000000000003\r\n",
            b"3;a\nb\r\n",
            b"3;a\rb\r\n",
            b"3;\n\r\n",
            b"3;a\x00b\r\n",
            b"3;" + b"x" * 300 + b"\r\n",
        )
    ),
    *(
        inside(f"behind a chunk {end!r}", _chunks(b"3\r\nabc", end, _END))
        for end in (b"", b"\n", b"\r", b"XX", b"\n\n", b"\r\r\n", b"d\r\n", b" \r\n", b"\r\n\r\n")
    ),
    *(
        inside(f"behind the last chunk {end!r}", _chunks(b"3\r\nabc\r\n", end))
        for end in (
            b"0\n\n",
            b"0\r\n\n",
            b"0\r\nXX" + EVIL,
            b"0\r\n \r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX: 1\r\n 2\r\n\r\n",
            b"0\r\nX: a\nb\r\n\r\n",
            b"0\r\nX: a\x00\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
            b"0\r\n" + EVIL,
            b"0\r\nX: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        )
    ),
    passes(
        "a length among the trailers", _chunks(b"1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n") + EVIL
    ),
    passes("a coding among the trailers", _chunks(b"1\r\na\r\n0\r\n", _TE, b"\r\n\r\n") + EVIL),
    passes(
        "an identity among the trailers",
        _chunks(b"1\r\na\r\n0\r\nX-Member-Id: 9\r\nx_member_id: 9\r\n\r\n"),
    ),
    # CVE-2023-40175: two bytes behind the last chunk are taken for its end, and a request remains
    passes(
        "a trailer that is a request",
        _chunks(b"3\r\nabc\r\n0\r\na:GET /admin HTTP/1.1\r\nX-Member-Id: 9\r\n\r\n"),
    ),
    passes(
        "a trailer and a request behind it",
        _chunks(b"0\r\na:GET /admin HTTP/1.1\r\n\r\n") + get(target=b"/2"),
    ),
    passes("extensions", _chunks(b'3;a="x;y";b\r\nabc\r\n0;0\r\n\r\n') + EVIL),
    passes("a chunk that looks like the end", _chunks(b"5\r\n0\r\n\r\n\r\n", _END) + EVIL),
    passes("leading zeros", _chunks(b"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n") + EVIL),
)

LINES = (
    *(
        door(f"request line {line!r}", line + b"\r\n" + H + b"\r\n", 400, 505)
        for line in (
            b"GET /",
            b"GET",
            b"",
            b" GET / HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET\t/\tHTTP/1.1",
            b"GET\x0b/ HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET /\tb HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"GET / HTTP/1.1\r",
            b"GET / http/1.1",
            b"GET / HTTP /1.1",
            b"GET / HTTP/1",
            b"GET / HTTP/1.10",
            b"GET / HTTP/11",
            b"GET / HTTP/01.1",
            b"GET / HTTP/1.1.1",
            b"GET / HTTP/-1.1",
            b"GET / HTTP/1,1",
            b"GET / HTTPS/1.1",
            b"GET / HTTP/1.1 HTTP/1.1",
            b"GET/ HTTP/1.1",
            b"(GET) / HTTP/1.1",
            b"G\xc3\x89T / HTTP/1.1",
            b"G" * 33 + b" / HTTP/1.1",
            b"GET admin HTTP/1.1",
            b"GET ../admin HTTP/1.1",
            b"GET * HTTP/1.1",
            b"GET ?a HTTP/1.1",
            b"GET http:///x HTTP/1.1",
            b"GET http:/exchange.test/ HTTP/1.1",
            b"GET ftp://exchange.test/ HTTP/1.1",
            b"GET http://other/ HTTP/1.1",
            b"GET http://exchange.test:81/ HTTP/1.1",
            b"GET http://exchange.test@other/ HTTP/1.1",
            b"GET http://other@exchange.test/ HTTP/1.1",
            b"GET http://exchange.test\\@other/ HTTP/1.1",
            b"GET javascript://exchange.test/ HTTP/1.1",
        )
    ),
    door("HTTP/0.9", b"GET /\r\n\r\n", 400, 505),
    door("HTTP/0.9 and a head", b"GET /\r\nHost: exchange.test\r\n\r\n", 400, 505),
    door("HTTP/1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    door("HTTP/2.0", b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    door("HTTP/0.9 by name", b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    door("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505),
    door("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)),
    door("PROXY protocol", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + get()),
    door("CONNECT", b"CONNECT exchange.test:80 HTTP/1.1\r\n" + H + b"\r\n", 405, 400),
    door("bare line feeds", get().replace(b"\r\n", b"\n")),
    door("a bare line feed ends the head", get()[:-2] + b"\n" + EVIL),
    door("one bare line feed", b"GET /x HTTP/1.1\n" + H + b"\r\n"),
    door("line feed, carriage return", b"GET /x HTTP/1.1\n\r" + H + b"\r\n"),
    door("a bare carriage return", b"GET /x HTTP/1.1\r" + H + b"\r\n"),
    door("three empty lines before", b"\r\n\r\n\r\n" + get()),
    door("an empty line of a bare line feed", b"\n" + get()),
    door("a space before", b" " + get()),
    door("an answer instead", OK),
    door("too long a target", get(target=b"/" + b"a" * TARGET_BYTES_MAX), 414),
    door("too long a head", get(b"X: " + b"a" * HEAD_BYTES_MAX), 431),
    door("too many fields", get(*(b"X: 1",) * FIELDS_MAX), 431),
    door("a head without an end", b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX * 2, 431),
    door("a target without an end", b"GET /" + b"a" * HEAD_BYTES_MAX * 2, 414, 431, 400),
)

FIELDS = (
    *(
        door(f"field {line!r}", get(line))
        for line in (
            b"X",
            b"X Y: 1",
            b"X : 1",
            b": 1",
            b" X: 1",
            b"X: a\r\n b",
            b"X: a\r\n\tb",
            b"X: a\r\n \r\nY: 1",
            b"X: a\nY: b",
            b"X: a\rY: b",
            b"X: a\r\r\nY: b",
            b"X: a\x00b",
            b"X: a\x0bb",
            b"X: a\x7fb",
            b"X: a\x1b[0m",
            b"X\x00: a",
            b"X\xe9: a",
            b"X(: a",
            b"X/Y: a",
            b'"X": a',
            b"X\x0b: a",
            b"X=a",
            b"X;Y: a",
            b"@: a",
            b"{}: a",
            b"\r: a",
        )
    ),
    door("a folded first line", b"GET / HTTP/1.1\r\n X: 1\r\n" + H + b"\r\n"),
    door("no host", b"GET / HTTP/1.1\r\nX: 1\r\n\r\n"),
    door("two hosts", get(b"Host: other")),
    door("the same host twice", get(b"Host: exchange.test")),
    door("two hosts on 1.0", get(b"Host: other", version=b"1.0")),
    door("two hosts, one named in Connection", get(b"Connection: host", b"Host: other")),
    *(
        door(f"host {value!r}", get(host=b"Host: " + value + b"\r\n"))
        for value in (
            b"a b",
            b"a,b",
            b"a/b",
            b"a@b",
            b"a?b",
            b"a#b",
            b"a\\b",
            b"http://a",
            b"a\tb",
            b"a, exchange.test",
        )
    ),
    passes("an underscore is no hyphen", get(b"X_Y: 1", b"X-Y: 2", b"User_Agent: x")),
    passes(
        "framing under other names", get(b"Content-Length-X: 3", b"X-Transfer-Encoding: chunked")
    ),
    passes("a request in a value", get(b"X: GET /admin HTTP/1.1")),
    passes(
        "escaped line ends",
        get(b"X: %0d%0aTransfer-Encoding:%20chunked", target=b"/%0d%0aX:1?a=%0a"),
    ),
    passes(
        "look-alikes of line ends",
        get(b"X: a\xc4\x8d\xc4\x8aTransfer-Encoding: chunked", b"Y: \xe5\x98\x8a\xe5\x98\x8dZ: 1"),
    ),
    passes("next line characters", get(b"X: a\x85b\xe2\x80\xa8c")),
)

CONNECTIONS = (
    passes(
        "what a client may not have dropped",
        _post(
            b"Connection: close, content-length, host, X-Forwarded-For",
            b"Content-Length: 44",
            body=EVIL[:44],
        ),
    ),
    passes(
        "a wish for h2c",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
        + EVIL,
    ),
    passes(
        "a wish for h2c among others",
        get(b"Connection: Upgrade", b"Upgrade: websocket, h2c") + EVIL,
    ),
    passes(
        "a wish for H2C twice",
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: H2C") + EVIL,
    ),
    passes(
        "a wish for h2c with a version", get(b"Connection: Upgrade", b"Upgrade: h2c/1.0") + EVIL
    ),
    passes("a wish for TLS", get(b"Connection: Upgrade", b"Upgrade: TLS/1.2, HTTP/1.1") + EVIL),
    passes(
        "a wish with a body",
        _post(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 44", body=EVIL[:44])
        + EVIL,
    ),
    passes(
        "a wish with chunks",
        get(b"Connection: Upgrade", b"Upgrade: websocket", _TE) + b"1\r\na\r\n" + _END + EVIL,
    ),
    passes(
        "a wish on 1.0",
        get(b"Connection: Upgrade, keep-alive", b"Upgrade: websocket", version=b"1.0") + EVIL,
    ),
    passes("a wish that is refused", get(b"Connection: Upgrade", b"Upgrade: websocket") + EVIL),
    passes("the end of the connection, and more", get(b"Connection: close") + EVIL),
    passes("1.0, and more", get(version=b"1.0") + EVIL),
    passes(
        "100-continue, and its body",
        _post(b"Expect: 100-continue", b"Content-Length: 44", body=EVIL[:44]) + EVIL,
    ),
    passes("100-continue without a body", get(b"Expect: 100-continue") + EVIL),
    passes("100-continue and no length", _post(b"Expect: 100-continue") + EVIL),
    passes(
        "another expectation",
        _post(b"Expect: y 100-continue", b"Content-Length: 1", body=b"x") + EVIL,
    ),
    passes(
        "an expectation twice",
        _post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 1", body=b"x")
        + EVIL,
    ),
    passes("many at once", EVIL * 50),
)

REQUESTS = (*BOTH, *LENGTHS, *CHUNKS, *LINES, *FIELDS, *CONNECTIONS)
