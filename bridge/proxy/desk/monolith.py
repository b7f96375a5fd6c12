"""The monolith's part of a request that concerns both sides: one request of our own for each order.

None of them is ever sent twice. After one whose outcome is not known, no further one is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from bridge.errors import LegacyNotReached, LegacyOutcomeUnknown
from bridge.proxy.desk.own import OwnRequest, own_request
from bridge.proxy.desk.reply import Fate, Reply, not_found, unavailable, unknown
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.route import Router, settle
from shadow.capture import Outcome
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.mapping import Route

_log = logging.getLogger(__name__)


class AskMonolith(Protocol):
    """Sends one request, once. Raises LegacyNotReached when nothing was sent, and
    LegacyOutcomeUnknown when it has no whole answer.
    """

    def __call__(
        self,
        method: bytes,
        target: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        body: bytes,
        content_type: bytes,
    ) -> Awaitable[tuple[int, bytes]]: ...


Record = Callable[[Exchange, Outcome], None]


async def nobody_asks(
    method: bytes,
    target: bytes,
    fields: Sequence[tuple[bytes, bytes]],
    body: bytes,
    content_type: bytes,
) -> tuple[int, bytes]:
    raise LegacyNotReached("this proxy sends no requests of its own")


def nobody_records(exchange: Exchange, outcome: Outcome) -> None:
    """Where no comparison follows."""


class MonolithSide:
    def __init__(
        self,
        mapping: LegacyMapping,
        ask: AskMonolith,
        *,
        record: Record,
        learn: Callable[[Exchange], None],
    ) -> None:
        """`learn` gets what `record` gets, once it has been answered."""
        self.ask = ask
        self.record = record
        self._learn = learn
        self._router = Router(mapping.routes, method_override=mapping.method_override)
        plain = [route for route in mapping.routes if not route.each]
        self._plain: dict[str, Route] = {route.action: route for route in reversed(plain)}

    async def place(
        self, exchange: Exchange, values: Mapping[str, object], extras: Mapping[str, Any], n: int
    ) -> Reply:
        return await self._send("place", exchange, values, extras, n)

    async def cancel(self, exchange: Exchange, order_id: object, n: int) -> Reply:
        return await self._send("cancel", exchange, {"order_id": order_id}, {}, n)

    async def _send(
        self,
        action: str,
        exchange: Exchange,
        values: Mapping[str, object],
        extras: Mapping[str, Any],
        n: int,
    ) -> Reply:
        """`n` is its place among the parts of the client's request, from 1."""
        route = self._plain.get(action)
        if route is None:
            _log.error("[mapping] has no plain route to %s one order: it can't be sent", action)
            return unavailable()
        try:
            own = own_request(exchange, route, values, extras, n)
        except ValueError as error:
            _log.error("%s %s: %s: it can't be sent", route.method, route.path, error)
            return unavailable()
        if not self._is_meant(own):
            _log.warning("request %s would be read as another one: it is not sent", _shown(own))
            return not_found() if action == "cancel" else unavailable()
        sent = _exchange(exchange, own)
        sent.mark_sent()
        try:
            status, body = await self.ask(
                own.method, own.target, own.fields, own.body, own.content_type
            )
        except LegacyNotReached as error:
            _log.warning("request %s was not sent: %s", _shown(own), error)
            return unavailable()
        except LegacyOutcomeUnknown as error:
            _log.warning("request %s: outcome unknown: %s", _shown(own), error)
            self._note(sent, Outcome.UPSTREAM_FAILED)
            return unknown()
        except BaseException:  # this worker stops: it may have been carried out
            self._note(sent, Outcome.UPSTREAM_FAILED)
            raise
        sent.status, sent.response_body = status, [body]
        sent.mark_answered()
        self._note(sent, Outcome.ANSWERED)
        return Reply(status, body, _fate(status))

    def _is_meant(self, own: OwnRequest) -> bool:
        """The monolith would read it as the route that it was made for, and of the same order. An
        id of a client is any text: "7.5" names order 7, and "" is the path of all of them.
        """
        found = self._router.match(own.method, own.target, b"", own.content_type)
        match = settle(found, own.content_type, own.body) if found is not None else None
        if match is None or match[0] is not own.route:
            return False
        return all(own.path_params.get(name) == value for name, value in match[1].items())

    def _note(self, sent: Exchange, outcome: Outcome) -> None:
        """Whatever goes wrong in here is not the client's business."""
        try:
            self.record(sent, outcome)
            if outcome is Outcome.ANSWERED:
                self._learn(sent)
        except Exception:
            _log.exception("an order could not be captured")


def _fate(status: int) -> Fate:
    """A failing monolith, or a balancer in front of it, may have carried it out."""
    if status >= 500:
        return Fate.UNKNOWN
    return Fate.DONE if 200 <= status < 300 else Fate.REFUSED


def _exchange(client_s: Exchange, own: OwnRequest) -> Exchange:
    """As if it had come from a client that has gone."""
    sent = Exchange(None)
    sent.method, sent.target = own.method, own.target
    sent.route, sent.path_params = own.route, own.path_params
    sent.content_type, sent.body, sent.body_size = own.content_type, [own.body], len(own.body)
    sent.identity = client_s.identity
    sent.request_id = own.request_id
    sent.is_order = sent.started = sent.request_done = True
    return sent


def _shown(own: OwnRequest) -> str:
    return own.request_id.decode("latin-1")
