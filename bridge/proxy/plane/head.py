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
FORWARDED_PROTO = 8
REQUEST_ID = 9
EXPECT = 10
CONTENT_TYPE = 11
IDENTITY = 12
OVERRIDE = 13
MISSPELT = 14  # "content_length": Rack reads it as the one that we would not

_KINDS = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-request-id": REQUEST_ID,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"content-type": CONTENT_TYPE,
    b"x-http-method-override": OVERRIDE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
}
_NEVER_MISSPELT = (CONTENT_LENGTH, TRANSFER_ENCODING, CONTENT_TYPE)
_READ_ALIKE = (FORWARDED_FOR, FORWARDED_PROTO, REQUEST_ID, IDENTITY, OVERRIDE)

CRLF = b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HeaderKinds(dict[bytes, int]):
    """Spelling of a field's name -> its kind; learns spellings as they come, up to a bound."""

    def __init__(self, identity_header: str = "") -> None:
        super().__init__()
        self._kinds = dict(_KINDS)
        if identity_header:
            self._kinds[identity_header.lower().replace("_", "-").encode()] = IDENTITY

    def __missing__(self, name: bytes) -> int:
        kind = self._kind(name.lower())
        if len(self) < HEADER_NAMES_KNOWN_MAX:
            self[name] = kind
        return kind

    def _kind(self, name: bytes) -> int:
        """Rack reads an underscore as a dash."""
        if b"_" not in name:
            return self._kinds.get(name, PLAIN)
        kind = self._kinds.get(name.replace(b"_", b"-"), PLAIN)
        if kind in _NEVER_MISSPELT:
            return MISSPELT
        return kind if kind in _READ_ALIKE else PLAIN


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


def answer(
    status: int,
    body: bytes,
    *,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    connection: bytes = b"",
    with_body: bool = True,
) -> bytes:
    """A whole answer of our own. `with_body` is False for HEAD."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % field for field in fields]
    lines.append(b"Content-Type: application/json; charset=utf-8\r\n")
    lines.append(b"Content-Length: %d\r\n" % len(body))
    if connection:
        lines.append(b"Connection: %b\r\n" % connection)
    lines.append(CRLF)
    if with_body:
        lines.append(body)
    return b"".join(lines)
