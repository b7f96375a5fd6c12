"""The reference market and the Rust core agree, event for event and snapshot for snapshot.

Hypothesis makes batches of commands that are mostly sensible, and then puts edges and nonsense into
their fields.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from market_driver import (
    BTC,
    CONTROL,
    ETH,
    PROXY,
    SELL,
    SHADOW,
    bounded_market,
    cancel,
    clear,
    define,
    ioc,
    market_or_skip,
    market_order,
    new,
    opened,
    set_mode,
)

from engine.errors import SnapshotUnreadable
from engine.limits import U32_MAX
from engine.market import InstrumentState, Market, restore_market
from engine.reject import Reason
from engine.types import Command, CommandKind, EventKind, Mode, OrderType, Role, TimeInForce
from engine.wire import (
    COMMAND_DTYPE,
    decode_events,
    encode_command,
    encode_commands,
    session_command,
)

_WIDTHS = {
    name: (8 * kind.itemsize, kind.kind == "i")
    for name, (kind, _) in (COMMAND_DTYPE.fields or {}).items()
}


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
_instruments = st.sampled_from([BTC, BTC, BTC, ETH])
_WHO_MAY = 60_000  # stands for the session that the instrument's mode lets in
_traders = st.sampled_from([*[_WHO_MAY] * 8, PROXY, SHADOW])

# Stand for the instrument's epoch when the batch is sent, and the one after it.
_NOW, _NEXT = 1_000_000, 1_000_001
_epochs = st.sampled_from([*[_NOW] * 8, _NEXT, 0])

_news = st.builds(
    Command,
    kind=st.just(CommandKind.NEW),
    side=st.sampled_from([1, 2]),
    ord_type=st.just(OrderType.LIMIT),
    tif=st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC]),
    session=_traders,
    instrument=_instruments,
    epoch=_epochs,
    account=_accounts,
    order_id=_ids,
    price_ticks=_prices,
    qty_lots=_quantities,
)
_market_orders = st.builds(
    Command,
    kind=st.just(CommandKind.NEW),
    side=st.sampled_from([1, 2]),
    ord_type=st.just(OrderType.MARKET),
    tif=st.just(TimeInForce.IOC),
    session=_traders,
    instrument=_instruments,
    epoch=_epochs,
    account=_accounts,
    order_id=_ids,
    qty_lots=_quantities,
)
_cancels = st.builds(
    Command,
    kind=st.just(CommandKind.CANCEL),
    session=_traders,
    instrument=_instruments,
    epoch=_epochs,
    account=_accounts,
    order_id=_ids,
)
_modes = st.builds(
    Command,
    kind=st.just(CommandKind.MODE),
    session=st.just(1),
    instrument=_instruments,
    epoch=st.sampled_from([_NOW, _NEXT, _NEXT]),
    aux=st.sampled_from(list(Mode)),
)
_clears = st.builds(
    Command,
    kind=st.just(CommandKind.CLEAR),
    session=st.sampled_from([1, 3]),
    instrument=_instruments,
)
_definitions = st.builds(
    define,
    instrument=st.sampled_from([BTC, ETH, 3]),
    name=st.sampled_from(["BTC-USD", "ETH-USD", "LTC-USD"]),
    price_ticks_max=_prices,
    qty_lots_max=_quantities,
)
_sessions = st.builds(
    session_command,
    session=st.integers(1, 6),
    name=st.sampled_from(["control", "proxy-0", "proxy-1", "late"]),
    role=st.sampled_from(list(Role)),
)


@st.composite
def _broken(draw: st.DrawFn) -> Command:
    """A sensible command with one to three fields at an edge."""
    command = draw(st.one_of(_news, _market_orders, _cancels, _modes, _definitions, _sessions))
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        fields[name] = draw(st.sampled_from(_edges(name)))
    return Command(**fields)


# Long stretches of plain orders, so that books grow and queues form; the rest in between.
_trading = st.lists(
    st.one_of(*[_news] * 6, _market_orders, *[_cancels] * 2), min_size=10, max_size=40
)
_anything = st.lists(
    st.one_of(*[_news] * 4, _cancels, _modes, _clears, _definitions, _sessions, _broken()),
    min_size=4,
    max_size=16,
)


class MarketsAgree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.refs: Counter[int] = Counter()
        self.ts_ns = 0
        self.markets: list[Market] = []

    @initialize(bounds=st.sampled_from([None, (4, 6), (1, 1)]))
    def open(self, bounds: tuple[int, int] | None) -> None:
        for implementation in ("python", "rust"):
            if bounds is None:
                market = market_or_skip(implementation)
            else:
                market = bounded_market(implementation, per_book=bounds[0], shard=bounds[1])
            self.markets.append(market)
            driver = opened(market)
            driver.send(set_mode(Mode.SHADOW, 1, instrument=ETH))
            self.refs = Counter(driver.refs)

    @rule(commands=_trading)
    def trade(self, commands: list[Command]) -> None:
        self.apply(b"".join(map(self.addressed, commands)))

    @rule(commands=_anything)
    def apply_anything(self, commands: list[Command]) -> None:
        self.apply(b"".join(map(self.addressed, commands)))

    @rule(command=_broken(), times=st.integers(1, 3))
    def send_again(self, command: Command, times: int) -> None:
        """The same reference several times."""
        self.apply(self.addressed(command) * times)

    @rule(records=st.binary(min_size=0, max_size=3 * 64).map(lambda raw: raw[: len(raw) & -64]))
    def apply_bytes(self, records: bytes) -> None:
        self.apply(records)

    @rule()
    def swap_states(self) -> None:
        """Each goes on from the other's snapshot."""
        python, rust = (market.snapshot() for market in self.markets)
        self.markets = [restore_market("python", rust), restore_market("rust", python)]

    @rule(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
    def damage_a_snapshot(self, at: float, byte: int) -> None:
        """Both refuse it, or it is the snapshot of some other market, to both."""
        damaged = bytearray(self.markets[0].snapshot())
        damaged[int(at * len(damaged))] = byte
        outcomes = [self.restored(implementation, damaged) for implementation in ("python", "rust")]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0] in (None, bytes(damaged))

    @invariant()
    def agree(self) -> None:
        if not self.markets:
            return
        python, rust = self.markets
        python.check()
        rust.check()
        assert python.snapshot() == rust.snapshot()
        assert python.instruments() == rust.instruments()
        assert python.sessions() == rust.sessions()

    def addressed(self, command: Command) -> bytes:
        """With the instrument's epoch, a session, and its next reference unless it brings one."""
        fields = {name: getattr(command, name) for name in command.__struct_fields__}
        state = {each.instrument: each for each in self.markets[0].instruments()}
        instrument = state.get(command.instrument)
        if command.epoch in (_NOW, _NEXT):
            epoch = command.epoch - _NOW + (instrument.epoch if instrument else 0)
            fields["epoch"] = min(epoch, U32_MAX)  # the last epoch has no next one
        if command.session == _WHO_MAY:
            shadowed = instrument is not None and instrument.mode is Mode.SHADOW
            fields["session"] = SHADOW if shadowed else PROXY
        if command.ref == 0 and command.kind != CommandKind.SESSION:
            self.refs[fields["session"]] += 1
            fields["ref"] = self.refs[fields["session"]]
        return encode_command(Command(**fields))

    def apply(self, data: bytes) -> None:
        self.ts_ns += 1_000_000
        python, rust = (market.apply(data, self.ts_ns) for market in self.markets)
        assert python == rust, _first_difference(python, rust)

    @staticmethod
    def restored(implementation: str, snapshot: bytes | bytearray) -> bytes | None:
        try:
            market = restore_market(implementation, bytes(snapshot))
        except SnapshotUnreadable:
            return None
        market.check()
        return market.snapshot()


TestMarketsAgree = MarketsAgree.TestCase


def _first_difference(python: bytes, rust: bytes) -> str:
    pairs = zip(decode_events(python), decode_events(rust), strict=False)
    for left, right in pairs:
        if left != right:
            return f"python: {left}\nrust:   {right}"
    return f"python gives {len(python) // 80} events, rust {len(rust) // 80}"


def test_a_long_history_meets_every_kind_and_reason_and_the_markets_agree() -> None:
    """Seeded, so that what it covers is always covered."""
    markets = [bounded_market(each, per_book=40, shard=60) for each in ("python", "rust")]
    for market in markets:
        opened(market)
    choice = random.Random(20150501)
    refs = Counter({CONTROL: 3})
    kinds: Counter[EventKind] = Counter()
    reasons: Counter[Reason] = Counter()
    for batch in range(400):
        state = {each.instrument: each for each in markets[0].instruments()}
        data = encode_commands(_random_command(choice, refs, state) for _ in range(50))
        python, rust = (market.apply(data, batch * 10**6) for market in markets)
        assert python == rust, _first_difference(python, rust)
        for event in decode_events(python):
            kinds[event.kind] += 1
            reasons[event.reason] += 1
    for market in markets:
        market.check()
    assert markets[0].snapshot() == markets[1].snapshot()
    print(f"\nevents {dict(sorted(kinds.items()))}\nreasons {dict(sorted(reasons.items()))}")
    assert set(kinds) == set(EventKind)
    assert set(reasons) == set(Reason) - {Reason.OUTCOME_EXPIRED}  # the gateway's own


def _random_command(
    choice: random.Random, refs: Counter[int], state: dict[int, InstrumentState]
) -> Command:
    command = _random_draft(choice, state)
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    if command.kind != CommandKind.SESSION:
        refs[command.session] += choice.random() < 0.99
        fields["ref"] = refs[command.session]
    if choice.random() < 0.03:
        name = choice.choice(sorted(fields))
        fields[name] = choice.choice(_edges(name))
    return Command(**fields)


def _random_draft(choice: random.Random, state: dict[int, InstrumentState]) -> Command:
    draw = choice.random()
    if draw < 0.01:
        number = choice.randint(1, 40)
        return session_command(session=number, name=f"session-{number}", role=choice.randint(1, 4))
    if draw < 0.02:
        number = choice.randint(1, 3)
        name = ("BTC-USD", "ETH-USD", "LTC-USD")[choice.choice([number, 1]) - 1]
        return define(number, name, price_ticks_max=choice.randint(0, 60), qty_lots_max=50)
    instrument = choice.choices([BTC, ETH, 99], weights=[60, 20, 1])[0]
    epoch = state[instrument].epoch if instrument in state else 0
    if draw < 0.04:
        return set_mode(choice.randint(0, 2), epoch + choice.randint(0, 1), instrument=instrument)
    if draw < 0.045:
        return clear(instrument=instrument)
    shadowed = instrument in state and state[instrument].mode is Mode.SHADOW
    session = SHADOW if shadowed == (choice.random() < 0.95) else PROXY
    who = {
        "session": session,
        "instrument": instrument,
        "epoch": epoch - (choice.random() < 0.02) if epoch else 0,
        "account": choice.randint(7, 8),
    }
    order_id = choice.randint(1, 150)
    if draw < 0.2:
        return cancel(order_id, **who)
    side, qty_lots = choice.randint(1, 2), choice.randint(0, 51)
    if draw < 0.3:
        return market_order(order_id, side, qty_lots, **who)
    price_ticks = choice.randint(0, 40) + 20 * (side == SELL)
    order = ioc if draw < 0.4 else new
    return order(order_id, side, price_ticks, qty_lots, **who)
