"""What a proxy between a client and a monolith may change of their messages, and nothing else.

This is docs/reference/http.md in code; it shares none with the proxy.
"""

from __future__ import annotations

import re

from wire import Field, Message, fields, fields_of

_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
}
_NEVER_DROPPED = {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"x-forwarded-for",
    b"x-request-id",
}
_CONNECTION_WORDS = {b"close", b"keep-alive", b"upgrade"}
_READ_ALIKE = {  # with an underscore or a hyphen
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
    b"x-member-id",
    b"x-http-method-override",
    b"content-length",
    b"transfer-encoding",
}
_NO_TRAILERS = _HOP_BY_HOP | _NEVER_DROPPED | _READ_ALIKE | {b"upgrade", b"content-type", b"expect"}
_MADE_ID = re.compile(rb"[\w-]{1,255}")


def changed_request(
    sent: Message, seen: Message, *, authority: bytes, peer: bytes = b"127.0.0.1"
) -> Message:
    """What the monolith must see of a request that it would otherwise have seen as `sent`.

    `seen` gives what can't be foretold: the request id that the proxy has made.
    """
    found = fields_of(sent.head)
    words = _words(found)
    upgrade = _may_switch(sent, found, words)
    kept = _kept(found, words, also=set() if upgrade else {b"upgrade"})
    lines = [each.line for each in kept]
    names = [each.name.replace(b"_", b"-") for each in kept]
    if b"x-forwarded-for" in names:
        last = len(names) - 1 - names[::-1].index(b"x-forwarded-for")
        lines[last] = lines[last][:-2] + b", %b\r\n" % peer
    else:
        lines.append(b"X-Forwarded-For: %b\r\n" % peer)
    ids = [each.value for each in kept if each.name.replace(b"_", b"-") == b"x-request-id"]
    if not ids or not ids[-1]:
        lines.append(b"X-Request-Id: %b\r\n" % _made_id(seen))
    if b"host" not in names:
        lines.append(b"Host: %b\r\n" % authority)
    if upgrade:
        lines.append(b"Connection: Upgrade\r\n")
    start = sent.start.rpartition(b" ")[0] + b" HTTP/1.1\r\n"
    # Puma has read trailers as the next request (CVE-2023-40175), and Rack has no place for them.
    return sent._replace(head=start + b"".join(lines) + b"\r\n", trailers=b"")


def changed_answer(given: Message, request: Message) -> Message:
    """What the client must see of an answer to its request that it would otherwise have seen as
    `given`.
    """
    found = fields_of(given.head)
    words = _words(found)
    version_10 = request.start.endswith(b"HTTP/1.0")
    unframed = version_10 and given.framing == "chunked"
    lines = [each.line for each in _kept(found, words)]
    if version_10:
        lines = [line for line in lines if not line.lower().startswith(b"transfer-encoding:")]
    asked = _words(fields_of(request.head))
    ends = b"close" in asked or (version_10 and b"keep-alive" not in asked) or _waits(request)
    if given.status == 101:
        lines.append(b"Connection: Upgrade\r\n")
    elif given.status >= 200 and (ends or unframed or given.framing == "close"):
        lines.append(b"Connection: close\r\n")
    elif given.status >= 200 and version_10:
        lines.append(b"Connection: keep-alive\r\n")
    start = b"HTTP/1.1" + given.start[8:] + b"\r\n"
    return Message(
        start + b"".join(lines) + b"\r\n",
        given.body,
        "close" if unframed else given.framing,
        b"" if unframed else _trailers(given.trailers),
    )


def _waits(request: Message) -> bool:
    """For 100, and got this answer instead: whether its body comes now, nobody can know."""
    expected = [one.value.lower() for one in fields_of(request.head) if one.name == b"expect"]
    return request.framing == "left" and expected == [b"100-continue"]


def _words(found: list[Field], name: bytes = b"connection") -> set[bytes]:
    lists = [each.value for each in found if each.name == name]
    return {word.strip(b" \t").lower() for word in b",".join(lists).split(b",")} - {b""}


def _kept(found: list[Field], words: set[bytes], also: set[bytes] = frozenset()) -> list[Field]:  # type: ignore[assignment]
    dropped = _HOP_BY_HOP | also | (words - _CONNECTION_WORDS - _NEVER_DROPPED)
    return [each for each in found if each.name not in dropped]


def _may_switch(sent: Message, found: list[Field], words: set[bytes]) -> bool:
    wished = _words(found, b"upgrade")
    return (
        sent.method == b"GET"
        and not sent.body
        and sent.framing != "chunked"
        and not sent.start.endswith(b"HTTP/1.0")
        and b"upgrade" in words
        and bool(wished)
        and b"h2c" not in wished
    )


def _trailers(lines: bytes) -> bytes:
    return b"".join(each.line for each in fields(lines) if not _is_read(each.name))


def _is_read(name: bytes) -> bool:
    """A field that says how a message is read, or who sent it."""
    return name in _NO_TRAILERS or name.replace(b"_", b"-") in _READ_ALIKE


def _made_id(seen: Message) -> bytes:
    ids = [each.value for each in fields_of(seen.head) if each.name == b"x-request-id"]
    assert ids
    assert _MADE_ID.fullmatch(ids[-1])
    return ids[-1]
