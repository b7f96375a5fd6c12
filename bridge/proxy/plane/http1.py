"""HTTP/1 as bytes: the heads of requests and of answers; `body.py` has what follows them. Pure.

What two readers of HTTP could read differently is refused: by such a message one client could have
another one's answer. Field lines that pass are the very bytes that came. A reader is fed pieces in
any cut, and finds the same in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Generic, NamedTuple, TypeVar

from bridge.limits import FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX
from bridge.proxy.plane import head as h
from bridge.proxy.plane.head import HeaderKinds

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"
_FIELD = _TOKEN + rb"++:" + _TEXT + rb"*+\r\n"
FIELDS = re.compile(rb"(?:" + _FIELD + rb")*+")
FIELDS_BEGUN = re.compile(rb"(?:" + _FIELD + rb")*+[^\x00-\x08\x0a-\x1f\x7f]*+\r?")
EACH_FIELD = re.compile(rb"((" + _TOKEN + rb"++):(" + _TEXT + rb"*+)\r\n)")
_FIELD_LINE = re.compile(_TOKEN + rb"++:" + _TEXT + rb"*+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # anywhere in a line
_REQUEST_LINE = re.compile(
    rb"(" + _TOKEN + rb"{1,32}) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: " + _TEXT + rb"*)?")
_LENGTH = re.compile(rb"\d{1,18}")
_HOST = re.compile(rb"[^\x00-\x20,/@?#\\]*")
_ABSOLUTE = re.compile(rb"https?://([^/?]+)", re.IGNORECASE)
_BLANK_LINES_MAX = 2  # before a request: old clients send one after a body

_ALWAYS_DROPPED = frozenset({h.DROP, h.CONNECTION})
_ANSWER_DROPPED = _ALWAYS_DROPPED | {h.UPGRADE}

Field = tuple[bytes, bytes, bytes]  # the whole line with its CRLF, the name, the untrimmed value


class Refused(NamedTuple):
    status: int
    reason: str


class RequestHead:
    """A request whose framing nobody can read differently. `lines` are the fields that go on."""

    __slots__ = (
        "awaits_continue",
        "chunked",
        "content_type",
        "forwarded_at",
        "forwarded_proto",
        "has_host",
        "identity",
        "keep_alive",
        "length",
        "lines",
        "method",
        "override",
        "request_id",
        "target",
        "upgrade",
        "version_10",
    )

    def __init__(self, method: bytes, target: bytes, version_10: bool) -> None:
        self.method = method
        self.target = target
        self.version_10 = version_10
        self.keep_alive = True
        self.length = 0
        self.chunked = False
        self.upgrade = False  # another protocol is asked for, and may be
        self.awaits_continue = False
        self.has_host = False
        self.forwarded_at = -1  # where in `lines` the last X-Forwarded-For is
        self.forwarded_proto = False
        self.request_id = b""
        self.content_type: bytes | None = None
        self.identity: bytes | None = None  # several are joined, and thereby none
        self.override: bytes | None = None  # likewise
        self.lines: list[bytes] = []


class AnswerHead:
    """An answer's head; `line` is its status line as the client gets it."""

    __slots__ = ("chunked", "keep_alive", "length", "line", "lines", "status")

    def __init__(self, status: int, line: bytes) -> None:
        self.status = status
        self.line = line
        self.keep_alive = True
        self.length = -1  # -1: not told
        self.chunked = False
        self.lines: list[bytes] = []


_Head = TypeVar("_Head", RequestHead, AnswerHead)


class _HeadReader(Generic[_Head]):
    """Collects one head after another. What comes behind a head is in `rest`, for whoever reads the
    body; the next head is fed when it begins.
    """

    def __init__(self, kinds: HeaderKinds) -> None:
        self.rest = b""
        self._kinds = kinds
        self._kept = b""  # of a head that isn't complete
        self._begin()

    @property
    def begun(self) -> bool:
        """A part of a head has come."""
        return bool(self._kept)

    def feed(self, data: bytes) -> _Head | Refused | None:
        """None: the head isn't complete. After a refusal nothing more may be fed."""
        kept = len(self._kept)
        if kept:
            data = self._kept + data
        while self._blank_lines and data.startswith(h.CRLF):
            self._blank_lines -= 1
            data = data[2:]
        end = data.find(b"\r\n\r\n", max(kept - 3, 0))
        if 0 <= end <= HEAD_BYTES_MAX - 4:
            found = self._parse(data, end + 2)
            if found is None:
                return self._flaw(data[: end + 2]) or self._refuse(HTTPStatus.BAD_REQUEST, "head")
            self.rest = data[end + 4 :]
            self._kept = b""
            self._begin()
            return found
        self._kept = data
        return self._flaw(data) if data else None

    def _begin(self) -> None:
        self._blank_lines = 0
        self._line_at = 0  # of `_kept`: where the first line begins that hasn't been looked at
        self._looked = 0  # and how far the search for control characters has come
        self._lines = 0  # looked at

    def _flaw(self, data: bytes) -> Refused | None:
        """The first thing that is wrong in the lines of `data`, the last of which may be a part: so
        that garbage is refused at once, and in every cut for the same reason.
        """
        bounded = data[:HEAD_BYTES_MAX]
        while True:
            end = bounded.find(h.CRLF, self._line_at)
            to = end if end >= 0 else len(bounded) - bounded.endswith(b"\r")
            if _CONTROL.search(bounded, max(self._line_at, self._looked), to):
                return self._refuse(HTTPStatus.BAD_REQUEST, "a control character in the head")
            self._looked = to
            if end < 0:
                break
            line = bounded[self._line_at : end]
            flaw = self._line_flaw(line) if self._lines else self._first_line_flaw(line)
            if flaw is not None:
                return flaw
            self._lines += 1
            self._line_at = end + 2
        if len(data) > HEAD_BYTES_MAX:
            return self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large")
        return None

    def _line_flaw(self, line: bytes) -> Refused | None:
        if not _FIELD_LINE.fullmatch(line):
            return self._refuse(HTTPStatus.BAD_REQUEST, "a field is malformed")
        if self._lines > FIELDS_MAX:
            return self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields")
        return None

    def _parse(self, data: bytes, end: int) -> _Head | Refused | None:
        """Of `data` up to `end`, all lines with their CRLF; None: a line has a flaw."""
        raise NotImplementedError

    def _first_line_flaw(self, line: bytes) -> Refused | None:
        raise NotImplementedError

    def _refuse(self, status: HTTPStatus, reason: str) -> Refused:
        return Refused(status, reason)


class RequestHeads(_HeadReader[RequestHead]):
    def _begin(self) -> None:
        super()._begin()
        self._blank_lines = _BLANK_LINES_MAX

    def _parse(self, data: bytes, end: int) -> RequestHead | Refused | None:
        fields_at = data.find(h.CRLF, 0, end) + 2
        line = _REQUEST_LINE.fullmatch(data, 0, fields_at - 2)
        if line is None or not FIELDS.fullmatch(data, fields_at, end):
            return None
        method, target, major, minor = line.groups()
        fields = EACH_FIELD.findall(data, fields_at, end)
        if (
            major != b"1"
            or minor > b"1"
            or method == b"CONNECT"
            or len(target) > TARGET_BYTES_MAX
            or len(fields) > FIELDS_MAX
        ):
            return None
        return _request(method, target, minor == b"0", fields, self._kinds)

    def _first_line_flaw(self, line: bytes) -> Refused | None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return self._refuse(HTTPStatus.BAD_REQUEST, "the request line is malformed")
        method, target, major, minor = match.groups()
        if major != b"1" or minor > b"1":
            return self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "not HTTP/1.0 or 1.1")
        if method == b"CONNECT":
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "CONNECT")
        if len(target) > TARGET_BYTES_MAX:
            return self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, "the target is too long")
        return None


class AnswerHeads(_HeadReader[AnswerHead]):
    """`upgrade`: the client may be told of another protocol. `no_chunks`: it is too old for them,
    and is not told of a coding.
    """

    upgrade = False
    no_chunks = False

    def _parse(self, data: bytes, end: int) -> AnswerHead | Refused | None:
        fields_at = data.find(h.CRLF, 0, end) + 2
        line = _STATUS_LINE.fullmatch(data, 0, fields_at - 2)
        if line is None or not FIELDS.fullmatch(data, fields_at, end):
            return None
        fields = EACH_FIELD.findall(data, fields_at, end)
        if len(fields) > FIELDS_MAX:
            return None
        dropped = _ALWAYS_DROPPED if self.upgrade else _ANSWER_DROPPED
        if self.no_chunks:
            dropped |= {h.TRANSFER_ENCODING}
        answer = AnswerHead(int(line[2]), b"HTTP/1.1" + data[8:fields_at])
        return _answer(answer, line[1] == b"0", fields, self._kinds, dropped)

    def _first_line_flaw(self, line: bytes) -> Refused | None:
        if _STATUS_LINE.fullmatch(line):
            return None
        return self._refuse(HTTPStatus.BAD_GATEWAY, "the status line is malformed")

    def _refuse(self, status: HTTPStatus, reason: str) -> Refused:
        """Whatever is wrong with an answer, the client can do nothing about it."""
        return Refused(HTTPStatus.BAD_GATEWAY, reason)


def _request(
    method: bytes, target: bytes, version_10: bool, fields: list[Field], kinds: HeaderKinds
) -> RequestHead | Refused:
    noted: list[tuple[int, bytes]] = []
    for _, name, value in fields:
        kind = kinds[name]
        if kind:
            noted.append((kind, value.strip(b" \t")))
    connection = _connection(noted)
    nominated = h.nominated(connection)
    if nominated:
        # Nobody behind us will see those: nothing is read into them here either.
        fields = [field for field in fields if field[1].lower() not in nominated]
        noted = [(kinds[name], value.strip(b" \t")) for _, name, value in fields]
    head = RequestHead(method, target, version_10)
    head.keep_alive = b"close" not in connection
    if version_10:
        head.keep_alive = head.keep_alive and b"keep-alive" in connection
    flaw = _note_all(head, noted)
    if flaw:
        return Refused(HTTPStatus.BAD_REQUEST, flaw)
    if head.chunked:
        flaw_of_coding = _coding_flaw(noted)
        if flaw_of_coding is not None:
            return flaw_of_coding
    dropped = _ALWAYS_DROPPED
    if any(kind == h.UPGRADE for kind, _ in noted):
        head.upgrade = _may_switch(head, noted, connection)
        if not head.upgrade:
            dropped = _ANSWER_DROPPED
    _keep_lines(head, fields, kinds, dropped)
    return head


def _note_all(head: RequestHead, noted: Iterable[tuple[int, bytes]]) -> str:
    """What is wrong with the fields of a head as a whole; "": nothing."""
    host: bytes | None = None
    length: bytes | None = None
    for kind, value in noted:
        if kind == h.HOST:
            if host is not None:
                return "several hosts"
            host = value
        elif kind == h.CONTENT_LENGTH:
            if length is not None or not _LENGTH.fullmatch(value):
                return "no single content length"
            length = value
        elif kind == h.TRANSFER_ENCODING:
            if head.chunked or head.version_10:
                return "several transfer encodings, or one of an old client"
            head.chunked = True
        elif kind == h.MISSPELT:
            return "a field that says how the body is read, with an underscore"
        elif kind >= h.FORWARDED_FOR:
            _note(head, kind, value)
    if head.chunked and length is not None:
        return "two lengths"
    if host is None:
        if not head.version_10:
            return "no host"
    elif not _HOST.fullmatch(host):
        return "the host is malformed"
    if not _is_target(head, host):
        return "the target is malformed, or of another host"
    head.has_host = host is not None
    head.length = int(length or 0)
    return ""


def _note(head: RequestHead, kind: int, value: bytes) -> None:
    """Rack reads several fields of one name as one, with commas between them."""
    if kind == h.IDENTITY:
        head.identity = value if head.identity is None else head.identity + b"," + value
    elif kind == h.CONTENT_TYPE:
        if head.content_type is None:  # only what is before a comma counts
            head.content_type = value
    elif kind == h.REQUEST_ID:
        head.request_id = value
    elif kind == h.EXPECT:
        head.awaits_continue = not head.version_10 and value.lower() == b"100-continue"
    elif kind == h.OVERRIDE:
        head.override = value if head.override is None else head.override + b"," + value
    elif kind == h.FORWARDED_PROTO:
        head.forwarded_proto = True


def _is_target(head: RequestHead, host: bytes | None) -> bool:
    """Absolute form only for the host that Host names: whichever is read, it is the same."""
    target = head.target
    if target.startswith(b"/"):
        return True
    if target == b"*":
        return head.method == b"OPTIONS"
    absolute = _ABSOLUTE.match(target)
    return absolute is not None and absolute[1] == host


def _coding_flaw(noted: Iterable[tuple[int, bytes]]) -> Refused | None:
    for kind, value in noted:
        if kind == h.TRANSFER_ENCODING and value.lower() != b"chunked":
            *before, _ = (coding.strip(b" \t").lower() for coding in value.split(b","))
            if b"chunked" in before:
                return Refused(HTTPStatus.BAD_REQUEST, "chunked is not the last transfer coding")
            return Refused(HTTPStatus.NOT_IMPLEMENTED, "a transfer coding other than chunked")
    return None


def _may_switch(
    head: RequestHead, noted: Iterable[tuple[int, bytes]], connection: set[bytes]
) -> bool:
    """Only without a body, and not to HTTP/2: a proxy answers for its own side alone."""
    wishes = h.tokens(b",".join(value for kind, value in noted if kind == h.UPGRADE))
    return (
        b"upgrade" in connection
        and bool(wishes)
        and b"h2c" not in wishes
        and head.method == b"GET"
        and not head.version_10
        and not head.chunked
        and not head.length
    )


def _keep_lines(
    head: RequestHead, fields: Iterable[Field], kinds: HeaderKinds, dropped: frozenset[int]
) -> None:
    lines = head.lines
    for line, name, _ in fields:
        kind = kinds[name]
        if kind:
            if kind in dropped:
                continue
            if kind == h.FORWARDED_FOR:
                head.forwarded_at = len(lines)
        lines.append(line)


def _answer(
    head: AnswerHead,
    version_10: bool,
    fields: list[Field],
    kinds: HeaderKinds,
    dropped: frozenset[int],
) -> AnswerHead | Refused:
    noted = [(kind, value.strip(b" \t")) for _, name, value in fields if (kind := kinds[name])]
    for kind, value in noted:
        if kind == h.CONTENT_LENGTH:
            if head.length >= 0 or not _LENGTH.fullmatch(value):
                return Refused(HTTPStatus.BAD_GATEWAY, "no single content length")
            head.length = int(value)
        elif kind == h.TRANSFER_ENCODING:
            if head.chunked or value.lower() != b"chunked":
                return Refused(HTTPStatus.BAD_GATEWAY, "not one transfer encoding, chunked")
            head.chunked = True
    if head.chunked and head.length >= 0:
        return Refused(HTTPStatus.BAD_GATEWAY, "two lengths")
    connection = _connection(noted)
    head.keep_alive = b"close" not in connection
    if version_10:
        head.keep_alive = head.keep_alive and b"keep-alive" in connection
    nominated = h.nominated(connection)
    head.lines = [
        line
        for line, name, _ in fields
        if kinds[name] not in dropped and not (nominated and name.lower() in nominated)
    ]
    return head


def _connection(noted: Sequence[tuple[int, bytes]]) -> set[bytes]:
    found: set[bytes] = set()
    for kind, value in noted:
        if kind == h.CONNECTION:
            found |= h.tokens(value)
    return found
