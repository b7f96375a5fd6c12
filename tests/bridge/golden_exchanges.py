"""Exchanges as clients and monoliths have them; `golden_changes` says what a proxy between them may
change.

An exchange is two scripts, the client's and the monolith's, which run against each other: bytes are
sent, a `Do` is done. Between them they have every form that HTTP/1 gives a message.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from bridge.limits import HEAD_BYTES_MAX, TARGET_BYTES_MAX


class Do(Enum):
    REQUEST = auto()  # read one; both scripts' readings are what is compared
    ANSWER = auto()
    ANSWER_TO_HEAD = auto()
    HEAD = auto()  # wait for a request's head, take nothing
    FIN = auto()  # send no more, but read on
    END = auto()  # read to the end of the connection
    CLOSE = auto()
    LEAVE = auto()  # take the head of a request whose body is not waited for, and no more


class Until(NamedTuple):
    """Waits for a part of a body, and takes nothing."""

    content: bytes


class Raw(NamedTuple):
    """Reads so many bytes, whatever they are."""

    size: int


class Exchange(NamedTuple):
    name: str
    client: tuple[bytes | Do | Until | Raw, ...]
    monolith: tuple[bytes | Do | Until | Raw, ...]


# --- how they are written down

H = b"Host: exchange.test\r\n"
POST = b"POST /f HTTP/1.1\r\n" + H
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def get(*lines: bytes, target: bytes = b"/x", version: bytes = b"1.1", host: bytes = H) -> bytes:
    start = b"GET %b HTTP/%b\r\n" % (target, version)
    return start + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def answer(*lines: bytes, body: bytes = b"ok", status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def asked(name: str, request: bytes, given: bytes = OK) -> Exchange:
    """One request, one answer."""
    return Exchange(name, (request, Do.ANSWER), (Do.REQUEST, given))


def in_turn(name: str, *requests: bytes, version_10: bool = False) -> Exchange:
    """Requests on one connection, each after the answer to the one before."""
    script: list[bytes | Do | Until | Raw] = []
    for request in requests:
        script += [request, Do.ANSWER]
    return Exchange(name, tuple(script), (Do.REQUEST, OK) * len(requests))


def at_once(name: str, *requests: bytes) -> Exchange:
    """Requests on one connection, sent before any is answered."""
    answers = [answer(body=b"answer %d" % n) for n in range(len(requests))]
    script = tuple(step for one in answers for step in (Do.REQUEST, one))
    return Exchange(name, (b"".join(requests), *(Do.ANSWER for _ in requests)), script)


def given(name: str, *answers: bytes, request: bytes = b"") -> Exchange:
    """An answer, with what may come before it, to a plain request."""
    return Exchange(
        name,
        (request or get(), *(Do.ANSWER for _ in answers)),
        (Do.REQUEST, b"".join(answers)),
    )


def ending(name: str, what: bytes, request: bytes = b"") -> Exchange:
    """An answer whose end is the connection's."""
    return Exchange(name, (request or get(), Do.ANSWER, Do.END), (Do.REQUEST, what, Do.CLOSE))


# --- the exchanges

REQUESTS = (
    asked("1.1", get()),
    asked("1.0", get(version=b"1.0")),
    asked("1.0 without a host", get(version=b"1.0", host=b"")),
    asked("1.1, its last", get(b"Connection: close")),
    asked("1.1, its last among other words", get(b"Connection: X-Hop, Close", b"X-Hop: 1")),
    in_turn("kept alive", get(), get(b"X-A: 1"), POST + b"Content-Length: 1\r\n\r\nx", get()),
    in_turn(
        "1.0, kept alive",
        get(b"Connection: keep-alive", version=b"1.0"),
        get(b"Connection: Keep-Alive", version=b"1.0"),
    ),
    at_once("pipelined", get(), get(b"X-A: 2", target=b"/2"), get(target=b"/3")),
    at_once(
        "pipelined bodies",
        POST + b"Content-Length: 3\r\n\r\nabc",
        POST + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
        get(),
        POST + b"Content-Length: 0\r\n\r\n",
        get(b"Connection: close"),
    ),
    asked("an empty line before", b"\r\n" + get()),
    asked("two empty lines before", b"\r\n\r\n" + get()),
    asked("a length", POST + b"Content-Length: 5\r\n\r\nhello"),
    asked("a length of nothing", POST + b"Content-Length: 0\r\n\r\n"),
    asked("a length with zeros", POST + b"Content-Length: 0005\r\n\r\nhello"),
    asked("a body that looks like a request", POST + b"Content-Length: 40\r\n\r\n" + get() + b"."),
    asked("a body of a GET", get(b"Content-Length: 5")[:-2] + b"\r\nhello"),
    asked("chunks", POST + CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
    asked("no chunk but the last", POST + CHUNKED + b"0\r\n\r\n"),
    asked(
        "sizes in every hand",
        POST + CHUNKED + b"00a\r\n0123456789\r\nB\r\n01234567890\r\n000\r\n\r\n",
    ),
    asked("a chunk's extension", POST + CHUNKED + b'3;a=1;b="x"\r\nabc\r\n0;last\r\n\r\n'),
    asked("trailers", POST + CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum:2 \r\n\r\n"),
    asked(
        "trailers that would change how it is read",
        POST
        + CHUNKED
        + b"1\r\na\r\n0\r\nContent-Length: 9\r\nX-Sum: 1\r\nHost: evil\r\nTransfer-Encoding: x\r\n"
        b"X-Forwarded-For: 1.1.1.1\r\nX-Request-Id: e\r\nContent-Type: e\r\nX-Member-Id: 9\r\n"
        b"Connection: close\r\n\r\n",
    ),
    asked(
        "the coding in capitals", POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    ),
    asked("an unusual method", b"M-SEARCH /f HTTP/1.1\r\n" + H + b"\r\n"),
    asked("a method nobody knows", b"FROB!#$%&'*+-.^_`|~9 /f HTTP/1.1\r\n" + H + b"\r\n"),
    asked("a method in small letters", b"get /f HTTP/1.1\r\n" + H + b"\r\n"),
    asked(
        "everything a target may have",
        get(target=b'/a//b/../c;p=1/%2e%zz?q=[]{}|\\^"<>`&\xc3\xa9\xff'),
    ),
    asked("the absolute form", get(target=b"http://exchange.test/x?y=1")),
    asked("the absolute form without a path", get(target=b"HTTP://exchange.test")),
    asked("the star", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n"),
    asked("a host with its port", get(host=b"Host: exchange.test:8080\r\n")),
    asked("a host by number", get(host=b"Host: [::1]:3000\r\n")),
    asked("no space after a colon", get(b"X-A:1", b"Cookie:a=1", host=b"host:exchange.test\r\n")),
    asked("much space around a value", get(b"X-A:  \t two  words \t ", b"X-B:\t1")),
    asked("empty values", get(b"X-A:", b"X-B: ", b"X-C:\t \t", b"Accept:")),
    asked("bytes beyond ASCII", get(b"X-A: \x80\xe9\xff", b"X-B: caf\xc3\xa9")),
    asked("every character of a name", get(b"!#$%&'*+-.^_`|~09azAZ: 1")),
    asked(
        "duplicates, cases, order",
        get(b"x-a: 1", b"X-B: 2", b"X-A: 3", b"x-A: 1", b"Cookie: a", b"Cookie: b"),
    ),
    asked(
        "quotes, commas, colons", get(b'X-A: "a, b": c;d', b"X-B: ::", b"Forwarded: for=_x;by=_y")
    ),
    asked(
        "hop by hop",
        get(
            b"Keep-Alive: 5",
            b"TE: trailers",
            b"Proxy-Connection: x",
            b"X-A: 1",
            b"proxy-authorization: x",
            b"Connection: keep-alive",
        ),
    ),
    asked(
        "named in Connection",
        get(b"X-Mine: 1", b"Connection: x-mine ,, X-Other", b"X-Other: 2", b"x-mine: 3", b"X-A: 4"),
    ),
    asked(
        "named in two Connections",
        get(b"Connection: a", b"A: 1", b"Connection: b", b"B: 2", b"C: 3"),
    ),
    asked(
        "named in Connection in vain",
        get(b"Connection: Host, X-Forwarded-For, X-Request-Id", b"X-Request-Id: mine"),
    ),
    asked(
        "a length named in Connection",
        POST + b"Connection: Content-Length\r\nContent-Length: 2\r\n\r\nab",
    ),
    asked(
        "a coding named in Connection",
        POST + b"Connection: transfer-encoding\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
    ),
    asked("forwarded before", get(b"X-Forwarded-For: 10.0.0.1", b"X-A: 1")),
    asked(
        "forwarded twice before", get(b"x-forwarded-for: a", b"X-Forwarded-For: b, c", b"X-A: 1")
    ),
    asked("forwarded before, with spaces", get(b"X-Forwarded-For:  b, \t", b"X-A: 1")),
    asked("its own request id", get(b"X-Request-ID: my/own id", b"X-A: 1")),
    asked(
        "a wish for HTTP/2",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
    ),
    asked(
        "a wish with a body",
        POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    ),
    asked("a wish that Connection does not have", get(b"Upgrade: websocket")),
    asked("a long head", get(b"X-Long: " + b"a" * (HEAD_BYTES_MAX - 2_000), b"X-A: 1")),
    asked("a long target", get(target=b"/" + b"t" * (TARGET_BYTES_MAX - 100))),
    asked("many fields", get(*(b"X-%d: %d" % (n, n) for n in range(250)))),
)

ANSWERS = (
    given("a length", answer(b"X-A: 1")),
    given("a length of nothing", answer(body=b"")),
    given("chunks", b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n"),
    given("no chunk but the last", b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"0\r\n\r\n"),
    given(
        "trailers",
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n"
        + CHUNKED
        + b"1\r\na\r\n0\r\nX-Sum:  7\r\nContent-Length: 9\r\n\r\n",
    ),
    ending("until the end", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nall there is"),
    ending("until the end, and it is empty", b"HTTP/1.1 200 OK\r\n\r\n"),
    ending("until the end, to 1.0", b"HTTP/1.1 200 OK\r\n\r\nall", get(version=b"1.0")),
    ending(
        "a 1.0 monolith",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        get(b"Connection: close"),
    ),
    ending("a 1.0 monolith until the end", b"HTTP/1.0 200 Fine\r\nServer: old\r\n\r\nabc"),
    Exchange(
        "chunks to a 1.0 client",
        (get(version=b"1.0"), Do.ANSWER),
        (
            Do.REQUEST,
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"
            + CHUNKED
            + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n",
            Do.CLOSE,
        ),
    ),
    given("204", b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
    given("304", b'HTTP/1.1 304 Not Modified\r\nETag: W/"1"\r\nContent-Length: 99\r\n\r\n'),
    given("304 of what is chunked", b"HTTP/1.1 304 Not Modified\r\n" + CHUNKED),
    *(
        Exchange(
            f"HEAD, {name}",
            (b"HEAD /x HTTP/1.1\r\n" + H + b"\r\n", Do.ANSWER_TO_HEAD, get(), Do.ANSWER),
            (Do.REQUEST, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n", Do.REQUEST, OK),
        )
        for name, framing in (
            ("a length", b"Content-Length: 500\r\n"),
            ("chunked", b"Transfer-Encoding: chunked\r\n"),
            ("no framing", b"X-A: 1\r\n"),
        )
    ),
    given("early hints", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", OK),
    given(
        "several before the last",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nLink: </a>\r\nlink:</b>\r\n\r\n",
        b"HTTP/1.1 199 x\r\n\r\n",
        answer(),
    ),
    given(
        "Set-Cookie twice",
        answer(
            b"Set-Cookie: a=1; Path=/", b"X-A: 1", b"set-cookie: b=2", b"Set-Cookie: a=1; Path=/"
        ),
    ),
    given(
        "odd spacing and empty values",
        answer(b"X-A:1", b"X-B:   \t1 \t ", b"X-C:", b"x-c: ", b"!#$%&'*+-.^_`|~: \xe9\xff"),
    ),
    given(
        "hop by hop",
        answer(
            b"Connection: keep-alive, X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=3",
            b"Proxy-Connection: x",
            b"X-A: 1",
        ),
    ),
    given(
        "what only requests are asked for",
        answer(
            b"Host: x",
            b"X-Forwarded-For: 1",
            b"X-Request-Id: given",
            b"Expect: x",
            b"Content-Type: a/b",
        ),
    ),
    given("a reason of many words", answer(status=b"418 I'm a \xe9 teapot:  yes")),
    given("an empty reason", answer(status=b"200 ")),
    given("no reason", answer(status=b"200")),
    *(
        given(f"status {n}", answer(status=b"%d X" % n))
        for n in (201, 299, 302, 401, 422, 451, 500, 503, 599, 999)
    ),
    given("a length with zeros", b"HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nok"),
    given("a length in capitals", b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:2\r\n\r\nok"),
    given("a body that looks like an answer", answer(body=OK + CONTINUE + OK)),
    given("a long head", answer(b"X-Long: " + b"a" * (HEAD_BYTES_MAX - 2_000))),
    Exchange(
        "several, kept alive",
        (get(), Do.ANSWER) * 3,
        (
            Do.REQUEST,
            OK,
            Do.REQUEST,
            answer(body=b"", status=b"404 No"),
            Do.REQUEST,
            b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"1\r\nx\r\n0\r\n\r\n",
        ),
    ),
)

_EXPECTS = POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
_SWITCH = get(
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Origin: https://exchange.test",
    b"Sec-WebSocket-Protocol: actioncable-v1-json",
    target=b"/cable",
)
_SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: actioncable-v1-json\r\n\r\n"
)
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

CONVERSATIONS = (
    Exchange(
        "100-continue, waited for",
        (_EXPECTS, Do.ANSWER, b"hello", Do.ANSWER, get(), Do.ANSWER),
        (Do.HEAD, CONTINUE, Do.REQUEST, OK, Do.REQUEST, OK),
    ),
    Exchange(
        "100-continue before chunks",
        (
            POST + b"Expect: 100-Continue\r\n" + CHUNKED,
            Do.ANSWER,
            b"2\r\nab\r\n0\r\n\r\n",
            Do.ANSWER,
        ),
        (Do.HEAD, CONTINUE, Do.REQUEST, OK),
    ),
    asked("100-continue, not waited for", _EXPECTS + b"hello"),
    Exchange(
        "100-continue, refused",
        (_EXPECTS, Do.ANSWER, Do.CLOSE),
        (Do.HEAD, answer(status=b"417 No"), Do.LEAVE),
    ),
    Exchange(
        "an answer while the body still comes",
        (POST + b"Content-Length: 9000\r\n\r\n" + b"x" * 100, Do.ANSWER),
        (Do.HEAD, answer(status=b"413 Too Large"), Do.LEAVE),
    ),
    Exchange(
        "an answer while chunks still come",
        (POST + CHUNKED + b"4\r\nabcd\r\n", Do.ANSWER),
        (Do.HEAD, answer(status=b"422 No"), Do.LEAVE),
    ),
    Exchange(
        "an answer that begins while the body still comes",
        (POST + CHUNKED + b"2\r\nab\r\n", Until(b"first"), b"2\r\ncd\r\n0\r\n\r\n", Do.ANSWER),
        (
            Until(b"ab"),
            b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"5\r\nfirst\r\n",
            Do.REQUEST,
            b"4\r\nlast\r\n0\r\n\r\n",
        ),
    ),
    Exchange("half closed", (get(), Do.FIN, Do.ANSWER, Do.END), (Do.REQUEST, OK, Do.CLOSE)),
    Exchange(
        "half closed after a body",
        (POST + b"Content-Length: 3\r\n\r\nabc", Do.FIN, Do.ANSWER, Do.END),
        (Do.REQUEST, OK, Do.CLOSE),
    ),
    Exchange(
        "half closed behind pipelined ones",
        (get() + get(target=b"/2"), Do.FIN, Do.ANSWER, Do.ANSWER, Do.END),
        (Do.REQUEST, OK, Do.REQUEST, answer(body=b"2"), Do.CLOSE),
    ),
    Exchange(
        "switched",
        (_SWITCH, Do.ANSWER, b"\x81\x02hi\r\n\r\n", Raw(7), b"GET / HTTP/1.1\r\n\r\n", Raw(3)),
        (Do.REQUEST, _SWITCHED, Raw(8), b"\x81\x05HELLO", Raw(18), b"\x00\r\n"),
    ),
    Exchange(
        "switched, and both sides spoke early",
        (_SWITCH + b"early", Do.ANSWER, Raw(2), Do.END),
        (Do.REQUEST, _SWITCHED + b"hi", Raw(5), Do.CLOSE),
    ),
    Exchange(
        "not switched",
        (_SWITCH + get(target=b"/next"), Do.ANSWER, Do.ANSWER),
        (Do.REQUEST, answer(status=b"426 No"), Do.REQUEST, OK),
    ),
    Exchange(
        "streamed by chunks",
        (get(), Until(b"data: 1\n\n"), Until(b"data: 2\n\n"), Do.ANSWER),
        (
            Do.REQUEST,
            _EVENTS + CHUNKED + b"9\r\ndata: 1\n\n\r\n",
            b"9\r\ndata: 2\n\n\r\n",
            b"0\r\n\r\n",
        ),
    ),
    Exchange(
        "streamed to the end",
        (get(), Until(b"data: 1\n\n"), Do.ANSWER, Do.END),
        (Do.REQUEST, _EVENTS + b"\r\ndata: 1\n\n", b"data: 2\n\n", Do.CLOSE),
    ),
    Exchange(
        "streamed up",
        (POST + b"Content-Length: 6\r\n\r\nabc", b"def", Do.ANSWER),
        (Until(b"abc"), Do.REQUEST, OK),
    ),
)

EXCHANGES = (
    *(each._replace(name=f"request: {each.name}") for each in REQUESTS),
    *(each._replace(name=f"answer: {each.name}") for each in ANSWERS),
    *CONVERSATIONS,
)
