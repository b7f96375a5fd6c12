"""While a monolith follows the engine, trading clients may send only what its tables can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_harness import flat, open_market, raw, run, service, started
from market_driver import cancel, changed, new

from engine.protocol import RejectCode
from engine.types import (
    CommandKind,
    EventKind,
    MassCancelScope,
    OrderFlag,
    OrderType,
    Role,
    SelfTradePrevention,
    TimeInForce,
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": CommandKind.REPLACE, "aux": 9}, "a REPLACE"),
        ({"ord_type": OrderType.STOP}, "of type STOP"),
        ({"ord_type": OrderType.STOP_LIMIT, "aux": 5}, "of type STOP_LIMIT"),
        ({"tif": TimeInForce.DAY}, "time in force DAY"),
        ({"tif": TimeInForce.FOK}, "time in force FOK"),
        ({"tif": TimeInForce.GTD, "aux": 5 << 32}, "time in force GTD"),
        ({"flags": OrderFlag.POST_ONLY}, "POST_ONLY"),
        ({"flags": OrderFlag.DISPLAY, "aux": 1}, "DISPLAY"),
        ({"stp": SelfTradePrevention.CANCEL_BOTH}, "CANCEL_BOTH"),
        ({"aux": 1}, "`aux`"),
    ],
)
def test_what_is_not_plain_ends_the_connection_and_nothing_of_its_message_counts(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    async def story() -> None:
        async with service(tmp_path, plain_orders=True) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                await one.commands(new(1, ref=1))
                await one.answers(1)
                await one.commands(new(2, ref=2), changed(new(3, ref=3), **change), new(4, ref=4))
                rejected = await one.rejected()
            assert rejected.code == RejectCode.PROTOCOL
            assert "reference 3: " in rejected.reason
            assert told in rejected.reason
            assert 'engine.orders = "all"' in rejected.reason
            async with raw(port) as again:
                assert (await again.login()).last_ref == 1

    run(story())


def test_plain_orders_and_their_cancels_are_taken(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, plain_orders=True) as port:
            await open_market(port)
            async with raw(port) as one:
                await one.login()
                limit = new(1, ref=1, qty_lots=5)
                await one.commands(
                    limit,
                    new(2, ref=2, tif=TimeInForce.IOC),
                    new(3, ref=3, ord_type=OrderType.MARKET, tif=TimeInForce.IOC, price_ticks=0),
                    changed(
                        cancel(1, ref=4), kind=CommandKind.REDUCE, account=limit.account, qty_lots=2
                    ),
                    changed(cancel(1, ref=5), account=limit.account),
                    changed(
                        cancel(0, ref=6),
                        kind=CommandKind.MASS_CANCEL,
                        account=limit.account,
                        aux=MassCancelScope.ACCOUNT,
                    ),
                )
                events = flat(await one.answers(6))
                assert [event for event in events if event.kind == EventKind.REJECTED] == []
                assert EventKind.REDUCED in {event.kind for event in events}

    run(story())


@pytest.mark.parametrize(
    ("plain_orders", "role"), [(False, Role.TRADE), (True, Role.SHADOW)], ids=["all", "shadow"]
)
def test_others_are_answered_by_the_market(tmp_path: Path, plain_orders: bool, role: Role) -> None:
    async def story() -> None:
        async with service(tmp_path, plain_orders=plain_orders) as port:
            await open_market(port)
            async with started(port, "one", role) as one:
                (answer,) = await one.send([new(1, tif=TimeInForce.FOK)], timeout_s=20.0)
                assert answer.events[0].kind in (EventKind.ACCEPTED, EventKind.REJECTED)

    run(story())
