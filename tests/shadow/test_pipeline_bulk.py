"""Bulk requests: one capture, several operations, each with a verdict of its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from harness import BTC, ETH, World, buy, play, sell, shadow

from bridge.bench.synthetic import Done, Order
from shadow.capture import Capture, Outcome
from shadow.verdict import Kind

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(autouse=True)
def unanswered_ones_stay(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than operations wait for their captures, as in earnest; and so do claims."""
    monkeypatch.setattr("shadow.pipeline.ANSWERED_UNWRITTEN_S", 5.0)
    monkeypatch.setattr("shadow.gaps.GAP_CLAIM_S", 15.0)


MANY = "/api/v1/orders/batch"


def bulk(world: World, action: str, target: str, request: Any, status: int, *parts: bytes) -> None:
    """The capture of a request whose parts have been answered so."""
    body = msgspec.json.encode({"orders": [msgspec.Raw(part) for part in parts]})
    capture = world.monolith.capture("place", 1, b"", status, body if status else b"")
    method = "POST" if action == "place" else "DELETE"
    outcome = Outcome.ANSWERED if status else Outcome.UPSTREAM_FAILED
    add(
        world,
        msgspec.structs.replace(
            capture,
            action=action,
            method=method,
            target=target,
            content_type="application/json",
            request_body=msgspec.json.encode(request) if request is not None else b"",
            outcome=outcome,
        ),
    )


def add(world: World, capture: Capture) -> None:
    world.redis.add([world.timed(capture)])


def part(done: Done) -> bytes:
    """What a bulk answer shows of an order, of the answer to a request for it alone."""
    return bytes(
        msgspec.json.decode(done.capture.response_body, type=dict[str, msgspec.Raw])["order"]
    )


def asked(world: World, *orders: Order) -> dict[str, list[msgspec.Raw]]:
    bodies = (world.monolith.request_body(order) for order in orders)
    return {
        "orders": [
            msgspec.json.decode(body, type=dict[str, msgspec.Raw])["order"] for body in bodies
        ]
    }


def test_one_capture_explains_all_orders_of_its_request(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC, ETH)
        async with world.running():
            await world.loaded(BTC)
            await world.loaded(ETH)
            orders = (sell(100), sell(50, symbol=ETH), sell(101))
            request = asked(world, *orders)
            request["orders"].insert(1, msgspec.Raw(b'{"market":"BTC-USD","quantity":"1"}'))
            refused = (
                b'{"errors":{"side":["is not included in the list"],"price":["can\'t be blank"]}}'
            )
            done = [await world.place(order, captured=False) for order in orders]
            rewind(world)
            parts = [part(one) for one in done]
            bulk(world, "place", MANY, request, 201, parts[0], refused, *parts[1:])
            found = await world.settled(3)
            counts = found.counts
            assert (counts.matched, counts.gaps, counts.dark) == (3, 0, 0), await world.verdicts()
            found = await world.settled(1, ETH)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (1, 0, 0)
            await world.place(sell(51, symbol=ETH))
            found = await world.until(lambda one: one.engine_latency.count == 2, ETH)
            assert found.legacy_latency.count == 1  # not of several orders together

    play(control_database, scenario)


def test_an_order_that_the_request_did_not_ask_for_is_a_mismatch(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            request = asked(world, sell(100), sell(102))
            done = [await world.place(sell(price), captured=False) for price in (100, 101)]
            rewind(world)
            bulk(world, "place", MANY, request, 201, *map(part, done))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.mismatched) == (1, 1)
            (verdict,) = await world.verdicts()
            assert [one.kind for one in verdict.differences] == [Kind.COMMAND]

    play(control_database, scenario)


def test_a_bulk_request_without_an_answer_still_explains_its_orders(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            request = asked(world, sell(100), sell(101))
            done = [world.monolith.place(sell(price)) for price in (100, 101)]
            rewind(world)
            bulk(world, "place", MANY, request, 0)
            for one in done:
                await world.do(one, captured=False)
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (2, 0, 0)

    play(control_database, scenario)


def test_bulk_cancels_are_told_one_by_one(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            for price in (100, 101, 102):
                await world.place(sell(price))
            done = [await world.do(world.monolith.cancel(one), captured=False) for one in (1, 3)]
            rewind(world, 3)
            not_open = b'{"errors":{"state":["is not open"]}}'
            missing = b'{"errors":{"base":["Not Found"]}}'
            parts = (part(done[0]), not_open, part(done[1]), missing)
            bulk(world, "cancel", MANY, {"ids": [1, 1, 3, 77]}, 200, *parts)
            found = await world.settled(6)
            counts = found.counts
            assert (counts.matched, counts.gaps, counts.dark) == (6, 0, 0), await world.verdicts()

    play(control_database, scenario)


@pytest.mark.parametrize("status", [200, 0])
def test_a_cancel_of_everything_explains_what_it_canceled(
    control_database: str, status: int
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            for price in (100, 101):
                await world.place(sell(price))
            await world.place(buy(90))  # of another account
            done = [world.monolith.cancel(one) for one in (1, 2)]
            rewind(world, 3)
            target = "/api/v1/orders?market=BTC-USD"
            bulk(world, "cancel_all", target, None, status, *map(part, done))
            for one in done:
                await world.do(one, captured=False)
            found = await world.settled(5)
            counts = found.counts
            assert (counts.matched, counts.gaps, counts.dark) == (5, 0, 0), await world.verdicts()
            await world.do(world.monolith.cancel(3), captured=False)  # it can't have been of that
            found = await world.settled(6)
            assert found.counts.dark + found.counts.gaps == 1

    play(control_database, scenario)


@pytest.mark.parametrize("known", [True, False])
def test_one_lost_capture_excuses_all_orders_of_its_account(
    control_database: str, known: bool
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC, ETH)
        async with world.running():
            await world.loaded(BTC)
            await world.loaded(ETH)
            if known:
                await lose_one(world)
            for order in (sell(100), sell(101), sell(102), sell(50, symbol=ETH)):
                await world.do(uncaptured(world, order), captured=False)
            if not known:
                await world.until(lambda one: one.counts.dark == 3)
                await world.until(lambda one: one.counts.dark == 1, ETH)
                await lose_one(world)
            found = await world.until(lambda one: one.counts.gaps == 3)
            assert found.counts.dark == 0
            found = await world.until(lambda one: one.counts.gaps == 1, ETH)
            assert found.counts.dark == 0
            await world.do(uncaptured(world, buy(90)), captured=False)  # of another account
            found = await world.until(lambda one: one.counts.dark == 1)
            assert found.counts.gaps == 3

    async def lose_one(world: World) -> None:
        world.monolith._next_capture += 1
        refused = world.monolith.capture("cancel", 5, b"", 500, b"", path_params={"id": "77"})
        add(world, refused)  # what shows that one before it is missing

    play(control_database, scenario)


def uncaptured(world: World, order: Order) -> Done:
    done = world.monolith.place(order)
    world.monolith._next_capture -= 1
    return done


def rewind(world: World, captured: int = 0) -> None:
    """The captures that were not sent have not been numbered either."""
    world.monolith._next_capture = captured + 1
