"""Header fields: which of them concern a proxy, and the heads that it writes itself. Pure.

A field that concerns nobody passes unchanged, in its place. What is between a client and us, or
between us and the monolith, alone is dropped (RFC 9110 section 7.6.1).
"""

from __future__ import annotations

from http import HTTPStatus

from bridge.limits import HEADER_NAMES_KNOWN_MAX

# Kinds. PLAIN is 0: the test that runs for every field of every message is a truth test.
PLAIN = 0
DROP = 1
HOST = 2
CONNECTION = 3
CONTENT_LENGTH = 4
TRANSFER_ENCODING = 5
UPGRADE = 6
# From here on they concern requests only; in an answer they are plain.
FORWARDED_FOR = 7
REQUEST_ID = 8
EXPECT = 9
CONTENT_TYPE = 10
IDENTITY = 11

_KINDS = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-request-id": REQUEST_ID,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"content-type": CONTENT_TYPE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
}

CRLF = b"\r\n"
COLON = b": "
LAST_CHUNK = b"0\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeaderKinds(dict[bytes, int]):
    """Spelling of a field's name -> its kind; learns spellings as they come, up to a bound."""

    def __init__(self, identity_header: str = "") -> None:
        super().__init__()
        self._kinds = dict(_KINDS)
        if identity_header:
            self._kinds[identity_header.lower().encode()] = IDENTITY

    def __missing__(self, name: bytes) -> int:
        kind = self._kinds.get(name.lower(), PLAIN)
        if len(self) < HEADER_NAMES_KNOWN_MAX:
            self[name] = kind
        return kind


# What a client may not have dropped by naming it in Connection: how the message is read, and who
# sent it.
_PROTECTED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"x-forwarded-for", b"x-request-id"}
)
_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})


def tokens(value: bytes) -> set[bytes]:
    """The members of a comma-separated list, in lower case."""
    return {token.strip(b" \t").lower() for token in value.split(b",")} - {b""}


def nominated(connection: set[bytes]) -> set[bytes]:
    """The fields that a Connection field with these tokens asks to be dropped, and that may be."""
    return connection - _OPTIONS - _PROTECTED


def without(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """`lines` (name, ": ", value, CRLF, and so on) less the fields with these names, given in lower
    case.
    """
    if not names:
        return lines
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if lines[at].lower() not in names:
            kept += lines[at : at + 4]
    return kept


_status_lines: dict[tuple[int, bytes], bytes] = {}


def status_line(status: int, reason: bytes) -> bytes:
    line = _status_lines.get((status, reason))
    if line is None:
        line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
        if len(_status_lines) < HEADER_NAMES_KNOWN_MAX:
            _status_lines[status, reason] = line
    return line


def answer(
    status: int,
    body: bytes,
    *,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    connection: bytes = b"",
    with_body: bool = True,
) -> bytes:
    """A whole answer of our own. `with_body` is False for HEAD."""
    lines = [status_line(status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % field for field in fields]
    lines.append(b"Content-Type: application/json; charset=utf-8\r\n")
    lines.append(b"Content-Length: %d\r\n" % len(body))
    if connection:
        lines.append(b"Connection: %b\r\n" % connection)
    lines.append(CRLF)
    if with_body:
        lines.append(body)
    return b"".join(lines)
