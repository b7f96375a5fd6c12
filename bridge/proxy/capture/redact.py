"""Values that must never be captured, taken out of bodies and queries. Pure.

Everything else stays as it was, byte for byte: only the value's own place in the text changes. What
can't be read in full can't be cleaned either, and is not captured at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from shadow.capture import Capture

REDACTED = "[redacted]"
_JSON_VALUE = b'"%b"' % REDACTED.encode()
_FORM_VALUE = REDACTED.replace("[", "%5B").replace("]", "%5D").encode()
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_NAMES = re.compile(rb"[^\[\]]+")  # order[secret], [secret], secret[]: each part by itself


class Unreadable(ValueError):
    """A body that is neither JSON nor a form, or not a well-formed one."""


class Redaction:
    """Fields by name, at any depth."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._raw_names = frozenset(name.encode() for name in names)

    def redact_capture(self, capture: Capture) -> Capture | None:
        """None: a body of it can't be read, so nobody knows what it holds."""
        path, mark, query = capture.target.partition("?")
        try:
            asked = self.body(capture.content_type, capture.request_body)
            answered = self.json(capture.response_body) if capture.response_body else b""
        except Unreadable:
            return None
        return msgspec.structs.replace(
            capture,
            target=path + mark + self.form(query.encode("latin-1")).decode("latin-1"),
            request_body=asked,
            response_body=answered,
        )

    def body(self, content_type: str, body: bytes) -> bytes:
        """Of a request. Raises Unreadable."""
        if not body:
            return body
        media_type = content_type.partition(";")[0].strip().lower()
        # A client that forgets to name its JSON sends it as a form of one strange name.
        if "json" in media_type or body.lstrip()[:1] in (b"{", b"["):
            return self.json(body)
        if media_type in ("", "application/x-www-form-urlencoded"):
            return self.form(body)
        raise Unreadable(media_type)

    def json(self, body: bytes) -> bytes:
        """Raises Unreadable."""
        try:
            msgspec.json.decode(body)
            spans = list(self._json_spans(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable("not JSON") from error
        return _replaced(body, spans, _JSON_VALUE)

    def form(self, body: bytes) -> bytes:
        """A form's body, or a query."""
        return b"&".join(self._pair(pair) for pair in body.split(b"&"))

    def _json_spans(self, body: bytes) -> Iterator[tuple[int, int]]:
        """Where the values stand. The body is known to be well-formed."""
        tokens = [(one.start(), one.end()) for one in _JSON_TOKEN.finditer(body)]
        n = 0
        while n < len(tokens) - 2:
            start, end = tokens[n]
            follows = tokens[n + 1][0]
            if body[start] != ord('"') or body[follows] != ord(":"):
                n += 1
            elif msgspec.json.decode(body[start:end], type=str) not in self._names:
                n += 2
            else:
                last = _last_of_value(body, tokens, n + 2)
                yield tokens[n + 2][0], tokens[last][1]
                n = last + 1

    def _pair(self, pair: bytes) -> bytes:
        """What stands between two `&`. Older servers part fields by `;` as well: whichever this
        monolith does, what follows a name of ours up to the next `&` is not shown.
        """
        at = 0
        for field in pair.split(b";"):
            name, equals, _ = field.partition(b"=")
            plain = unquote_to_bytes(name.replace(b"+", b" ")).strip()
            if equals and not self._raw_names.isdisjoint(_NAMES.findall(plain)):
                return pair[: at + len(name) + 1] + _FORM_VALUE
            at += len(field) + 1
        return pair


def _last_of_value(body: bytes, tokens: Sequence[tuple[int, int]], n: int) -> int:
    """The last token of the value that begins with token `n`."""
    depth = 0
    while True:
        kind = body[tokens[n][0]]
        depth += (kind in b"{[") - (kind in b"}]")
        if depth == 0:
            return n
        n += 1


def _replaced(body: bytes, spans: Sequence[tuple[int, int]], value: bytes) -> bytes:
    parts, at = [], 0
    for start, end in spans:
        parts += [body[at:start], value]
        at = end
    return b"".join([*parts, body[at:]]) if parts else body
