"""Commands by the thousand: a seeded generator that looks at the market which it feeds, so that
books grow, stops go off, icebergs refill and limits bite; every order type, mode, flag, limit and
kind of command, and nonsense among them.

`Mix` holds what a test draws: the same mix makes the same commands for as long as the market
answers the same.
"""

from __future__ import annotations

import struct
from itertools import accumulate

from flow_admin import NAMES, Administration
from flow_orders import Orders
from flow_state import CONTROL, ROLES, Mix

from engine.market import Market
from engine.types import CommandKind, Mode, OrderType
from engine.wire import COMMAND_DTYPE, encode_command, session_command

__all__ = ["BOUNDS", "Flow", "Mix"]

_COMMAND = struct.Struct("<BBBBBBHIIQQQqQQ")

BOUNDS = {
    "open_orders_per_book_max": 40,
    "open_orders_max": 60,
    "levels_per_side_max": 6,
    "stops_per_book_max": 3,
    "icebergs_per_book_max": 3,
    "accounts_max": 4,
    "mass_cancel_max": 5,
}


class Flow(Orders, Administration):
    """Call `batch` with the market as it has become by the last one."""

    def __init__(self, mix: Mix) -> None:
        super().__init__(mix)
        shares = (mix.admin, mix.mass, mix.cancels, mix.changes, mix.takers, mix.stops)
        self._makers = (
            self.admin,
            self._mass,
            self._cancel,
            self._change,
            self._taker,
            self._stop,
            self._limit,
        )
        self._shares = list(accumulate((*shares, max(100 - sum(shares), 1))))

    def opening(self) -> bytes:
        """Sessions of every role, and instruments, the first of them live."""
        commands = [
            encode_command(session_command(session=number, name=f"session-{number}", role=role))
            for number, role in ROLES.items()
        ]
        for number in range(1, self.mix.instruments + 1):
            commands.append(self.definition(number, NAMES[number - 1]))
            mode = Mode.SHADOW if number == 2 else Mode.LIVE
            commands.append(
                self.command(CommandKind.MODE, CONTROL, instrument=number, epoch=1, aux=mode)
            )
        return b"".join(commands)

    def batch(self, market: Market, count: int) -> tuple[bytes, int, int]:
        """Commands, when they happen, and the rules that they were sequenced under."""
        rules = 1 if self.random.random() * 100 < self.mix.plain else 2
        self.ts_ns = self.later()
        self.look(market)
        commands = b"".join(self._next(rules) for _ in range(count))
        return commands, self.ts_ns, rules

    # --- one command

    def _next(self, rules: int) -> bytes:
        make = self.random.choices(self._makers, cum_weights=self._shares)[0]
        if rules == 1 and make in (self._stop, self._change) and self.random.random() < 0.8:
            make = self._limit
        command = make()
        if rules == 1 and command[0] == CommandKind.NEW and self.random.random() < 0.95:
            command = self._as_it_was(command)
        if self.random.random() * 100 < self.mix.broken:
            return self._broken(command)
        return command

    def _as_it_was(self, command: bytes) -> bytes:
        """A new order as rules 1 knew them."""
        changed = bytearray(command)
        changed[2] = self.random.choices((2, 1), (9, 1))[0]
        changed[3] = 3 if changed[2] == OrderType.MARKET else self.random.choice((1, 1, 3))
        changed[4] = changed[5] = 0
        changed[56:64] = bytes(8)
        if changed[2] == OrderType.MARKET:
            changed[40:48] = bytes(8)
        elif changed[40:48] == bytes(8):
            changed[40:48] = self.middle.to_bytes(8, "little")
        return bytes(changed)

    def _broken(self, command: bytes) -> bytes:
        """With one to three fields at an edge; now and then nothing but noise."""
        if self.random.random() < 0.05:
            return self._noise()
        fields = dict(zip(COMMAND_DTYPE.names or (), _COMMAND.unpack(command), strict=True))
        for name in self.random.sample(sorted(fields), self.random.choice((1, 1, 2, 3))):
            fields[name] = self.random.choice(_EDGES[name])
        return _COMMAND.pack(*fields.values())

    def _noise(self) -> bytes:
        noise = bytearray(self.random.randbytes(64))
        noise[0] = self.random.choice((*range(10), *range(15, 30), noise[0]))
        # A session with a high reference would be silent from then on.
        noise[6:8] = self.random.choice((0, *ROLES, 300)).to_bytes(2, "little")
        noise[16:24] = self.random.randint(0, 3).to_bytes(8, "little")
        return bytes(noise)


def _edges(name: str, width: str) -> list[int]:
    if name == "ref":
        return [0, 1]
    if name == "session":
        return [0, 3_000, 65_535]  # another's reference under it would silence one of the others
    if name == "epoch":
        return [0, 1, 2]  # the last epoch has no next one: its instrument's mode could not change
    bits, signed = 8 * int(width[-1]), "i" in width
    top = 1 << (bits - signed)
    return [0, 1, 2, 3, 5, top - 1, top // 2, *([-1, -top] if signed else [])]


_EDGES = {name: _edges(name, kind[0].str) for name, kind in (COMMAND_DTYPE.fields or {}).items()}
