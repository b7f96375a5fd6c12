"""What is fuzzed of the proxy's reading of HTTP. `TARGETS` take any bytes, as those of
tests/engine/fuzz_targets do.

What the codec lets through the strict reader must have meant, and the strangers must read alike;
where the Rust plane is built, its codec is held against the Python one. In any cut of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from golden_changes import changed_answer, changed_request
from golden_exchanges import EXCHANGES
from http_readers import MAY_PASS, STRANGERS, Strict, strict
from wire import Message, take

from bridge.proxy.plane import body as bodies
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.http1 import AnswerHead, AnswerHeads, Refused, RequestHead, RequestHeads

IDENTITY = "X-Member-Id"
PEER, AUTHORITY, MADE_ID = (
    b"192.0.2.1",
    b"upstream.test",
    b"0",
)  # as the Rust plane's reading has them


# --- the proxy's own reading


class Verdict(NamedTuple):
    status: int  # 0: it passes; -1: more must come; else it is refused with this
    used: int  # bytes of `data` that it is, if it passes
    out: bytes  # what goes to the monolith; of a body in chunks, in one


ReadRequest = Callable[[Sequence[bytes]], Verdict]


def read_request(pieces: Sequence[bytes]) -> Verdict:
    """The Python codec's reading of the first request, as it comes in these pieces."""
    kinds = HeaderKinds(IDENTITY)
    heads, waiting = RequestHeads(kinds), list(pieces)
    came = 0
    head: RequestHead | Refused | None = None
    while head is None:
        if not waiting:
            return Verdict(-1, 0, b"")
        came += len(waiting[0])
        head = heads.feed(waiting.pop(0))
    if isinstance(head, Refused):
        return Verdict(int(head.status), 0, b"")
    reader: bodies.Body = bodies.ChunkedBody() if head.chunked else bodies.LengthBody(head.length)
    content = b"".join(reader.feed(heads.rest))
    while not reader.done and not reader.flawed:
        if not waiting:
            return Verdict(-1, 0, b"")
        came += len(waiting[0])
        content += b"".join(reader.feed(waiting.pop(0)))
    if reader.flawed:
        return Verdict(400, 0, b"")
    # Trailers of a request go no further, whatever they are.
    chunks = (bodies.chunk(content) if content else b"") + bodies.LAST_CHUNK + b"\r\n"
    out = _written(head) + (chunks if head.chunked else content)
    return Verdict(0, came - len(reader.rest), out)


def _written(head: RequestHead) -> bytes:
    lines = list(head.lines)
    if head.forwarded_at >= 0:
        lines[head.forwarded_at] = lines[head.forwarded_at][:-2] + b", %b\r\n" % PEER
    else:
        lines.append(b"X-Forwarded-For: %b\r\n" % PEER)
    if not head.request_id:
        lines.append(b"X-Request-Id: %b\r\n" % MADE_ID)
    if not head.has_host:
        lines.append(b"Host: %b\r\n" % AUTHORITY)
    if head.upgrade:
        lines.append(b"Connection: Upgrade\r\n")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, head.target, b"".join(lines))


def read_request_by_core(pieces: Sequence[bytes]) -> Verdict:
    """The Rust plane's, which takes the whole."""
    from bridge.proxy import _core

    data = b"".join(pieces)
    what, *told = _core.read_request(data, IDENTITY.lower().encode())
    if what == "incomplete":
        return Verdict(-1, 0, b"")
    if what == "refused":
        return Verdict(told[0], 0, b"")
    used, head, length = told[:3]
    if length >= 0:
        whole = len(data) >= used + length
        body = data[used : used + length]
        return Verdict(0, used + length, head + body) if whole else Verdict(-1, 0, b"")
    try:
        found = _core.read_chunks(data[used:])
    except ValueError:
        return Verdict(400, 0, b"")
    if found is None:
        return Verdict(-1, 0, b"")
    content, _, taken = found
    chunks = (bodies.chunk(content) if content else b"") + bodies.LAST_CHUNK + b"\r\n"
    return Verdict(0, used + taken, head + chunks)


def implementations() -> dict[str, ReadRequest]:
    """The codecs that there are."""
    found: dict[str, ReadRequest] = {"python": read_request}
    with suppress(ImportError):
        from bridge.proxy import _core  # noqa: F401

        found["rust"] = read_request_by_core
    return found


# --- what is fuzzed


def pieces_of(data: bytes) -> tuple[list[bytes], bytes]:
    """The first byte says how the rest is cut."""
    size, stream = data[0] if data else 0, data[1:]
    if not size:
        return [stream], stream
    return [stream[at : at + size] for at in range(0, len(stream), size)], stream


def requests(data: bytes) -> None:
    """The same in any cut and by any implementation, as the strict reader says, and as strangers
    read it.
    """
    pieces, stream = pieces_of(data)
    meant = strict(stream)
    verdicts: list[Verdict] = []
    for name, implementation in implementations().items():
        whole, cut = implementation([stream]), implementation(pieces)
        assert whole == cut, (name, whole, cut)
        verdicts.append(whole)
        check_verdict(name, whole, meant, stream)
        if whole.status == 0 or verdicts[0].status == 0:
            assert whole == verdicts[0], (name, whole, verdicts[0], stream)


def check_verdict(name: str, verdict: Verdict, meant: Strict, stream: bytes) -> None:
    if verdict.status == -1:
        assert not meant.messages, (name, "waits for what it has", stream)
        assert not meant.refused - {MAY_PASS} or meant.within, (name, "does not refuse", stream)
        return
    if verdict.status:
        assert not meant.messages, (name, verdict, "refused what is right", stream)
        early = not meant.refused and b"\r\n\r\n" not in stream.lstrip(b"\r\n")
        assert verdict.status in meant.refused or early or meant.within, (name, verdict, stream)
        return
    if meant.refused and MAY_PASS in meant.refused:
        return
    assert meant.messages, (name, "let through", stream, meant)
    first = meant.messages[0]
    passed = take(verdict.out)
    assert passed is not None
    wanted = changed_request(first, passed[0], authority=AUTHORITY, peer=PEER)
    assert passed[0] == wanted, (name, passed[0], wanted)
    for reader, read in STRANGERS.items():
        reading = read(verdict.out)
        assert reading.agrees(meant.requests[:1]), (name, reader, verdict.out, reading)


def answers(data: bytes) -> None:
    """Of an answer: read the same in any cut, or refused in any cut; and as strangers read it."""
    pieces, stream = pieces_of(data)
    whole, cut = _answer([stream]), _answer(pieces)
    assert whole == cut, (whole, cut)
    if not isinstance(whole, Message):
        return
    taken = take(stream, answers=b"GET", ended=True)
    assert taken is not None
    asked = Message(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    wanted = changed_answer(taken[0], asked)
    added = b"Connection: Upgrade\r\n" if wanted.status == 101 else b""
    added = b"Connection: close\r\n" if wanted.framing == "close" else added
    wanted = wanted._replace(head=wanted.head[:-2].removesuffix(added) + b"\r\n")
    assert whole == wanted, (whole, wanted)


def _answer(pieces: list[bytes]) -> Message | str:
    kinds = HeaderKinds(IDENTITY)
    heads, waiting = AnswerHeads(kinds), list(pieces)
    heads.upgrade = True
    head: AnswerHead | Refused | None = None
    while head is None:
        if not waiting:
            return "incomplete"
        head = heads.feed(waiting.pop(0))
    if isinstance(head, Refused):
        return "refused"
    written = head.line + b"".join(head.lines) + b"\r\n"
    if head.status < 200 or head.status in (204, 304):
        return Message(written)
    reader: bodies.Body = bodies.EndlessBody()
    framing = "close"
    if head.chunked:
        reader, framing = bodies.ChunkedBody(), "chunked"
    elif head.length >= 0:
        reader, framing = bodies.LengthBody(head.length), "length"
    content = b"".join(reader.feed(heads.rest))
    while not reader.done and not reader.flawed and waiting:
        content += b"".join(reader.feed(waiting.pop(0)))
    if reader.flawed or (not reader.done and framing != "close"):
        return "broken off"
    return Message(written, content, framing, bodies.trailer_lines(reader.trailers, kinds))


TARGETS: dict[str, Callable[[bytes], None]] = {"requests": requests, "answers": answers}


def seeds(target: str) -> Iterator[bytes]:
    """What a run begins with: the golden exchanges, and what the smuggling corpus has."""
    from smuggling_answers import ANSWERS
    from smuggling_corpus import REQUESTS

    yield b""
    for exchange in EXCHANGES:
        for step in exchange.client if target == "requests" else exchange.monolith:
            if isinstance(step, bytes) and len(step) < 4_000:
                yield b"\0" + step
    for case in REQUESTS if target == "requests" else ANSWERS:
        if len(case.sent) < 4_000:
            yield b"\0" + case.sent
