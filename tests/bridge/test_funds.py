"""Money of live orders: locked before the engine has them, once, and settled by the write-back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path

import msgspec
import psycopg
import pytest
from funds_world import (
    ACCOUNTS,
    ACT,
    DEPOSIT,
    MAPPING,
    MEMBERS,
    Worker,
    accounts,
    caught_up,
    conserved,
    deposit,
    flip,
    flipped,
    order_id_in,
    roll_back,
    told,
    worker,
)
from proxy_rig import AwayEngine
from switch_world import CONFIG, World, new_order, shadowing, until

from bridge import fence
from bridge.errors import NotNow, WriteBackStopped
from bridge.proxy.desk.live import Behind
from bridge.proxy.desk.reply import Fate, Reply
from bridge.sandbox.provision import as_role
from engine.client import Answer
from engine.errors import OutcomeUnknown
from engine.types import Command, CommandKind, Role, Side
from shadow.legacy.mapping import FundsRefusal, Mapping

TEST_S = 60.0
Work = Callable[[World], Awaitable[None]]


@pytest.fixture
def in_funded_world(
    control_database: str, legacy_database: str, redis_url: str, tmp_path: Path
) -> Callable[..., None]:
    """Runs a coroutine of a world whose exchange has accounts."""

    def run(work: Work, mapping: Mapping = MAPPING) -> None:
        async def within() -> None:
            deposit(as_role(legacy_database, "exchange"))
            world = World(control_database, legacy_database, redis_url, tmp_path, mapping)
            try:
                async with asyncio.timeout(TEST_S):
                    await world.start()
                    await work(world)
            finally:
                await world.stop()

        asyncio.run(within())

    return run


async def reservations(world: World) -> list[tuple[int, str]]:
    return await world.rows("SELECT order_id, state FROM railswitch.reservations ORDER BY 1")  # type: ignore[return-value]


async def free(world: World, member: int, currency: str) -> Decimal:
    return (await accounts(world))[member, currency][0]


def test_an_order_locks_its_money_and_its_fills_and_cancel_settle_it(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control, (2, Side.SELL, "104", "3"))
            # Meets 104 (3) and 105 (2 of member 7), and rests with 1 at 106.
            taker = await proxy.placed(epoch, 1, Side.BUY, "106", "6")
            await caught_up(control)
            found = await accounts(world)
            paid = 3 * 104 + 2 * 105
            assert found[1, "usd"] == (DEPOSIT["usd"] - paid - 106, 106)
            assert found[1, "btc"] == (DEPOSIT["btc"] + 5 - Decimal("0.010"), 0)
            assert found[2, "usd"][0] == DEPOSIT["usd"] + 312 - Decimal("0.312")
            assert found[2, "btc"] == (DEPOSIT["btc"] - 3, 0)
            await conserved(world)
            await proxy.cancel(epoch, 1, [taker])
            await caught_up(control)
            assert (await accounts(world))[1, "usd"] == (DEPOSIT["usd"] - paid, 0)
            assert await reservations(world) == []
            await conserved(world)

    in_funded_world(work)


def test_what_rests_of_an_immediate_order_is_free_again(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            await proxy.placed(epoch, 1, Side.BUY, "105", "10", tif="ioc")
            await proxy.placed(epoch, 2, Side.SELL, "", "3.5")
            await proxy.placed(epoch, 3, Side.SELL, "1", "0.00000001", tif="ioc")
            await caught_up(control)
            assert (await accounts(world))[1, "usd"] == (DEPOSIT["usd"] - 210, 0)
            assert (await accounts(world))[2, "btc"] == (DEPOSIT["btc"] - 3, 0)
            await conserved(world)

    in_funded_world(work)


def test_an_account_that_cannot_pay_gets_the_monolith_s_refusal(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            replies = await proxy.place(
                epoch, 1, (Side.BUY, "100", "900"), (Side.BUY, "100", "101"), (Side.BUY, "90", "1")
            )
            assert [one.status for one in replies if isinstance(one, Reply)] == [201, 422, 201]
            body = b'{"errors":{"base":["insufficient funds"]}}'
            assert replies[1] == (422, body, Fate.REFUSED, 0)
            (market,) = await proxy.place(epoch, 1, (Side.BUY, "", "1"))
            assert told(market).status == 422
            assert b"can't be market for a buy order" in told(market).body
            await caught_up(control)
            await conserved(world)
            assert await reservations(world) == []

    in_funded_world(work)


def test_the_refusal_is_configured_and_a_check_constraint_refuses_too(
    in_funded_world: Callable[..., None],
) -> None:
    reserve = ACCOUNTS.reserve.removesuffix(" AND balance >= :amount")
    refusal = FundsRefusal(status=400, body='{"code":2002}')
    changed = msgspec.structs.replace(ACCOUNTS, reserve=reserve, refusal=refusal)
    mapping = msgspec.structs.replace(MAPPING, accounts=changed)

    async def work(world: World) -> None:
        async with world.control() as control, worker(world, mapping=mapping) as proxy:
            epoch = await flipped(world, control)
            replies = await proxy.place(epoch, 1, (Side.BUY, "1", "5"), (Side.SELL, "200", "9999"))
            assert [one.status for one in replies if isinstance(one, Reply)] == [201, 400]
            assert replies[1] == (400, b'{"code":2002}', Fate.REFUSED, 0)
            await caught_up(control)
            await conserved(world)

    in_funded_world(work, mapping)


def test_accounts_that_are_locked_cost_the_client_a_prompt_come_again(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            before = await accounts(world)
            async with await psycopg.AsyncConnection.connect(world.super_url) as other:
                await other.execute("UPDATE accounts SET balance = balance WHERE member_id = 1")
                (reply,) = await proxy.place(epoch, 1, (Side.BUY, "1", "5"))
                one = told(reply)
                assert (one.status, one.fate, one.retry_after_s) == (503, Fate.NOT_SENT, 1)

            async def is_free() -> bool:
                states = [state for _, state in await reservations(world)]
                return states == ["released"] and await accounts(world) == before

            await until(is_free, "what was tried is as if it had not been")
            await proxy.placed(epoch, 1, Side.BUY, "1", "5")
            await caught_up(control)
            await conserved(world)

    in_funded_world(work)


def test_what_the_engine_refuses_or_never_gets_is_free_again(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            before = await accounts(world)
            (behind,) = await proxy.place(epoch - 1, 1, (Side.BUY, "90", "1"))
            assert isinstance(behind, Behind)
            assert await accounts(world) == before  # at once: its client is still waiting
            async with worker(world, session="proxy-1", engine=AwayEngine()) as away:
                (reply,) = await away.place(epoch, 1, (Side.BUY, "90", "1"))
                assert told(reply).fate is Fate.NOT_SENT
                assert await accounts(world) == before
            kill = Command(kind=CommandKind.KILL_SWITCH, account=1, aux=1)
            await world.send("admin", Role.ADMIN, [kill])
            (refused,) = await proxy.place(epoch, 1, (Side.BUY, "90", "1"))
            assert told(refused).status == 403
            await caught_up(control)
            assert await accounts(world) == before
            await conserved(world)

    in_funded_world(work)


class Silent:
    """An engine that takes commands and answers with the original's outcome, or not at all."""

    def __init__(self, session: object, *, delivers: bool) -> None:
        self._session, self._delivers = session, delivers

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        if self._delivers:
            await self._session.send(commands, timeout_s=timeout_s)  # type: ignore[attr-defined]
        raise OutcomeUnknown("the wire was cut")


@pytest.mark.parametrize("delivers", [True, False])
def test_an_answer_that_was_lost_leaves_the_money_where_the_order_is(
    in_funded_world: Callable[..., None], delivers: bool
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            before = await accounts(world)
            proxy.live._engine = Silent(proxy.session, delivers=delivers)
            (reply,) = await proxy.place(epoch, 1, (Side.BUY, "90", "1"))
            assert told(reply).fate is Fate.UNKNOWN

            async def is_found_out() -> bool:
                return [one for one in await reservations(world) if one[1] == "reserved"] == []

            await until(is_found_out, "it is known what became of it")
            await caught_up(control)
            assert (await accounts(world) == before) is not delivers
            await conserved(world)

    in_funded_world(work)


_CHILD = """
import asyncio, sys
import msgspec
from funds_world import MAPPING, SCALES, LiveFunds
from engine.types import Command
async def main():
    url, name, command = sys.argv[1:]
    names = {"session": "proxy-0", "worker": name, "shard": 1}
    funds = LiveFunds(url, MAPPING.accounts, SCALES.values(), **names)
    one = msgspec.json.decode(command, type=Command)
    print(await funds.reserve([one]), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def killed_before_sending(world: World, command: Command, name: str) -> None:
    """A proxy worker reserves for the order, and is killed before it sends it."""
    tests = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CHILD,
        world.legacy_url,
        name,
        msgspec.json.encode(command).decode(),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"[None]\n"
    child.send_signal(signal.SIGKILL)
    await child.wait()


def test_a_worker_killed_before_it_sends_leaves_nothing_locked(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            epoch = await flipped(world, control)
            before = await accounts(world)
            ((order_id,),) = await world.rows("SELECT nextval('orders_id_seq')")
            order = new_order(order_id, Side.BUY, "90", "1", epoch=epoch, account=1)
            await killed_before_sending(world, order, "worker-1")
            assert await reservations(world) == [(order_id, "reserved")]
            assert (await accounts(world))[1, "usd"][1] == 90
            async with worker(world, name="worker-2") as proxy:
                mine = await proxy.placed(epoch, 2, Side.BUY, "90", "1")

                async def is_free() -> bool:
                    return order_id not in [one for one, _ in await reservations(world)]

                await until(is_free, "what the dead worker left is released")
                await caught_up(control)
                assert (await accounts(world))[1, "usd"] == before[1, "usd"]
                await proxy.cancel(epoch, 2, [mine])
                await caught_up(control)
                assert await accounts(world) == before
                await conserved(world)

    in_funded_world(work)


def test_a_new_epoch_frees_what_no_worker_came_back_for(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            epoch = await flipped(world, control)
            before = await accounts(world)
            ((order_id,),) = await world.rows("SELECT nextval('orders_id_seq')")
            order = new_order(order_id, Side.BUY, "90", "1", epoch=epoch, account=1)
            await killed_before_sending(world, order, "worker-1")
            await roll_back(control)
            await caught_up(control)
            assert await reservations(world) == []
            assert await accounts(world) == before
            # Whoever wakes up and sends it now is refused.
            (answer,) = await world.send("proxy-0", Role.TRADE, [order])
            assert answer.events[0].kind.name == "REJECTED"
            await conserved(world)

    in_funded_world(work)


def test_a_reservation_is_made_once_however_often_it_is_tried(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        one = Worker(world)
        orders = [
            new_order(n, Side.BUY, "10", "1", epoch=2, account=MEMBERS[n % 4])
            for n in range(900_001, 900_101)
        ]
        try:
            for _ in range(2):
                told = await asyncio.gather(*(one.funds.reserve([order]) for order in orders))
                assert told == [[None]] * len(orders)
            assert await one.funds.reserve(orders) == [None] * len(orders)
            found = await accounts(world)
            assert [found[member, "usd"][1] for member in MEMBERS] == [250] * 4
            await one.funds.give_back([order.order_id for order in orders])
            await one.funds.give_back([order.order_id for order in orders])
            found = await accounts(world)
            assert [found[member, "usd"] for member in MEMBERS] == [(DEPOSIT["usd"], 0)] * 4
        finally:
            await one.funds.close()

    in_funded_world(work)


def test_an_order_that_came_past_the_proxy_is_reserved_for_late_or_stops_the_write_back(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            epoch = await flipped(world, control)
            await world.live_order(epoch, Side.BUY, "90", "1", account=1)
            await caught_up(control)
            assert (await accounts(world))[1, "usd"][1] == 90
            await world.live_order(epoch, Side.BUY, "90", "5000", account=1)
            with pytest.raises(WriteBackStopped, match="entered without a reservation"):
                await caught_up(control)
            await world.rows("UPDATE accounts SET balance = 1000000 WHERE member_id = 1")

            async def is_written() -> bool:
                return (await accounts(world))[1, "usd"][1] == 90 + 450_000

            await until(is_written, "the write-back goes on once there is money")

    in_funded_world(work)


def test_a_statement_that_misses_an_account_stops_the_write_back_and_says_which(
    in_funded_world: Callable[..., None],
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            await world.rows("DELETE FROM accounts WHERE member_id = 1 AND currency = 'btc'")
            await proxy.placed(epoch, 1, Side.BUY, "105", "1")
            with pytest.raises(WriteBackStopped) as stopped:
                await caught_up(control)
            assert "mapping.accounts.settle changed 1 rows for order" in str(stopped.value)
            assert "must change 2: an account is missing" in str(stopped.value)
            assert await world.rows("SELECT FROM trades") == []

    in_funded_world(work)


def test_money_is_neither_made_nor_lost_by_anything_that_happens(
    in_funded_world: Callable[..., None],
) -> None:
    """Flips, trading, cancels, a proxy killed between reserving and sending, control gone in the
    middle of writing back, rollbacks.
    """

    async def work(world: World) -> None:
        chance = random.Random(20_261_201)
        epoch, fresh = 0, 0
        async with world.control() as control:
            extra = [
                (chance.choice(MEMBERS), Side.BUY, "98", "1.5"),
                (chance.choice(MEMBERS), Side.SELL, "103", "0.75"),
            ]
            epoch = await flipped(world, control, *extra)
        for _ in range(3):
            async with world.control() as control:  # a new control process each time
                fresh += 1
                async with worker(world, name=f"worker-{fresh}") as proxy:
                    await trade(chance, proxy, epoch, 60)
                ((order_id,),) = await world.rows("SELECT nextval('orders_id_seq')")
                member, side = chance.choice(MEMBERS), chance.choice((Side.BUY, Side.SELL))
                order = new_order(order_id, side, "100", "2", epoch=epoch, account=member)
                await killed_before_sending(world, order, f"killed-{fresh}")
        async with world.control() as control:
            await roll_back(control)
            await caught_up(control)
            await conserved(world)
            assert not [one for one in await reservations(world) if one[1] == "reserved"]
            await world.evidence()
            epoch = await flip(world, control)
            async with worker(world, name="last") as proxy:
                await trade(chance, proxy, epoch, 60)
            await caught_up(control)
            await conserved(world)
            trades = await world.rows("SELECT count(*) FROM trades")
            assert trades[0][0] > 30

    in_funded_world(work)


async def trade(chance: random.Random, proxy: Worker, epoch: int, orders: int) -> None:
    mine: list[tuple[int, int]] = []
    for _ in range(orders):
        account, side = chance.choice(MEMBERS), chance.choice((Side.BUY, Side.SELL))
        price = str(Decimal(chance.randrange(9_700, 10_300)) / 100)
        quantity = str(Decimal(chance.randrange(1, 300_000_000)).scaleb(-8))
        if side is Side.SELL and chance.random() < 0.1:
            price = ""
        values = {"tif": "ioc"} if price and chance.random() < 0.2 else {}
        (reply,) = await proxy.place(epoch, account, (side, price, quantity), **values)
        assert told(reply).status in (201, 422), reply
        if told(reply).status == HTTPStatus.CREATED:
            mine.append((account, order_id_in(told(reply))))
        if chance.random() < 0.3 and mine:
            owner, order_id = mine.pop(chance.randrange(len(mine)))
            await proxy.cancel(epoch, owner, [order_id])


def test_a_monolith_that_notes_in_the_order_what_it_has_locked_is_followed(
    in_funded_world: Callable[..., None],
) -> None:
    noted = msgspec.structs.replace(
        ACCOUNTS,
        opened="INSERT INTO holds (order_id, amount) VALUES (:order_id, :amount)",
        settle="WITH noted AS (UPDATE holds SET amount = amount - :paid"
        " WHERE order_id = :order_id) UPDATE accounts SET"
        " locked = locked - CASE currency WHEN :currency THEN :paid ELSE 0 END,"
        " balance = balance + CASE currency WHEN :currency THEN 0 ELSE :received END"
        " WHERE member_id = :account AND currency IN (:base, :quote)",
        release="WITH was AS (SELECT amount FROM holds WHERE order_id = :order_id FOR UPDATE),"
        " noted AS (UPDATE holds SET amount = 0 WHERE order_id = :order_id)"
        " UPDATE accounts SET balance = balance + amount, locked = locked - amount FROM was"
        " WHERE member_id = :account AND currency = :currency",
        release_filled=True,
        others=("revenues", "holds"),
    )

    async def work(world: World) -> None:
        async with world.control() as control, worker(world) as proxy:
            epoch = await flipped(world, control)
            await world.rows(
                "INSERT INTO holds SELECT id, CASE side WHEN 0 THEN price * remaining_quantity"
                " ELSE remaining_quantity END FROM orders WHERE state = 0"
            )
            await proxy.placed(epoch, 1, Side.BUY, "110", "1")  # at 105: 5 saved, free at the end
            resting = await proxy.placed(epoch, 1, Side.BUY, "106", "2")  # 1 at 105
            await caught_up(control)
            locked = (await accounts(world))[1, "usd"][1]
            assert locked == 2 * 106 - 105
            assert await world.rows("SELECT amount FROM holds WHERE order_id = %s", resting) == [
                (locked,)
            ]
            await proxy.cancel(epoch, 1, [resting])
            await caught_up(control)
            assert (await accounts(world))[1, "usd"] == (DEPOSIT["usd"] - 210, 0)

    in_funded_world(work, msgspec.structs.replace(MAPPING, accounts=noted))


def test_a_flip_is_refused_while_a_statement_would_fail(
    in_funded_world: Callable[..., None],
) -> None:
    broken = msgspec.structs.replace(ACCOUNTS, release="UPDATE acounts SET locked = :amount")

    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            with pytest.raises(NotNow) as refused:
                await control.switch.begin("BTC-USD", "flip", ACT)
            (reason,) = refused.value.reasons
            assert 'mapping.accounts.release: relation "acounts" does not exist' in reason

    in_funded_world(work, msgspec.structs.replace(MAPPING, accounts=broken))


def test_without_a_word_on_funds_the_gate_shows_what_orders_do_to_accounts(
    in_funded_world: Callable[..., None],
) -> None:
    silent = msgspec.structs.replace(CONFIG.mapping, funds="")

    async def work(world: World) -> None:
        await world.rows("GRANT SELECT ON accounts TO railswitch")
        async with world.control() as control:
            await shadowing(world, control)
            report = await control.switch.gate("BTC-USD")
            assert "nobody has said what orders lock" in report.statement
            async with await psycopg.AsyncConnection.connect(world.application_url) as monolith:
                await monolith.execute("UPDATE orders SET updated_at = now()")
                await monolith.execute("UPDATE accounts SET locked = locked WHERE member_id = 7")
            report = await control.switch.gate("BTC-USD")
            assert "orders change rows of accounts (seen 1 times): say" in report.statement

    in_funded_world(work, silent)


def test_uninstalling_leaves_no_trace_of_the_accounts(
    legacy_database: str,
) -> None:
    owner = as_role(legacy_database, "exchange")
    deposit(owner)

    def granted() -> list[tuple[object, ...]]:
        with psycopg.connect(legacy_database) as connection:
            return connection.execute(
                "SELECT relname, relacl::text FROM pg_class WHERE relacl::text LIKE '%railswitch%'"
            ).fetchall()

    asyncio.run(fence.install(owner, MAPPING, "railswitch", "railswitch"))
    assert {"accounts", "revenues", "revenues_id_seq"} <= {row[0] for row in granted()}
    asyncio.run(
        fence.uninstall(
            owner,
            MAPPING,
            "railswitch",
            "railswitch",
            url=as_role(legacy_database, "railswitch"),
            slot="railswitch",
        )
    )
    assert granted() == []
    with psycopg.connect(legacy_database) as connection:
        assert connection.execute("SELECT to_regnamespace('railswitch')").fetchone() == (None,)
