"""One request and its answer, on the way through a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bridge.limits import ORDER_BODY_BYTES_MAX
from bridge.proxy.route import Found, settle
from shadow.capture import Capture, Outcome
from shadow.legacy.mapping import Route
from shadow.normalise import Fields, account_of, request_fields

if TYPE_CHECKING:
    from bridge.proxy.plane.client import ClientConnection
    from bridge.proxy.plane.upstream import UpstreamConnection


class Exchange:
    """Filled in by the client's connection as it reads, and by the upstream's as it answers.

    Mutable on purpose: it is made and dropped for each request of the hot path, and one event loop
    owns it.
    """

    __slots__ = (
        "ahead_id",
        "answered_mono_ns",
        "at_engine",
        "awaits_continue",
        "began",
        "body",
        "body_size",
        "chunked",
        "client",
        "collecting",
        "content_type",
        "continued",
        "discarding",
        "found",
        "gathering",
        "held_since",
        "identity",
        "is_order",
        "keep_alive",
        "method",
        "out",
        "path_params",
        "refused",
        "request_done",
        "request_id",
        "response_body",
        "response_size",
        "response_started",
        "route",
        "sent_at_ns",
        "sent_mono_ns",
        "since",
        "started",
        "status",
        "symbol",
        "target",
        "tried",
        "upgrade",
        "upstream",
        "version_10",
    )

    def __init__(self, client: ClientConnection | None) -> None:
        self.client = client  # None: it has gone
        self.upstream: UpstreamConnection | None = None
        self.method = b""
        self.target = b""
        self.version_10 = False
        self.keep_alive = True
        self.chunked = False
        self.upgrade = False  # the client asks for another protocol
        self.awaits_continue = False
        self.continued = False  # we have told the client that its body may come
        self.refused = 0  # status to refuse it with; 0: it is well-formed
        self.request_id = b""
        self.content_type = b""
        self.identity = b""
        self.found: Found | None = None  # None: no route is for it, whatever its body says
        self.route: Route | None = None  # provisional until the body is known
        self.path_params: dict[str, str] = {}
        self.is_order = False  # it is order entry, or its body may say so
        self.out: list[bytes] = []  # head and body as they go upstream, not yet written
        self.body: list[bytes] | None = None  # of an order entry; None: not kept, or too large
        self.body_size = 0
        self.symbol: str | None = None  # of an order entry, once it is known
        self.held_since = 0.0  # loop clock: first decided on, its place in a hold; 0.0: not yet
        self.at_engine = False  # its command is under way there, whether its client stays or not
        self.started = False  # its turn has come
        self.collecting = False  # the body is read first, to find the instrument
        self.gathering = False  # or so that it can be on the disk before it goes
        self.ahead_id = 0  # in the ahead log; 0: it is not in there
        self.tried = 0  # upstreams that could not be connected to: their bits
        self.began = 0.0  # loop clock: its head was complete
        self.request_done = False
        self.discarding = False  # answered early: the rest of the body goes nowhere
        self.response_started = False
        self.status = 0
        self.response_body: list[bytes] | None = None
        self.response_size = 0
        self.since = 0.0  # loop clock: the last that happened to it on the monolith's side
        self.sent_mono_ns = 0
        self.sent_at_ns = 0
        self.answered_mono_ns = 0

    def keep(self, data: bytes) -> None:
        """Keeps a piece of an order entry's body. Too large, it is forgotten whole: never a part of
        it.
        """
        self.body_size += len(data)
        if self.body is not None:
            if self.body_size > ORDER_BODY_BYTES_MAX:
                self.body = None
            else:
                self.body.append(data)

    def settle(self) -> None:
        """The body is known: what a form's `_method` says is known too."""
        found = self.found
        if found is not None and found.by_form and self.body is not None:
            match = settle(found, self.content_type, b"".join(self.body))
            self.route, self.path_params = match if match is not None else (None, {})

    def mark_sent(self) -> None:
        self.sent_mono_ns = time.monotonic_ns()
        self.sent_at_ns = time.time_ns()
        self.response_body = []

    def mark_answered(self) -> None:
        self.answered_mono_ns = time.monotonic_ns()

    @property
    def is_captured(self) -> bool:
        """It is order entry as far as is known; its body could have said otherwise."""
        return self.route is not None and self.route.action != "read"

    @property
    def may_lack_body(self) -> bool:
        """Its client waits for a word before it sends the body. Without one nobody can tell whether
        that, or the next request, comes next.
        """
        return self.awaits_continue and not self.continued and not self.request_done

    @property
    def account(self) -> int:
        return account_of(self.identity.decode("latin-1"))

    def fields(self) -> Fields | None:
        """None while the body is incomplete, and where the monolith could not read it either."""
        if self.route is None or not self.request_done or self.body is None:
            return None
        found = request_fields(
            self.route,
            self.path_params,
            self.target.partition(b"?")[2].decode("latin-1"),
            self.content_type.decode("latin-1"),
            b"".join(self.body),
            method=self.method.decode("latin-1"),
        )
        return found if isinstance(found, Fields) else None

    def capture(self, worker: str, number: int, outcome: Outcome) -> Capture:
        """Of an order entry whose bodies are both whole."""
        assert self.route is not None
        return Capture(
            worker=worker,
            number=number,
            action=self.route.action,
            method=self.method.decode("latin-1"),
            target=self.target.decode("latin-1"),
            path_params=self.path_params,
            content_type=self.content_type.decode("latin-1"),
            request_body=b"".join(self.body or ()),
            account=self.account,
            request_id=self.request_id.decode("latin-1"),
            outcome=outcome,
            status=self.status,
            response_body=b"".join(self.response_body or ()),
            sent_mono_ns=self.sent_mono_ns,
            answered_mono_ns=self.answered_mono_ns,
            sent_at_ns=self.sent_at_ns,
        )
