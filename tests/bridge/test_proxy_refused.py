"""What a client reads of an order that the engine refuses by limits of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from proxy_rig import MAPPING, between, request, response, run

from bridge.stage import Stage
from engine.client import Answer
from engine.reject import Reason
from engine.types import Command, Event, EventKind

EPOCH = 2


def place(price: str = "price") -> bytes:
    """`price`: what the monolith calls it."""
    fields = [("Content-Type", "application/json"), ("X-Member-Id", "7")]
    given = {"market": "BTC-USD", "side": "buy", price: "100.00", "quantity": "1.5"}
    return request("POST", "/api/v1/orders", msgspec.json.encode({"order": given}), fields)


def split(answer: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


class Refuses:
    """An engine that refuses whatever it is sent, for one reason."""

    def __init__(self, reason: Reason) -> None:
        self._refused = Event(kind=EventKind.REJECTED, reason=reason)

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        return [Answer(1, 1, (self._refused,))]


async def refused(reason: Reason) -> tuple[int, bytes, bytes]:
    """What a client reads of a new order that the engine refuses."""
    async with between(response(), engine=Refuses(reason)) as (front, script):
        front.ids._free.append(1)
        front.set_stages(Stage.LIVE, epoch=EPOCH)
        answer = split(await (await front.client()).ask(place()))
        assert script.requests == []
        return answer


@pytest.mark.parametrize(
    "reason", [Reason.BOOK_FULL, Reason.LEVELS_FULL, Reason.INSTRUMENT_HALTED, Reason.NOT_PERMITTED]
)
def test_a_refusal_that_the_monolith_has_no_words_for(reason: Reason) -> None:
    status, head, body = run(refused(reason))
    assert status == 503
    assert b"\r\nRetry-After: 1" in head
    assert body == b'{"status":503,"error":"Service Unavailable"}'


@pytest.mark.parametrize(
    ("reason", "status", "field", "message"),
    [
        (Reason.PRICE_TOO_HIGH, 422, "price", "is too high"),
        (Reason.PRICE_TOO_LOW, 422, "price", "is too low"),
        (Reason.PRICE_OFF_TICK, 422, "price", "must be a multiple of the tick size"),
        (Reason.QUANTITY_TOO_LARGE, 422, "quantity", "is too large"),
        (Reason.QUANTITY_OFF_LOT, 422, "quantity", "must be a multiple of the lot size"),
        (Reason.NOTIONAL_TOO_LARGE, 422, "quantity", "is too large at this price"),
        (Reason.WOULD_TRADE, 422, "base", "would trade at once"),
        (Reason.ACCOUNT_KILLED, 403, "account", "may not place orders"),
        (Reason.ACCOUNT_OPEN_ORDERS, 403, "account", "has too many open orders"),
        (Reason.ACCOUNT_OPEN_QUANTITY, 403, "account", "has too large an open quantity"),
    ],
)
def test_an_order_that_can_never_pass_is_not_told_to_be_tried_again(
    caplog: pytest.LogCaptureFixture, reason: Reason, status: int, field: str, message: str
) -> None:
    told, head, body = run(refused(reason))
    assert told == status
    assert b"Retry-After" not in head
    assert msgspec.json.decode(body) == {"errors": {field: [message]}}
    (record,) = (one for one in caplog.records if reason.name in one.getMessage())
    assert record.levelname == "WARNING"


def test_an_account_above_its_rate_comes_back_in_a_second() -> None:
    status, head, body = run(refused(Reason.ACCOUNT_RATE))
    assert status == 429
    assert b"\r\nRetry-After: 1" in head
    assert body == b'{"status":429,"error":"Too Many Requests"}'


def test_a_refusal_names_the_field_as_the_monolith_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = MAPPING.routes
    renamed = msgspec.structs.replace(first, fields=first.fields | {"price": "order.limit"})
    mapping = msgspec.structs.replace(MAPPING, routes=(renamed, *others))
    monkeypatch.setattr("proxy_rig.MAPPING", mapping)

    async def story() -> None:
        async with between(response(), engine=Refuses(Reason.PRICE_TOO_LOW)) as (front, _):
            front.ids._free.append(1)
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            status, _, body = split(await (await front.client()).ask(place("limit")))
            assert (status, body) == (422, b'{"errors":{"limit":["is too low"]}}')

    run(story())


def test_what_should_never_have_been_sent_is_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, _, _ = run(refused(Reason.BAD_QUANTITY))
    assert status == 422
    (record,) = (one for one in caplog.records if "BAD_QUANTITY" in one.getMessage())
    assert record.levelname == "ERROR"
