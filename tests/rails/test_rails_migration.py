"""A real Rails monolith is migrated on a running market, and taken back.

Clients trade with it directly, then through the proxy; an instrument is shadowed, earns its gate in
spite of a job and a rake task that write orders behind the proxy, is flipped under load, answered
by the engine and read through Rails, and goes back under load. At the end every answer that a
client was given must be in the monolith's own tables, once.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from rails_dialect import FAR, answers
from rails_rows import audited
from rails_world import Caller, RailsWorld
from running_rails import Console, ConsoleError, rails_program, rake, running_console

from bridge.control.messages import InstrumentStatus
from bridge.sandbox.flow_random import LoadSymbol
from bridge.sandbox.load import Load
from bridge.sandbox.told import LoadResult

BTC, SOL = "BTC-USD", "SOL-USD"
SYMBOLS = (
    LoadSymbol(
        symbol=BTC,
        tick=Decimal("0.01"),
        lot=Decimal("0.00000001"),
        middle=Decimal("236.50"),
        weight=2.0,
    ),
    LoadSymbol(symbol=SOL, tick=Decimal("0.001"), lot=Decimal("0.0001"), middle=Decimal("24.500")),
)
GATE = {
    "operations_min": 100,
    "fills_min": 10,
    "shadow_s_min": 1.0,
    "engine_p99_us_max": 5_000_000.0,
    "engine_p999_us_max": 5_000_000.0,
}
RATE_PER_S = 30.0
PATIENCE_S = 60.0
BY_JOB, BY_RAKE = 2, 3
PROBE, READER = 30, 33  # members that no load trades for
DIRECT, SHADOW, LIVE, BACK = "direct", "shadow", "live", "taken back"


@pytest.fixture
def world(server_directory: Path) -> Iterator[RailsWorld]:
    rails_program()
    number = sum(1 for _ in server_directory.glob("rails-*"))
    with RailsWorld(server_directory / f"rails-{number}", gate=GATE) as world:
        world.start_monolith()
        yield world


def test_a_rails_monolith_is_migrated_and_taken_back(world: RailsWorld) -> None:
    """The whole of it; what must hold at each turn is asserted on the way."""
    with running_console(world.database_url) as console:
        migration = Migration(world, console)
        results = asyncio.run(migration.run())
    told = [order for result in results for order in result.orders.values()]
    assert {DIRECT, SHADOW, LIVE, BACK} <= {order.phase for order in told}
    for result in results:
        assert result.wrong == []
        assert result.failed == {}
        assert set(result.statuses) <= {200, 201, 422}, result.statuses  # nobody saw an error


class Migration:
    def __init__(self, world: RailsWorld, console: Console) -> None:
        self.world = world
        self.console = console
        self.load: Load

    async def run(self) -> list[LoadResult]:
        world = self.world
        direct = self._load(world.rails.url, seed=5)
        direct.phase(DIRECT)
        await direct.start()
        by_rails = await asyncio.to_thread(answers, world.rails.url, BTC, PROBE)
        await asyncio.to_thread(world.start_railswitch)
        self.load = self._load(world.proxy_url, seed=6)
        self.load.phase(SHADOW)
        await self.load.start()
        results = [await direct.stop()]
        try:
            await self._shadow()
            await self._account_for_dark_orders()
            await self._flip()
            by_engine = await asyncio.to_thread(answers, world.proxy_url, BTC, PROBE)
            assert by_engine == by_rails
            await asyncio.to_thread(self._read_through_rails)
            await asyncio.to_thread(self._be_stale)
            await asyncio.to_thread(self._refuse_the_back_office)
            await self._roll_back()
        finally:
            results.append(await self.load.stop())
        await self._settle()
        audit = await audited(world, results)
        assert [check for check in audit.checks if not check.ok] == []
        assert (audit.lost, audit.duplicated) == (0, 0)
        assert audit.live_orders > 0
        assert audit.live_fills > 0
        return results

    def _load(self, base_url: str, *, seed: int) -> Load:
        return Load(base_url, SYMBOLS, seed=seed, rate_per_s=RATE_PER_S, clients=8)

    async def _shadow(self) -> None:
        for symbol in (BTC, SOL):
            await self._operator("stage", symbol, "shadow", "--execute")
        await self._until(BTC, _passes)

    async def _account_for_dark_orders(self) -> None:
        """They are fed and compared like all others; the gate wants to hear who writes them."""
        world, count = self.world, BY_JOB + BY_RAKE
        quotes = f"/quotes?market={BTC}&count={BY_JOB}"
        by_job = await asyncio.to_thread(Caller(world.proxy_url, PROBE).ask, "POST", quotes)
        assert by_job.status_code == 202
        task = ("exchange:quote", f"MARKET={BTC}", f"ORDERS={BY_RAKE}")
        by_rake = await asyncio.to_thread(rake, world.database_url, *task)
        assert by_rake.returncode == 0, by_rake.stderr
        one = await self._until(BTC, lambda one: one.counts.dark == count)
        assert (one.counts.mismatched, one.counts.uncomparable) == (0, 0), one.counts
        refused = await asyncio.to_thread(world.railswitch, "flip", BTC, "--execute")
        assert refused.returncode != 0
        assert f"{count} operations never passed a proxy" in _line(refused.stdout + refused.stderr)
        assert (await self._instrument(BTC)).stage == "shadow"
        world.configure_gate({"dark_max": count})
        killed = world.kill("control")
        await _until(lambda: world.pid("control") not in (0, killed), "a new control process")
        await self._until(BTC, _passes)

    async def _flip(self) -> None:
        await self._operator("flip", BTC, "--execute")
        assert (await self._instrument(BTC)).stage == "live"
        self.load.phase(LIVE, BTC)
        await self._goes_on("the flip")

    def _read_through_rails(self) -> None:
        """What the engine has answered is what Rails shows, at once, wherever it is asked."""
        proxied, rails = (
            Caller(url, READER) for url in (self.world.proxy_url, self.world.rails.url)
        )
        before = self._newest_trade(proxied)
        bought = proxied.place(market=BTC, side="buy", order_type="market", quantity="0.00001")
        assert bought.status_code == 201
        order = bought.json()["order"]
        assert order["trades"], "nobody sells"
        path = f"/orders/{order['id']}"
        assert proxied.ask("GET", path).json() == bought.json()
        assert rails.ask("GET", path).json() == bought.json()
        assert order in rails.ask("GET", "/orders").json()["orders"]
        assert self._newest_trade(rails) > before
        row = self.console.say(f"Order.find({order['id']}).slice(:source, :state, :member_id)")
        assert row == {"source": "engine", "state": order["state"], "member_id": READER}

    def _newest_trade(self, client: Caller) -> int:
        trades = client.ask("GET", f"/trades?market={BTC}").json()["trades"]
        return int(trades[0]["id"])

    def _be_stale(self) -> None:
        """Optimistic locking sees what the engine did to an object that someone had loaded."""
        client, console = Caller(self.world.proxy_url, READER), self.console
        placed = client.place(market=BTC, **FAR).json()["order"]
        own = f"/orders/{placed['id']}"
        assert client.ask("GET", own).json()["order"] == placed  # it is written back
        version = console.say(f"(loaded = Order.find({placed['id']})).lock_version")
        assert client.ask("DELETE", own).json()["order"]["state"] == "cancelled"
        assert client.ask("GET", own).json()["order"]["state"] == "cancelled"
        assert console.say(f"Order.find({placed['id']}).lock_version") > version
        with pytest.raises(ConsoleError) as stale:
            console.say("loaded.update!(note: 'seen')")
        assert stale.value.kind == "ActiveRecord::StaleObjectError"
        with pytest.raises(ConsoleError, match="owned by the matching engine") as fenced:
            console.say("loaded.reload.update!(note: 'seen')")
        assert fenced.value.kind == "ActiveRecord::StatementInvalid"

    def _refuse_the_back_office(self) -> None:
        """The fence says why; nothing of the task's work is left, and another market is free."""
        before = self._by_house()
        task = ("exchange:quote", f"MARKET={BTC}", f"ORDERS={BY_RAKE}")
        refused = rake(self.world.database_url, *task)
        assert refused.returncode != 0
        assert f"instrument {BTC} is owned by the matching engine" in refused.stderr
        assert "Orders for it go through the railswitch proxy" in refused.stderr
        assert self._by_house() == before
        with pytest.raises(ConsoleError, match="owned by the matching engine"):
            self.console.say(f"House.quote('{BTC}', 1, source: 'console')")
        assert self.console.say(f"House.quote('{SOL}', 1, source: 'console').size") == 1

    def _by_house(self) -> int:
        with psycopg.connect(self.world.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM orders WHERE source = 'rake'").fetchone()
        assert row is not None
        return int(row[0])

    async def _roll_back(self) -> None:
        await self._goes_on("the refusals")
        await self._operator("rollback", BTC, "--execute")
        assert (await self._instrument(BTC)).stage == "shadow"
        self.load.phase(BACK, BTC)
        await self._goes_on("the rollback")
        await self._until(BTC, lambda one: one.counts.matched > 0)

    async def _settle(self) -> None:
        """Nothing waits any more, nothing differs, and the books are equal."""
        for symbol in (BTC, SOL):
            one = await self._until(
                symbol, lambda one: one.counts.pending == 0 and bool(one.book_equal)
            )
            counts = one.counts
            assert counts.closes(), counts
            assert (counts.mismatched, counts.gaps, counts.uncomparable) == (0, 0, 0), counts
            assert counts.seen == counts.matched, counts
            assert counts.dark == (symbol == SOL), counts

    async def _operator(self, *words: str) -> None:
        done = await asyncio.to_thread(self.world.railswitch, *words)
        assert done.returncode == 0, done.stdout + done.stderr

    async def _instrument(self, symbol: str) -> InstrumentStatus:
        status = await asyncio.to_thread(self.world.control.status)
        return next(one for one in status.instruments if one.symbol == symbol)

    async def _until(
        self, symbol: str, condition: Callable[[InstrumentStatus], bool]
    ) -> InstrumentStatus:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            one = await self._instrument(symbol)
            if condition(one):
                return one
            said = f"{one.gate} {one.gate_reason} {one.counts} {one.taint}"
            assert time.monotonic() < deadline, f"{symbol}: {said}"
            await asyncio.sleep(0.1)

    async def _goes_on(self, after: str) -> None:
        """Clients of the instrument are answered, with trades."""
        orders = self.load.result.orders

        def told() -> int:
            mine = [one for one in list(orders.values()) if one.wish.symbol == BTC]
            return sum(bool(one.fills) for one in mine)

        before = told()
        await _until(lambda: told() >= before + 5, f"trades after {after}")


def _passes(one: InstrumentStatus) -> bool:
    assert one.gate != "fail" or one.counts.dark, one.gate_reason
    return one.gate == "pass"


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:.0f} s"
        await asyncio.sleep(0.05)
