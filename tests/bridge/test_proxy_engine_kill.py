"""The engine dies under load, and every order has exactly one outcome all the same."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from proxy_rig import SCALES, Client, Front, between, request, response, run, until

from bridge.proxy.desk import live as live_module
from bridge.proxy.desk.session import EngineSession
from bridge.stage import Stage
from engine.client import EngineClient
from engine.endpoint import Endpoint
from engine.errors import EngineUnavailable
from engine.reject import Reason
from engine.service import EngineKey, EngineSettings
from engine.types import Command, CommandKind, EventKind, Mode, Role
from engine.wire import decode_events, instrument_command

EPOCH = 2
CLIENTS = 24
KEYS = {role: f"key-{role.name}" for role in Role}
_LAUNCH = """
import asyncio, json, sys
import msgspec, uvloop
from engine.service import EngineSettings, serve

async def main(told):
    settings = msgspec.convert(told, EngineSettings, dec_hook=lambda kind, value: kind(value))
    await serve(settings, ready=lambda port: print(port, flush=True), stop=asyncio.Event())

uvloop.run(main(json.loads(sys.argv[1])))
"""


class EngineProcess:
    def __init__(self, directory: Path, port: int = 0) -> None:
        settings = EngineSettings(
            host="127.0.0.1",
            port=port,
            directory=directory,
            implementation="python",
            shard=1,
            keys=tuple(EngineKey(role=role, key=key) for role, key in KEYS.items()),
        )
        told = json.dumps(msgspec.to_builtins(settings, enc_hook=str))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, told], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


async def open_market(port: int) -> None:
    btc = SCALES["BTC-USD"]
    control = EngineClient(host="127.0.0.1", port=port, name="control", key=KEYS[Role.ADMIN])
    await control.start()
    define = instrument_command(
        instrument=1,
        name="BTC-USD",
        price_ticks_max=btc.price_ticks_max,
        qty_lots_max=btc.qty_lots_max,
    )
    mode = Command(kind=CommandKind.MODE, instrument=1, epoch=EPOCH, aux=Mode.LIVE)
    for answer in await control.send([define, mode], timeout_s=5.0):
        assert answer.events[0].reason is Reason.NONE
    await control.close()


async def accepted(port: int) -> Counter[int]:
    """How often the journal has a new order of each account: each order has one of its own."""
    reader = EngineClient(host="127.0.0.1", port=port, name="reader", key=KEYS[Role.READ_ONLY])
    await reader.start()
    found: Counter[int] = Counter()
    async for batch in reader.tail(1):
        for event in decode_events(batch.events):
            if event.kind is EventKind.ACCEPTED:
                found[event.contra_id] += 1
        if batch.last_seq >= reader.head_seq:
            break
    await reader.close()
    return found


class Traders:
    """Clients that place orders one after the other, each order by an account of its own."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}  # account -> status
        self._placing: list[asyncio.Task[None]] = []
        self._stopped = False

    async def start(self, front: Front) -> None:
        for n in range(CLIENTS):
            trading = self._trade(await front.client(), 1 + n * 100_000)
            self._placing.append(asyncio.create_task(trading))

    async def more(self, answers: int) -> None:
        enough = len(self.told) + answers
        await until(lambda: len(self.told) > enough)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._placing)

    async def _trade(self, client: Client, account: int) -> None:
        while not self._stopped:
            answer = await client.ask(place(account))
            self.told[account] = int(answer.split(b" ")[1])
            account += 1


def place(account: int) -> bytes:
    order = {"market": "BTC-USD", "side": "buy", "price": "100.00", "quantity": "1.5"}
    fields = [("Content-Type", "application/json"), ("X-Member-Id", str(account))]
    return request("POST", "/api/v1/orders", msgspec.json.encode({"order": order}), fields)


@pytest.mark.parametrize("returns", [True, False])
def test_every_order_has_one_outcome_through_kill_9(
    tmp_path: Path, legacy_database: str, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    """201: it is in the journal once. 503: it is not. 504: nobody knows, and it is there once or
    not at all. An engine that comes back in time is a pause, and nothing else.
    """
    monkeypatch.setattr(live_module, "ENGINE_ANSWER_S", 20.0 if returns else 0.3)

    async def story(engine: EngineProcess) -> tuple[EngineProcess, Counter[int], dict[int, int]]:
        await open_market(engine.port)
        endpoint = Endpoint(host="127.0.0.1", port=engine.port)
        session = EngineSession(endpoint, name="proxy-0", key=KEYS[Role.TRADE])
        keeping = asyncio.create_task(session.run())
        traders = Traders()
        async with between(response(), engine=session, legacy_url=legacy_database) as (
            front,
            script,
        ):
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            await traders.start(front)
            for _ in range(3 if returns else 1):
                await traders.more(300)
                await asyncio.to_thread(engine.kill)
                if not returns:
                    await until(lambda: 503 in traders.told.values())
                engine = await asyncio.to_thread(EngineProcess, tmp_path, engine.port)
            await traders.more(300)
            await traders.stop()
            assert script.requests == []
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return engine, await accepted(engine.port), traders.told

    engine = EngineProcess(tmp_path)
    try:
        engine, found, told = run(story(engine))
    finally:
        engine.kill()
    outcomes = Counter(told.values())
    assert set(outcomes) <= ({201} if returns else {201, 503, 504}), outcomes
    assert returns or outcomes[503]
    for account, status in told.items():
        assert found[account] in {201: (1,), 503: (0,), 504: (0, 1)}[status], (account, status)
    assert found.keys() <= told.keys()


@pytest.mark.one_plane("no proxy in it")
def test_the_budget_is_one_whatever_it_is_spent_on() -> None:
    """Waiting for the login and for the answer together; then it is sure that nothing was sent."""

    async def story() -> None:
        session = EngineSession(Endpoint(host="127.0.0.1", port=1), name="proxy-0", key="x")
        spent: list[float] = []

        class Slow:
            async def send(self, commands: object, *, timeout_s: float) -> list[object]:
                spent.append(timeout_s)
                return []

        sending = [asyncio.create_task(session.send([], timeout_s=30.0)) for _ in range(3)]
        with pytest.raises(EngineUnavailable):
            await session.send([], timeout_s=0.2)
        session._client = Slow()  # type: ignore[assignment]
        session._ready.set()
        await asyncio.gather(*sending)
        assert spent == sorted(spent)
        assert max(spent) < 30.0

    run(story())
