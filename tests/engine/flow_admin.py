"""What administrators and the gateway send, for the generator of commands (command_flow)."""

from __future__ import annotations

from collections.abc import Callable

from flow_state import CONTROL, PROXY, PROXY_2, READER, SECOND_NS, SHADOW, State

from engine.limits import U32_MAX, U64_MAX
from engine.market import InstrumentState
from engine.types import CommandKind, Mode, Role
from engine.wire import encode_command, instrument_command, session_command

NAMES = ("BTC-USD", "ETH-USD", "LTC-USD")


class Administration(State):
    def admin(self) -> bytes:
        makers = (
            (self._mode, 4),
            (self._clear, 2),
            (self._define, 4),
            (self._limits, 8),
            (self._band, 7),
            (self._trading, 7),
            (self._account_limits, 16),
            (self._kill, 9),
            (self._session, 3),
            (self._time, 20),
            (self._options, 4),
            (self._disconnected, 3),
            (self._wrong_role, 2),
            (self._refused_ref, 2),
        )
        return self.random.choices([m for m, _ in makers], [w for _, w in makers])[0]()

    def _number(self) -> int:
        return self.random.randint(1, self.mix.instruments)

    def _one_that(self, needs: Callable[[InstrumentState], bool]) -> int:
        """An instrument in need of the command, so that none is out of use for long; or any."""
        needy = [number for number, view in self.views.items() if needs(view.state)]
        return self.random.choice(needy) if needy else self._number()

    def _mode(self) -> bytes:
        number = self._one_that(lambda state: state.mode is Mode.CLOSED)
        view = self.views.get(number)
        epoch = (view.state.epoch if view else 0) + (self.random.random() < 0.8)
        mode = self.random.choices((Mode.LIVE, Mode.SHADOW, Mode.CLOSED), (60, 30, 10))[0]
        if view and view.state.mode is Mode.CLOSED:
            mode = Mode.LIVE
        return self.command(
            CommandKind.MODE, CONTROL, instrument=number, epoch=min(epoch, U32_MAX), aux=mode
        )

    def _clear(self) -> bytes:
        session = self.random.choice((CONTROL, SHADOW))
        return self.command(CommandKind.CLEAR, session, instrument=self._number())

    def definition(self, number: int, name: str) -> bytes:
        highest = self.random.choice((2_000, 10_000, 2**62))
        most = U64_MAX if self.mix.huge else self.random.choice((1_000, 10_000))
        named = instrument_command(
            instrument=number, name=name, price_ticks_max=highest, qty_lots_max=most
        )
        return self.command(
            CommandKind.INSTRUMENT,
            CONTROL,
            instrument=number,
            account=named.account,
            order_id=named.order_id,
            price_ticks=highest,
            qty_lots=most,
        )

    def _define(self) -> bytes:
        number = self._number()
        strange = self.random.random() < 0.2
        return self.definition(number, self.random.choice(NAMES) if strange else NAMES[number - 1])

    def _limits(self) -> bytes:
        choose = self.random.choice
        day_s = self.ts_ns // SECOND_NS % 86_400
        return self.command(
            CommandKind.INSTRUMENT_LIMITS,
            CONTROL,
            instrument=self._number(),
            account=choose((1, 1, 1, 2, 5)),
            order_id=choose((1, 1, 1, 2, 5)),
            price_ticks=choose((0, 0, self.middle * self.mix.qty_max, 2**62)),
            qty_lots=U64_MAX if self.mix.huge else choose((10_000, self.mix.qty_max * 3, 0)),
            aux=choose((0, 86_399, day_s, min(day_s + 2, 86_399))),
        )

    def _band(self) -> bytes:
        around = self.mix.width_ticks * self.random.choice((1, 2, 4, 30))
        lowest = max(self.middle - around, 1)
        highest = self.middle + around if self.random.random() < 0.95 else lowest - 1
        return self.command(
            CommandKind.PRICE_BAND,
            CONTROL,
            instrument=self._number(),
            price_ticks=highest,
            aux=lowest,
        )

    def _trading(self) -> bytes:
        number = self._one_that(lambda state: state.halted)
        view = self.views.get(number)
        halted = not (view and view.state.halted) and self.random.random() < 0.1
        return self.command(CommandKind.TRADING, CONTROL, instrument=number, aux=int(halted))

    def _account_limits(self) -> bytes:
        choose = self.random.choice
        return self.command(
            CommandKind.ACCOUNT_LIMITS,
            CONTROL,
            account=self.account() if self.random.random() < 0.8 else self.random.randint(50, 60),
            order_id=choose((0, 0, 0, 4, 20)),
            price_ticks=choose((0, 0, 0, 0, 0, 2, 20)),
            qty_lots=choose((0, 0, 0, self.mix.qty_max * 2, self.mix.qty_max * 9)),
            aux=choose((0, 1, 1, 2)),
        )

    def _kill(self) -> bytes:
        account = self.account()
        if self.killed and self.random.random() < 0.6:
            account = self.random.choice(self.killed)
        killed = account not in self.killed and self.random.random() < 0.15
        return self.command(CommandKind.KILL_SWITCH, CONTROL, account=account, aux=int(killed))

    def _session(self) -> bytes:
        number = self.random.randint(1, 12)
        name = f"session-{self.random.choice((number, number, 1))}"
        role = self.random.choice(list(Role))
        return encode_command(session_command(session=number, name=name, role=role))

    def _time(self) -> bytes:
        return self.command(CommandKind.TIME, 0)

    def _options(self) -> bytes:
        session = self.random.choice((PROXY, PROXY_2, PROXY, SHADOW, 30))
        return self.command(CommandKind.SESSION_OPTIONS, session, aux=self.random.choice((0, 1, 1)))

    def _disconnected(self) -> bytes:
        return self.command(
            CommandKind.DISCONNECTED, self.random.choice((PROXY_2, PROXY_2, PROXY, SHADOW, 30))
        )

    def _wrong_role(self) -> bytes:
        kind = self.random.choice(list(CommandKind))
        session = self.random.choice((PROXY, SHADOW, READER))
        return self.command(
            kind, session, instrument=self._number(), aux=self.random.choice((0, 1))
        )

    def _refused_ref(self) -> bytes:
        """An order under a reference that its session has used already."""
        command = bytearray(self._limit())
        session = int.from_bytes(command[6:8], "little")
        command[16:24] = self.random.randint(0, self.refs.get(session, 0)).to_bytes(8, "little")
        return bytes(command)
