"""Answers to one GET by which a client could be made to take another one's answer for its own, or a
part of an answer for the whole; what becomes of each is in `statuses`.
"""

from __future__ import annotations

from golden_exchanges import CHUNKED, OK
from smuggling_corpus import PASSES, Case

from bridge.limits import HEAD_BYTES_MAX

_TE = b"Transfer-Encoding: chunked"
BROKEN_OFF = -1  # the client's connection ends within it
STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN"


def unusable(name: str, sent: bytes) -> Case:
    return Case(name, sent, (502,))


def _answer(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n" + body


ANSWERS = (
    *(
        unusable(f"status line {line!r}", line + b"\r\nContent-Length: 0\r\n\r\n")
        for line in (
            b"",
            b"HTTP/1.1",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 0200 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 000 OK",
            b"HTTP/1.1 2x0 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1\t200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/2 200 OK",
            b"HTTP/1.2 200 OK",
            b"HTTP/0.9 200 OK",
            b"HTTPS/1.1 200 OK",
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 200 O\x7fK",
            b"GET / HTTP/1.1",
        )
    ),
    *(
        unusable(f"answer {line!r}", _answer(line, body=b"abc\r\n" + STOLEN))
        for line in (
            b"Content-Length: 3\r\nContent-Length: 4",
            b"Content-Length: 3\r\nContent-Length: 3",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Content-Length: 3, 3",
            b"Content-Length: -3",
            b"Content-Length: +3",
            b"Content-Length: 0x3",
            b"Content-Length:",
            b"Content-Length: 99999999999999999999",
            b"Content-Length : 3",
            b" Content-Length: 3",
            b"Content-Length: 3\r\n 4",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: \x0bchunked",
            b"X: a\nY: b",
            b"X: a\rY: b",
            b"X: a\x00",
            b"X",
            b"X Y: 1",
            b": 1",
            b"X: a\r\n b",
        )
    ),
    unusable("bare line feeds", _answer(b"Content-Length: 0").replace(b"\r\n", b"\n")),
    unusable("nothing", b""),
    unusable("garbage", b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n"),
    unusable("words", b"Internal error, sorry.\r\n\r\n"),
    unusable("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    unusable("a head without an end", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 3 * HEAD_BYTES_MAX),
    unusable(
        "a switch that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + STOLEN,
    ),
    unusable("only 1xx", b"HTTP/1.1 100 Continue\r\n\r\n" * 3),
    unusable("a flood of 1xx", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 65 + OK),
    Case("two answers", _answer(b"Content-Length: 2", body=b"ok" + STOLEN), (PASSES,)),
    Case("two answers, chunked", _answer(_TE, body=b"2\r\nok\r\n0\r\n\r\n" + STOLEN), (PASSES,)),
    Case("bytes behind", _answer(b"Content-Length: 2", body=b"ok\r\n\r\n"), (PASSES,)),
    Case(
        "204 with a body",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 66\r\n\r\n" + STOLEN,
        (PASSES,),
    ),
    Case(
        "204 in chunks",
        b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + STOLEN,
        (PASSES,),
    ),
    Case(
        "304 with a body",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 66\r\n\r\n" + STOLEN,
        (PASSES,),
    ),
    Case(
        "1xx before it", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + STOLEN, (PASSES,)
    ),
    Case(
        "1xx with a length",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 66\r\n\r\n" + OK + STOLEN,
        (PASSES,),
    ),
    Case("too little", _answer(b"Content-Length: 9", body=b"abc"), (BROKEN_OFF,)),
    Case("chunks without an end", _answer(_TE, body=b"3\r\nabc\r\n"), (BROKEN_OFF,)),
    *(
        Case(f"answer's chunks {chunks!r}", _answer(_TE, body=chunks + STOLEN), (BROKEN_OFF,))
        for chunks in (
            b"3\r\nabcX0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"-1\r\n",
            b"fffffffffffffffff\r\nabc",
            b"3\r\nabc\r\n0\r\nX\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX: a\nb\r\n\r\n",
            b"3\r\nabc\r\n\r\n\r\n",
        )
    ),
)
