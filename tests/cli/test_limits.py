"""`railswitch limits` on a running engine: dry run by default, and what was set is what holds."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from running_cli import Ran, argv, environment, railswitch, write_config

from bridge import app
from bridge.cli.exits import Exit
from bridge.config import Config, load
from engine.client import Answer
from engine.reject import Reason
from engine.types import Command, CommandKind, EventKind, Mode, OrderType, Role, Side, TimeInForce
from engine.wire import instrument_command
from shadow.legacy.convert import scales


class Engine:
    """A running `railswitch engine` with BTC-USD live at epoch 1."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.config: Config = load(file)

    def cli(self, *words: str) -> Ran:
        return railswitch("limits", *words, "--config", str(self.file))

    def shown(self, *words: str) -> Any:
        ran = self.cli(*words, "--json")
        assert ran.code == Exit.DONE, ran.err
        return ran.json

    def btc(self) -> dict[str, Any]:
        (one,) = self.shown("BTC-USD")
        return dict(one)

    def send(self, role: Role, *commands: Command) -> list[Answer]:
        async def sent() -> list[Answer]:
            client = app.engine_client(self.config, name=f"test-{role.name.lower()}", role=role)
            try:
                await client.start()
                return await client.send(commands, timeout_s=10.0)
            finally:
                await client.close()

        return asyncio.run(sent())

    def place(self, order_id: int, price_ticks: int = 10_000, account: int = 42) -> Reason:
        order = Command(
            kind=CommandKind.NEW,
            side=Side.BUY,
            ord_type=OrderType.LIMIT,
            tif=TimeInForce.GTC,
            instrument=1,
            epoch=1,
            account=account,
            order_id=order_id,
            price_ticks=price_ticks,
            qty_lots=10,
        )
        (answer,) = self.send(Role.TRADE, order)
        first = answer.events[0]
        return first.reason if first.kind is EventKind.REJECTED else Reason.NONE


def _opening(config: Config) -> Sequence[Command]:
    btc = scales(config.instruments)["BTC-USD"]
    return (
        instrument_command(
            instrument=btc.instrument,
            name=btc.symbol,
            price_ticks_max=btc.price_ticks_max,
            qty_lots_max=btc.qty_lots_max,
        ),
        Command(kind=CommandKind.MODE, instrument=btc.instrument, epoch=1, aux=Mode.LIVE),
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(write_config(tmp_path_factory.mktemp("limits")))
    with subprocess.Popen(
        argv("engine", "--config", str(made.file)), env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while made.cli().code != Exit.DONE:
                assert process.poll() is None
                assert time.monotonic() < deadline, "the engine does not answer"
            made.send(Role.ADMIN, *_opening(made.config))
            yield made
        finally:
            process.terminate()


def test_without_execute_nothing_changes(engine: Engine) -> None:
    before = engine.btc()
    ran = engine.cli("BTC-USD", "--halt", "--band", "1", "2")
    assert ran.code == Exit.DONE
    assert "would: halt BTC-USD" in ran.out
    assert "Nothing was changed" in ran.out
    assert engine.btc() == before


def test_a_halted_instrument_takes_no_orders_until_it_is_opened(engine: Engine) -> None:
    assert engine.cli("BTC-USD", "--halt", "--execute").code == Exit.DONE
    assert engine.btc()["halted"] is True
    assert engine.place(1) is Reason.INSTRUMENT_HALTED
    assert engine.cli("BTC-USD", "--open", "--execute").code == Exit.DONE
    assert engine.place(1) is Reason.NONE


def test_a_band_comes_in_prices_and_holds_in_ticks(engine: Engine) -> None:
    assert engine.cli("BTC-USD", "--band", "90.00", "110.00", "--execute").code == Exit.DONE
    btc = engine.btc()
    assert (btc["price_ticks_min"], btc["price_ticks_max"]) == (9_000, 11_000)
    assert engine.place(2, price_ticks=8_999) is Reason.PRICE_TOO_LOW
    assert engine.place(2, price_ticks=11_001) is Reason.PRICE_TOO_HIGH


def test_what_is_not_named_stays_as_it_is(engine: Engine) -> None:
    before = engine.btc()
    assert engine.cli("BTC-USD", "--day-end", "22:30", "--execute").code == Exit.DONE
    assert engine.btc() == before | {"day_end_s": 22 * 3600 + 30 * 60}


def test_a_killed_account_loses_its_orders_and_places_none(engine: Engine) -> None:
    assert engine.place(3, account=43) is Reason.NONE
    ran = engine.cli("--account", "43", "--kill", "--cancel-orders", "--execute", "--json")
    assert ran.code == Exit.DONE
    assert [one.get("orders") for one in ran.json["done"]] == [None, 1]
    assert engine.place(4, account=43) is Reason.ACCOUNT_KILLED
    shown = engine.shown("--account", "43")
    assert (shown["killed"], shown["open_orders"]) == (True, 0)
    assert engine.cli("--account", "43", "--release", "--execute").code == Exit.DONE
    assert engine.place(4, account=43) is Reason.NONE


def test_a_kill_switch_alone_says_what_stays_open(engine: Engine) -> None:
    for order_id in (20, 21):
        assert engine.place(order_id, account=45) is Reason.NONE
    stays = "stay open: 2 orders and pending stops; --cancel-orders cancels them"
    dry = engine.cli("--account", "45", "--kill")
    assert (dry.code, stays in dry.out) == (Exit.DONE, True)
    assert engine.shown("--account", "45")["killed"] is False
    done = engine.cli("--account", "45", "--kill", "--execute")
    assert (done.code, stays in done.out) == (Exit.DONE, True)
    shown = engine.shown("--account", "45")
    assert (shown["killed"], shown["open_orders"]) == (True, 2)
    assert engine.shown("--account", "45", "--kill", "--execute")["left_open"] == 2
    assert "stay open" not in engine.cli("--account", "45", "--kill", "--cancel-orders").out


def test_shadow_sets_the_largest_price_and_quantity_of_the_configuration_again(
    engine: Engine,
) -> None:
    """As the help says; what else was set holds."""
    narrowed = ("BTC-USD", "--band", "95", "105", "--quantity-max", "1", "--tick", "0.05")
    assert engine.cli(*narrowed, "--execute").code == Exit.DONE
    define, _ = _opening(engine.config)
    engine.send(Role.ADMIN, define)
    btc, scale = engine.btc(), scales(engine.config.instruments)["BTC-USD"]
    assert (btc["price_ticks_max"], btc["qty_lots_max"]) == (
        scale.price_ticks_max,
        scale.qty_lots_max,
    )
    assert (btc["price_ticks_min"], btc["tick_ticks"]) == (9_500, 5)
    assert engine.cli("BTC-USD", "--band", "90", "110", "--tick", "0.01", "--execute").code == 0


def test_limits_of_an_account_are_changed_one_by_one(engine: Engine) -> None:
    assert engine.cli("--account", "44", "--open-orders", "1", "--execute").code == Exit.DONE
    assert engine.cli("--account", "44", "--open-quantity", "500", "--execute").code == Exit.DONE
    shown = engine.shown("--account", "44")
    assert (shown["open_orders_max"], shown["open_qty_max"]) == (1, 500)
    assert engine.place(5, account=44) is Reason.NONE
    assert engine.place(6, account=44) is Reason.ACCOUNT_OPEN_ORDERS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--halt",), "which instrument?"),
        (("--kill",), "which account?"),
        (("BTC-USD", "--account", "42"), "not both at once"),
        (("BTC-USD", "--band", "90.001", "100"), "not a multiple of the tick"),
        (("BTC-USD", "--band", "100", "90"), "holds no price"),
        (("BTC-USD", "--lot", "0"), "would refuse everything"),
        (("BTC-USD", "--day-end", "24:00"), "is no time of day"),
        (("BTC-USD", "--notional-max", "much"), "no amount of money"),
        (("BTC-USD", "--halt", "--open"), "not allowed with"),
        (("DOGE-USD", "--halt"), "no configured instrument"),
        (("--account", "42", "--rate", "-1"), "out of range"),
        (("--cancel-orders",), "whose orders?"),
    ],
)
def test_a_wish_that_can_t_be_meant_is_refused(
    engine: Engine, words: tuple[str, ...], said: str
) -> None:
    ran = engine.cli(*words, "--execute")
    assert ran.code == Exit.USAGE
    assert said in ran.err


def test_an_instrument_that_the_engine_does_not_know_names_the_next_step(engine: Engine) -> None:
    ran = engine.cli("ETH-USD", "--halt", "--execute")
    assert ran.code == Exit.USAGE
    assert "railswitch stage ETH-USD shadow --execute" in ran.err


def test_no_engine_is_said(tmp_path: Path) -> None:
    ran = railswitch("limits", "--config", str(write_config(tmp_path)))
    assert ran.code == Exit.UNREACHABLE
    assert "Is it running?" in ran.err
