"""One request and its answer, on the way through a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bridge.limits import ORDER_BODY_BYTES_MAX
from shadow.capture import Capture, Outcome
from shadow.legacy.mapping import Route
from shadow.normalise import Fields, account_of, request_fields

if TYPE_CHECKING:
    from bridge.proxy.client import ClientConnection
    from bridge.proxy.upstream import UpstreamConnection


class Exchange:
    """Filled in by the client's connection as it reads, and by the upstream's as it answers.

    Mutable on purpose: it is made and dropped for each request of the hot path, and one event loop
    owns it.
    """

    __slots__ = (
        "answered_mono_ns",
        "at_engine",
        "awaits_continue",
        "body",
        "body_size",
        "chunked",
        "client",
        "collecting",
        "content_type",
        "continued",
        "discarding",
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
        "upgrade",
        "upstream",
        "version_10",
    )

    def __init__(self, client: ClientConnection) -> None:
        self.client: ClientConnection | None = client  # None: it has gone
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
        self.route: Route | None = None
        self.path_params: dict[str, str] = {}
        self.is_order = False  # place or cancel
        self.out: list[bytes] = []  # head and body as they go upstream, not yet written
        self.body: list[bytes] | None = None  # of an order entry; None: not kept, or too large
        self.body_size = 0
        self.symbol: str | None = None  # of an order entry, once it is known
        self.held_since = 0.0  # loop clock; 0.0: it never had to wait
        self.at_engine = False  # its command is under way there, whether its client stays or not
        self.started = False  # its turn has come
        self.collecting = False  # the body is read first, to find the instrument
        self.request_done = False
        self.discarding = False  # answered early: the rest of the body goes nowhere
        self.response_started = False
        self.status = 0
        self.response_body: list[bytes] | None = None
        self.response_size = 0
        self.since = 0.0  # loop clock: sent upstream
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

    def mark_sent(self) -> None:
        self.sent_mono_ns = time.monotonic_ns()
        self.sent_at_ns = time.time_ns()
        self.response_body = []

    def mark_answered(self) -> None:
        self.answered_mono_ns = time.monotonic_ns()

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
