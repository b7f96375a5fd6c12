"""The reference market and the Rust core agree, event for event and snapshot for snapshot.

Hypothesis makes batches of commands that are mostly sensible, and then puts edges and nonsense into
their fields; small, so that what it finds is small. Long flows: test_market_flows.
"""

from __future__ import annotations

from collections import Counter

from flow_orders import EVERY_ORDER
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from market_driver import BTC, CONTROL, ETH, PROXY, SHADOW, clear, define, opened, set_mode
from market_pair import Batch, Pair

from engine.errors import SnapshotUnreadable
from engine.limits import U32_MAX
from engine.market import restore_market
from engine.types import (
    Command,
    CommandKind,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    Role,
    TimeInForce,
)
from engine.wire import (
    COMMAND_DTYPE,
    account_limits_command,
    encode_command,
    instrument_limits_command,
    kill_switch_command,
    pack_new_aux,
    price_band_command,
    session_command,
    trading_command,
)

_WIDTHS = {
    name: (8 * kind.itemsize, kind.kind == "i")
    for name, (kind, _) in (COMMAND_DTYPE.fields or {}).items()
}
_START_S = 1_800_000_000
_GATEWAYS = (
    CommandKind.SESSION,
    CommandKind.TIME,
    CommandKind.SESSION_OPTIONS,
    CommandKind.DISCONNECTED,
)


def _edges(name: str) -> list[int]:
    if name == "ref":
        return [0, 1]  # a higher one would silence its session for the rest of the example
    bits, signed = _WIDTHS[name]
    top = 2 ** (bits - signed)
    return [0, 1, top - 1, top // 2, *([-1, -top] if signed else [])]


_ids = st.integers(1, 8)
_prices = st.integers(1, 6)
_quantities = st.integers(1, 5)
_accounts = st.sampled_from([7, 8])
_sides = st.sampled_from([1, 2])
_instruments = st.sampled_from([BTC, BTC, BTC, ETH])
_WHO_MAY = 60_000  # stands for the session that the instrument's mode lets in
_traders = st.sampled_from([*[_WHO_MAY] * 8, PROXY, SHADOW])

# Stand for the instrument's epoch when the batch is sent, and the one after it.
_NOW, _NEXT = 1_000_000, 1_000_001
_epochs = st.sampled_from([*[_NOW] * 8, _NEXT, 0])
_addressed = {"session": _traders, "instrument": _instruments, "epoch": _epochs}


@st.composite
def _new(draw: st.DrawFn, kinds: tuple[tuple[int, int, int], ...] = EVERY_ORDER) -> Command:
    ord_type, tif, flags = draw(st.sampled_from(kinds))
    if ord_type in (OrderType.STOP, OrderType.STOP_LIMIT):
        aux = draw(_prices)
    else:
        part = draw(_quantities) if flags & (OrderFlag.DISPLAY | OrderFlag.MIN_QTY) else 0
        lasts_s = draw(st.integers(0, 5)) if tif == TimeInForce.GTD else None
        aux = pack_new_aux(part_lots=part, expiry_s=0 if lasts_s is None else _START_S + lasts_s)
    priced = ord_type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
    return Command(
        kind=CommandKind.NEW,
        side=draw(_sides),
        ord_type=ord_type,
        tif=tif,
        flags=flags,
        stp=draw(st.integers(0, 4)),
        account=draw(_accounts),
        order_id=draw(_ids),
        price_ticks=draw(_prices) if priced else 0,
        qty_lots=draw(_quantities),
        aux=aux,
        **{name: draw(choice) for name, choice in _addressed.items()},
    )


_plain = ((2, 1, 0), (2, 1, 0), (2, 3, 0))  # limit, until canceled or at once
_news = st.one_of(_new(), _new(), _new(_plain))
_cancels = st.builds(
    Command, kind=st.just(CommandKind.CANCEL), account=_accounts, order_id=_ids, **_addressed
)
_reductions = st.builds(
    Command,
    kind=st.just(CommandKind.REDUCE),
    account=_accounts,
    order_id=_ids,
    qty_lots=st.integers(0, 4),
    **_addressed,
)
_replacements = st.builds(
    Command,
    kind=st.just(CommandKind.REPLACE),
    account=_accounts,
    order_id=_ids,
    price_ticks=st.integers(0, 6),
    qty_lots=_quantities,
    aux=_ids,
    **_addressed,
)


@st.composite
def _mass_cancel(draw: st.DrawFn) -> Command:
    scope = draw(st.sampled_from(list(MassCancelScope)))
    every = draw(st.booleans())
    place = {} if every else {name: draw(_addressed[name]) for name in ("instrument", "epoch")}
    return Command(
        kind=CommandKind.MASS_CANCEL,
        side=draw(st.integers(0, 2)),
        flags=int(every),
        session=draw(st.sampled_from([_WHO_MAY, CONTROL, PROXY])),
        account=draw(_accounts) if scope is MassCancelScope.ACCOUNT else 0,
        aux=scope,
        **place,
    )


_modes = st.builds(
    Command,
    kind=st.just(CommandKind.MODE),
    session=st.just(1),
    instrument=_instruments,
    epoch=st.sampled_from([_NOW, _NEXT, _NEXT]),
    aux=st.sampled_from([Mode.CLOSED, Mode.SHADOW, Mode.LIVE, Mode.LIVE]),
)
_clears = st.builds(clear, session=st.sampled_from([CONTROL, SHADOW]), instrument=_instruments)
_definitions = st.builds(
    define,
    instrument=st.sampled_from([BTC, ETH, 3]),
    name=st.sampled_from(["BTC-USD", "ETH-USD", "LTC-USD"]),
    price_ticks_max=_prices,
    qty_lots_max=_quantities,
)
_limits = st.one_of(
    st.builds(
        instrument_limits_command,
        instrument=_instruments,
        tick_ticks=st.integers(0, 2),
        lot_lots=st.integers(0, 2),
        qty_lots_max=st.integers(0, 5),
        notional_max=st.sampled_from([0, 0, 1, 12]),
        day_end_s=st.sampled_from([0, _START_S % 86_400 + 1, 86_399, 86_400]),
    ),
    st.builds(
        price_band_command,
        instrument=_instruments,
        price_ticks_min=st.integers(0, 3),
        price_ticks_max=_prices,
    ),
    st.builds(trading_command, instrument=_instruments, halted=st.booleans()),
    st.builds(
        account_limits_command,
        account=_accounts,
        open_orders_max=st.integers(0, 3),
        open_qty_max=st.sampled_from([0, 0, 5, 8]),
        rate_max=st.integers(0, 3),
        group=st.integers(0, 2),
    ),
    st.builds(kill_switch_command, account=_accounts, killed=st.booleans()),
).map(lambda command: _by(command, CONTROL))
_sessions = st.builds(
    session_command,
    session=st.integers(1, 6),
    name=st.sampled_from(["control", "proxy-0", "proxy-1", "late"]),
    role=st.sampled_from(list(Role)),
)
_gateways = st.one_of(
    _sessions,
    st.just(Command(kind=CommandKind.TIME)),
    st.builds(
        Command,
        kind=st.just(CommandKind.SESSION_OPTIONS),
        session=st.integers(1, 4),
        aux=st.integers(0, 2),
    ),
    st.builds(Command, kind=st.just(CommandKind.DISCONNECTED), session=st.integers(1, 4)),
)
_changes = st.one_of(_cancels, _reductions, _replacements, _replacements)


def _by(command: Command, session: int) -> Command:
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return Command(**fields | {"session": session})


@st.composite
def _broken(draw: st.DrawFn) -> Command:
    """A sensible command with one to three fields at an edge."""
    command = draw(
        st.one_of(_news, _changes, _mass_cancel(), _modes, _definitions, _limits, _gateways)
    )
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        fields[name] = draw(st.sampled_from(_edges(name)))
    return Command(**fields)


# Long stretches of orders, so that books grow and queues form; the rest in between.
_trading = st.lists(st.one_of(*[_news] * 6, *[_changes] * 2), min_size=10, max_size=40)
_anything = st.lists(
    st.one_of(
        *[_news] * 4,
        _changes,
        _mass_cancel(),
        _modes,
        _clears,
        _definitions,
        _limits,
        _limits,
        _gateways,
        _gateways,
        _broken(),
    ),
    min_size=4,
    max_size=16,
)
_bounds = st.sampled_from(
    [
        None,
        {"open_orders_per_book_max": 4, "open_orders_max": 6},
        {"open_orders_per_book_max": 1, "open_orders_max": 1},
        {"levels_per_side_max": 2, "stops_per_book_max": 2, "icebergs_per_book_max": 1},
        {"accounts_max": 1, "mass_cancel_max": 2},
    ]
)


class MarketsAgree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.refs: Counter[int] = Counter()
        self.ts_ns = _START_S * 10**9
        self.pair: Pair | None = None

    @initialize(bounds=_bounds)
    def open(self, bounds: dict[str, int] | None) -> None:
        self.pair = Pair(bounds)
        for market in self.pair.markets:
            driver = opened(market)
            driver.send(set_mode(Mode.SHADOW, 1, instrument=ETH))
            self.refs = Counter(driver.refs)

    @rule(commands=_trading)
    def trade(self, commands: list[Command]) -> None:
        self.apply(b"".join(map(self.addressed, commands)))

    @rule(commands=_anything)
    def apply_anything(self, commands: list[Command]) -> None:
        self.apply(b"".join(map(self.addressed, commands)))

    @rule(commands=_trading)
    def apply_under_the_old_rules(self, commands: list[Command]) -> None:
        self.apply(b"".join(map(self.addressed, commands)), rules=1)

    @rule(command=_broken(), times=st.integers(1, 3))
    def send_again(self, command: Command, times: int) -> None:
        """The same reference several times."""
        self.apply(self.addressed(command) * times)

    @rule(records=st.binary(min_size=0, max_size=3 * 64).map(lambda raw: raw[: len(raw) & -64]))
    def apply_bytes(self, records: bytes) -> None:
        self.apply(records)

    @rule(seconds=st.sampled_from([1, 1, 2, 86_400]))
    def wait(self, seconds: int) -> None:
        self.ts_ns += seconds * 10**9

    @rule()
    def swap_states(self) -> None:
        """Each goes on from the other's snapshot."""
        assert self.pair is not None
        self.pair.swap()

    @rule(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
    def damage_a_snapshot(self, at: float, byte: int) -> None:
        """Both refuse it, or it is the snapshot of some other market, to both."""
        assert self.pair is not None
        damaged = bytearray(self.pair.rust.snapshot())
        damaged[int(at * len(damaged))] = byte
        outcomes = [self.restored(implementation, damaged) for implementation in ("python", "rust")]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0] in (None, bytes(damaged))

    @invariant()
    def agree(self) -> None:
        if self.pair is not None:
            self.pair.compare()

    def addressed(self, command: Command) -> bytes:
        """With the instrument's epoch, a session, and its next reference unless it brings one."""
        assert self.pair is not None
        fields = {name: getattr(command, name) for name in command.__struct_fields__}
        state = {each.instrument: each for each in self.pair.rust.instruments()}
        instrument = state.get(command.instrument)
        if command.epoch in (_NOW, _NEXT):
            epoch = command.epoch - _NOW + (instrument.epoch if instrument else 0)
            fields["epoch"] = min(epoch, U32_MAX)  # the last epoch has no next one
        if command.session == _WHO_MAY:
            shadowed = instrument is not None and instrument.mode is Mode.SHADOW
            fields["session"] = SHADOW if shadowed else PROXY
        if command.ref == 0 and command.kind not in _GATEWAYS:
            self.refs[fields["session"]] += 1
            fields["ref"] = self.refs[fields["session"]]
        return encode_command(Command(**fields))

    def apply(self, data: bytes, rules: int = 2) -> None:
        assert self.pair is not None
        self.ts_ns += 1_000_000
        self.pair.apply(Batch(data, self.ts_ns, rules))

    @staticmethod
    def restored(implementation: str, snapshot: bytes | bytearray) -> bytes | None:
        try:
            market = restore_market(implementation, bytes(snapshot))
        except SnapshotUnreadable:
            return None
        market.check()
        return market.snapshot()


TestMarketsAgree = MarketsAgree.TestCase
