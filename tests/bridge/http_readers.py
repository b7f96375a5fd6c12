"""Several readers of HTTP requests: those that strangers wrote, and a strict one.

The strict reader follows docs/reference/http.md, and nothing of the proxy's code. h11, llhttp and
Python's http.server are what the proxy's output is held against; Puma itself is in puma_reader.rb.
"""

from __future__ import annotations

import email.errors
import http.server
import io
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import h11
import httptools
from wire import Malformed, Message, fields_of, take

from bridge.limits import FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX


class Read(NamedTuple):
    """A request as somebody reads it."""

    method: bytes
    target: bytes
    body: bytes


class Reading(NamedTuple):
    requests: tuple[Read, ...]  # that are complete
    end: str = ""  # "": nothing is left; "incomplete"; else why it reads no further

    def agrees(self, requests: tuple[Read, ...]) -> bool:
        """It has read these; or the first of them, and refuses the next one with an error."""
        if self.end in ("", "incomplete"):
            return self.requests == requests
        return self.requests == requests[: len(self.requests)]


Reader = Callable[[bytes], Reading]


# --- readers that strangers wrote


def by_h11(stream: bytes) -> Reading:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=4 * HEAD_BYTES_MAX)
    found: list[Read] = []
    request, body = None, b""
    if not stream:
        return Reading(())  # to h11 nothing at all is the end of the connection
    connection.receive_data(stream)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                left = connection.trailing_data[0].lstrip(b"\r\n") or request
                return Reading(tuple(found), "incomplete" if left else "")
            if event is h11.PAUSED:
                _answer_by_h11(connection)
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                found.append(Read(request.method, request.target, body))
                request = None
    except h11.RemoteProtocolError as error:
        return Reading(tuple(found), str(error))
    except h11.LocalProtocolError:
        return Reading(tuple(found), "closed")


def _answer_by_h11(connection: h11.Connection) -> None:
    """Whatever was asked: only then does it read on."""
    connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.start_next_cycle()


class _Llhttp:
    """The callbacks of httptools."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.within = False
        self._method: Callable[[], bytes] = bytes
        self._target = self._body = b""

    def read(self, stream: bytes) -> Reading:
        while True:
            parser = httptools.HttpRequestParser(self)
            self._method = parser.get_method
            try:
                parser.feed_data(stream)
            except httptools.HttpParserUpgrade as switched:
                stream = stream[switched.args[0] :]  # as if it had been refused
                continue
            except httptools.HttpParserError as error:
                return Reading(tuple(self.found), str(error))
            return Reading(tuple(self.found), "incomplete" if self.within else "")

    def on_message_begin(self) -> None:
        self.within = True
        self._target = self._body = b""

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.within = False
        self.found.append(Read(self._method(), self._target, self._body))


def by_llhttp(stream: bytes) -> Reading:
    return _Llhttp().read(stream)


class _Handler(http.server.BaseHTTPRequestHandler):
    """http.server's reading of a head, without a socket."""

    protocol_version = "HTTP/1.1"
    failed = ""
    raw_requestline = b""

    def __init__(self, stream: io.BytesIO) -> None:
        self.rfile = stream
        self.client_address = ("127.0.0.1", 0)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.failed = f"{code} {message}"

    def handle_expect_100(self) -> bool:
        return True


def by_http_server(stream: bytes) -> Reading:
    """With the body as a plain server behind it reads it: by length, or by chunks without a look at
    their ends.
    """
    rfile = io.BytesIO(stream)
    found: list[Read] = []
    while True:
        handler = _Handler(rfile)
        handler.raw_requestline = rfile.readline(65_537)
        if not handler.raw_requestline:
            return Reading(tuple(found))
        words = handler.raw_requestline.split()
        try:
            whole = handler.parse_request()
        except (email.errors.MessageError, ValueError) as error:
            return Reading(tuple(found), str(error) or "malformed")
        if not whole and words:
            return Reading(tuple(found), handler.failed or "refused")
        if not whole:
            continue  # an empty line
        try:
            body = _plain_body(rfile, handler.headers)
        except (ValueError, OverflowError):
            return Reading(tuple(found), "malformed")
        if body is None:
            return Reading(tuple(found), "incomplete")
        found.append(Read(handler.command.encode("latin-1"), words[1], body))


def _plain_body(rfile: io.BytesIO, headers: Any) -> bytes | None:
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        body = b""
        while True:
            line = rfile.readline()
            if not line.endswith(b"\n"):
                return None
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            piece = rfile.read(size)
            if len(piece) < size or not rfile.readline().endswith(b"\n"):
                return None
            body += piece
        while (line := rfile.readline()) not in (b"\r\n", b"\n"):
            if not line:
                return None
        return body
    length = int(headers.get("Content-Length") or 0)
    body = rfile.read(length)
    return body if len(body) == length else None


def by_no_trailers(stream: bytes) -> Reading:
    """A reader for whom the two bytes behind the last chunk's line end the body, whatever they are:
    Puma before 5.6.7 and 6.3.1 (CVE-2023-40175), and later ones if a read ends at that line.
    """
    found: list[Read] = []
    while stream:
        try:
            whole = take(stream)
        except Malformed:
            return Reading(tuple(found), "malformed")
        if whole is None:
            return Reading(tuple(found), "incomplete")
        message, used = whole
        words = message.start.split(b" ")
        if len(words) != 3:
            return Reading(tuple(found), "no request")
        found.append(Read(words[0], words[1], message.body))
        stream = (message.trailers + b"\r\n")[2:] + stream[used:]
    return Reading(tuple(found))


STRANGERS: dict[str, Reader] = {
    "h11": by_h11,
    "llhttp": by_llhttp,
    "http.server": by_http_server,
    "a reader without trailers": by_no_trailers,
}


# --- the strict reader


_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_AUTHORITY = re.compile(rb"(?i:https?)://([^/?]+)")
_MISSPELT = {b"content-length", b"transfer-encoding"}
MAY_PASS = 0


class Strict(NamedTuple):
    messages: tuple[Message, ...]
    refused: frozenset[int] = frozenset()  # with one of these; with MAY_PASS among them, or not
    used: int = 0  # bytes of the messages
    within: int = 0  # the length of the head whose body is refused or incomplete

    @property
    def requests(self) -> tuple[Read, ...]:
        return tuple(Read(one.method, one.target, one.body) for one in self.messages)


def strict(data: bytes) -> Strict:
    """What a client meant that sent this, as far as there is only one way to read it."""
    found: list[Message] = []
    used = 0
    while True:
        rest = data[used:]
        blank = next(n for n in range(3) if n == 2 or not rest.startswith(b"\r\n", 2 * n))
        end = rest.find(b"\r\n\r\n", 2 * blank)
        if end < 0:
            too_long = len(rest) - 2 * blank > HEAD_BYTES_MAX
            return Strict(tuple(found), frozenset({431, 400} if too_long else ()), used)
        refused = flaws(rest[2 * blank : end + 4])
        if refused:
            return Strict(tuple(found), refused, used)
        try:
            whole = take(rest)
        except Malformed:
            return Strict(tuple(found), frozenset({400}), used, end + 4)
        if whole is None:
            return Strict(tuple(found), frozenset(), used, end + 4)
        found.append(whole[0])
        used += whole[1]
        words = {
            word
            for one in fields_of(whole[0].head)
            if one.name == b"connection"
            for word in re.split(rb"[ \t]*,[ \t]*", one.value.lower())
        }
        version_10 = whole[0].start.endswith(b"0")
        if b"close" in words or (version_10 and b"keep-alive" not in words):
            return Strict(tuple(found), frozenset(), used)


def flaws(head: bytes) -> frozenset[int]:
    """The statuses that a head may be refused with; none: it passes."""
    first, *lines = head[:-4].split(b"\r\n")
    statuses = set()
    if len(head) > HEAD_BYTES_MAX or len(lines) > FIELDS_MAX:
        statuses.add(431)
    match = _LINE.fullmatch(first)
    if match is None or any(_CONTROL.search(line) for line in (first, *lines)):
        statuses.add(400)
    if match is not None:
        statuses |= {505} if match[3] != b"1" or match[4] > b"1" else set()
        statuses |= {405} if match[1] == b"CONNECT" else set()
        statuses |= {414} if len(match[2]) > TARGET_BYTES_MAX else set()
        with suppress(Malformed):
            return frozenset(statuses | _flaws_of_fields(head, match))
    return frozenset(statuses | {400})


def _flaws_of_fields(head: bytes, line: re.Match[bytes]) -> set[int]:
    found = fields_of(head)
    words = {
        word
        for one in found
        if one.name == b"connection"
        for word in re.split(rb"[ \t]*,[ \t]*", one.value.lower())
    }
    statuses = set()
    hosts = [one.value for one in found if one.name == b"host"]
    lengths = [one.value for one in found if one.name == b"content-length"]
    codings = [one.value.lower() for one in found if one.name == b"transfer-encoding"]
    for one in found:
        if b"_" in one.name and one.name.replace(b"_", b"-") in _MISSPELT:
            statuses |= {400, MAY_PASS} if one.name in words else {400}
    version_10 = line[4] == b"0"
    if len(hosts) > 1 or (not hosts and not version_10) or _is_odd_host(hosts):
        statuses.add(400)
    if not _is_target(line[1], line[2], hosts):
        statuses.add(400)
    if len(lengths) > 1 or not all(re.fullmatch(rb"\d{1,18}", one) for one in lengths):
        statuses.add(400)
    if codings and (len(codings) > 1 or lengths or version_10):
        statuses.add(400)
    if codings and codings != [b"chunked"]:
        statuses |= {400, 501}
    return statuses


def _is_odd_host(hosts: list[bytes]) -> bool:
    return any(re.search(rb"[ \t,/@?#\\]", host) for host in hosts)


def _is_target(method: bytes, target: bytes, hosts: list[bytes]) -> bool:
    if target == b"*":
        return method == b"OPTIONS"
    absolute = _AUTHORITY.match(target)
    return target.startswith(b"/") or (absolute is not None and [absolute[1]] == hosts)
