"""What the generator of commands (command_flow) knows while it works: what it was asked for, the
market as it is, references, time.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from engine.limits import U64_MAX
from engine.market import InstrumentState, Market
from engine.types import CommandKind, Mode
from engine.wire import decode_order_states, decode_resting_orders

CONTROL, PROXY, SHADOW, READER, PROXY_2 = 1, 2, 3, 4, 5
ROLES = {CONTROL: 3, PROXY: 1, SHADOW: 2, READER: 4, PROXY_2: 1}
SECOND_NS = 10**9
_PACK = struct.Struct("<BBBBBBHIIQQQqQQ").pack
_WITHOUT_REF = frozenset(
    {
        CommandKind.SESSION,
        CommandKind.TIME,
        CommandKind.SESSION_OPTIONS,
        CommandKind.DISCONNECTED,
    }
)


@dataclass(frozen=True)
class Mix:
    """What one flow of commands is like. The shares are of 100."""

    seed: int = 0
    instruments: int = 2
    accounts: int = 4
    width_ticks: int = 8  # prices lie within so much of the middle
    qty_max: int = 20
    ids: int = 500  # that orders choose from: few make duplicates
    takers: int = 14
    stops: int = 14
    cancels: int = 7
    changes: int = 9  # reduce, replace
    mass: int = 0
    admin: int = 6
    broken: int = 4
    plain: int = 0  # of the batches: under rules 1
    huge: int = 0  # quantities at the edge of their field
    start_s: int = 1_800_000_000
    step_ms: int = 100  # between batches, mostly
    bounded: bool = False


@dataclass
class View:
    """What is known of an instrument: as the market said before the batch."""

    state: InstrumentState
    orders: list[tuple[int, int, int, int]]  # id, account, price, leaves; stops among them
    stops: list[tuple[int, int, int, int]] = field(default_factory=list)


class State:
    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.random = random.Random(mix.seed)
        self.refs = dict.fromkeys(ROLES, 0)
        self.ts_ns = mix.start_s * SECOND_NS
        self.middle = 1_000
        self.views: dict[int, View] = {}
        self.killed: list[int] = []

    def later(self) -> int:
        step_ms = self.mix.step_ms
        steps = (0, -step_ms, step_ms, step_ms, step_ms, 1_000, 20_000, 3_600_000, 86_400_000)
        weights = (2, 1, 20, 20, 20, 6, 3, 1, 1)
        step_ns = self.random.choices(steps, weights)[0] * 1_000_000
        return min(max(self.ts_ns + step_ns, 0), U64_MAX)

    def look(self, market: Market) -> None:
        self.views = {}
        self.killed = [each.account for each in market.accounts() if each.killed]
        for state in market.instruments():
            resting = list(decode_resting_orders(market.orders(state.instrument)))
            stops = list(decode_order_states(market.stops(state.instrument)))
            orders = [(o.order_id, o.account, o.price_ticks, o.leaves_lots) for o in resting]
            waiting = [(o.order_id, o.account, o.price_ticks, o.leaves_lots) for o in stops]
            self.views[state.instrument] = View(state, orders + waiting, waiting)

    def command(self, kind: int, session: int, **fields: int) -> bytes:
        """With the session's next reference."""
        ref = 0
        if kind not in _WITHOUT_REF:
            self.refs[session] = ref = self.refs[session] + 1
        get = fields.get
        return _PACK(
            kind,
            get("side", 0),
            get("ord_type", 0),
            get("tif", 0),
            get("flags", 0),
            get("stp", 0),
            session,
            get("instrument", 0),
            get("epoch", 0),
            ref,
            get("account", 0),
            get("order_id", 0),
            get("price_ticks", 0),
            get("qty_lots", 0),
            get("aux", 0),
        )

    def place(self) -> tuple[int, int, dict[str, int]]:
        """An instrument, a session that may trade on it, and what addresses it."""
        choose = self.random.random
        number = 1 + int(self.mix.instruments * choose() ** 2)
        view = self.views.get(number)
        if choose() < 0.005:
            return 99, PROXY, {"instrument": 99, "epoch": 1}
        mode = view.state.mode if view else Mode.CLOSED
        session = SHADOW if mode is Mode.SHADOW else PROXY if choose() < 0.8 else PROXY_2
        if choose() < 0.01:
            session = self.random.choice((PROXY, SHADOW, READER, CONTROL))
        epoch = view.state.epoch if view else 1
        if choose() < 0.01:
            epoch = max(epoch - 1, 0)
        return number, session, {"instrument": number, "epoch": epoch}

    def account(self) -> int:
        return 1 + int(self.mix.accounts * self.random.random())
