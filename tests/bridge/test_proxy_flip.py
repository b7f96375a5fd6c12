"""A real worker in a real flip and rollback, under load: nobody is refused, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from proxy_rig import Client, request
from switch_world import CONFIG, KEYS, Control, World, shadowing
from test_proxy_live import monolith

from bridge.control.messages import ActRequest
from bridge.proxy.settings import ProxySettings
from bridge.proxy.worker import serve_worker
from engine.endpoint import Endpoint
from engine.types import Role

InWorld = Callable[[Callable[[World], Awaitable[None]]], None]
ACT = ActRequest(actor="ann", reason="CHG-1", execute=True)
CLIENTS = 4
ROUNDS = 3
MORE = 10  # orders of each client, before it goes on
FIELDS = [("Content-Type", "application/json"), ("X-Member-Id", "7")]
# Far from every other order, and over at once: the books stay as they are on both sides.
ORDER = request(
    "POST",
    "/api/v1/orders",
    b'{"order":{"market":"BTC-USD","side":"buy","price":"0.01","quantity":"1",'
    b'"time_in_force":"ioc"}}',
    FIELDS,
)


@contextlib.asynccontextmanager
async def worker(world: World, upstream_port: int) -> AsyncIterator[int]:
    settings = ProxySettings(
        listen_host="127.0.0.1",
        listen_port=0,
        upstreams=(f"http://127.0.0.1:{upstream_port}",),
        mapping=CONFIG.mapping,
        instruments=CONFIG.instruments,
        redis_url=world.redis_url,
        control_url=world.control_url,
        legacy_url=world.legacy_url,
        engine=Endpoint(host="127.0.0.1", port=world.engine.port),
        engine_key=KEYS[Role.TRADE],
        slot=7,
    )
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve_worker(settings, ready=ready.set_result, stop=stop))
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield ready.result()
    finally:
        stop.set()
        await task


class Trader:
    """Sends one order after the other until it is told to stop."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.stopping = False

    async def trade(self, port: int) -> None:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        while not self.stopping:
            head, _, body = (await client.ask(ORDER)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 201 "), head + body
            self.ids.append(msgspec.json.decode(body)["order"]["id"])
        client.close()


async def act(control: Control, direction: str) -> None:
    flip = await control.switch.begin("BTC-USD", direction, ACT)  # type: ignore[arg-type]
    outcome = await control.switch.carry(flip)
    assert outcome.outcome == "done", outcome


async def some_more_orders(traders: list[Trader], trading: list[asyncio.Task[None]]) -> None:
    wanted = [len(one.ids) + MORE for one in traders]
    while any(len(one.ids) < least for one, least in zip(traders, wanted, strict=True)):
        for task in trading:
            if task.done():
                task.result()
        await asyncio.sleep(0.005)


async def sequenced(world: World) -> int:
    async with world.session("status", Role.READ_ONLY) as client:
        return (await client.status()).seq


def test_clients_do_not_notice_flips_and_rollbacks(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, monolith(world.super_url) as monolith_port:
            await shadowing(world, control)
            async with worker(world, monolith_port) as port:
                traders = [Trader() for _ in range(CLIENTS)]
                trading = [asyncio.create_task(one.trade(port)) for one in traders]
                for _ in range(ROUNDS):
                    await some_more_orders(traders, trading)
                    await world.evidence()
                    before = await sequenced(world)
                    await act(control, "flip")
                    await some_more_orders(traders, trading)
                    assert await sequenced(world) > before + CLIENTS * MORE
                    await act(control, "rollback")
                await some_more_orders(traders, trading)
                for one in traders:
                    one.stopping = True
                await asyncio.gather(*trading)
            told = [order_id for one in traders for order_id in one.ids]
            written = await world.rows(
                "SELECT id FROM orders WHERE member_id = 7 AND time_in_force = 1"
            )
            assert sorted(told) == sorted(order_id for (order_id,) in written)

    in_world(work)
