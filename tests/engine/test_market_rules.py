"""What every market refuses, and why, whichever the implementation: the same tests over both."""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    ETH,
    PRICE_MAX,
    PROXY,
    QTY_MAX,
    READER,
    SELL,
    SHADOW,
    Driver,
    bounded_market,
    cancel,
    changed,
    clear,
    define,
    ioc,
    market_order,
    new,
    opened,
    set_mode,
)

from engine import limits
from engine.errors import UnknownInstrument
from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Mode,
    OrderType,
    Role,
)
from engine.wire import encode_command, session_command

U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1


# --- the order of reasons


def test_of_several_reasons_the_lowest_number_is_given(driver: Driver) -> None:
    """One command breaks every rule; each step repairs only what was complained of last."""
    driver.send(new(1, BUY, 100, account=8))
    command = changed(
        new(1, SELL, -1, 0, session=CONTROL, instrument=99, epoch=9, ref=1), kind=99, stp=1
    )
    repairs: list[tuple[Reason, dict[str, int]]] = [
        (Reason.UNKNOWN_KIND, {"kind": CommandKind.NEW}),
        (Reason.BAD_FIELD, {"stp": 0}),
        (Reason.REF_NOT_INCREASING, {"ref": 0}),  # 0: the driver's next
        (Reason.NOT_PERMITTED, {"session": PROXY}),
        (Reason.UNKNOWN_INSTRUMENT, {"instrument": ETH}),
        (Reason.INSTRUMENT_CLOSED, {"instrument": BTC}),
        (Reason.STALE_EPOCH, {"epoch": 1}),
        (Reason.DUPLICATE_ORDER_ID, {"order_id": 2}),
        (Reason.BAD_PRICE, {"price_ticks": PRICE_MAX + 1}),
        (Reason.PRICE_TOO_HIGH, {"price_ticks": 100}),
        (Reason.BAD_QUANTITY, {"qty_lots": QTY_MAX + 1}),
        (Reason.QUANTITY_TOO_LARGE, {"qty_lots": 1}),
    ]
    assert [reason for reason, _ in repairs] == sorted(reason for reason, _ in repairs)
    for reason, repair in repairs:
        assert driver.reason(command) is reason
        command = changed(command, **repair)
    assert driver.reason(command) is Reason.NONE


def test_a_rejection_carries_the_command(driver: Driver) -> None:
    command = changed(new(1, SELL, -5, 9, instrument=99, ref=3), tif=77)
    assert driver.send(command) == [
        Event(
            kind=EventKind.REJECTED,
            side=SELL,
            ord_type=OrderType.LIMIT,
            tif=77,
            reason=Reason.BAD_FIELD,
            flags=EventFlag.LAST,
            instrument=99,
            seq=8,
            ref=3,
            order_id=1,
            contra_id=7,
            price_ticks=-5,
            qty_lots=9,
        )
    ]


@pytest.mark.parametrize("kind", [0, 3, 15, 20, 255])
def test_an_unknown_kind_is_rejected(driver: Driver, kind: int) -> None:
    assert driver.reason(changed(new(1), kind=kind)) is Reason.UNKNOWN_KIND


_SOUND = {
    "new": new(1),
    "market": market_order(1, BUY, 5),
    "cancel": cancel(1),
    "instrument": define(BTC, "BTC-USD"),
    "mode": set_mode(Mode.LIVE, 1),
    "clear": clear(),
    "session": session_command(session=9, name="proxy-1", role=Role.TRADE),
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("new", "side:0 side:3 ord_type:0 ord_type:3 tif:0 tif:2 tif:255 flags:1 stp:1 aux:1"),
        ("market", "tif:1 side:3 flags:128 stp:255 aux:1"),
        ("cancel", "side:1 ord_type:2 tif:1 flags:1 stp:1 price_ticks:1 qty_lots:1 aux:1"),
        ("instrument", "side:1 ord_type:2 tif:1 flags:1 stp:1 epoch:1 aux:1"),
        (
            "mode",
            (
                "side:1 ord_type:2 tif:1 flags:1 stp:1 account:1 order_id:1 price_ticks:-1 "
                "qty_lots:1 aux:3 aux:256 aux:18446744073709551615"
            ),
        ),
        (
            "clear",
            (
                "side:1 ord_type:2 tif:1 flags:1 stp:1 account:1 order_id:1 price_ticks:-1 "
                "qty_lots:1 aux:1"
            ),
        ),
        (
            "session",
            "side:1 ord_type:2 tif:1 flags:1 stp:1 instrument:1 epoch:1 ref:1 aux:0 aux:5 aux:257",
        ),
    ],
)
def test_a_field_outside_its_meaning_is_rejected(driver: Driver, kind: str, fields: str) -> None:
    before = state_without_seq(driver)
    for field in fields.split():
        name, value = field.split(":")
        command = changed(_SOUND[kind], **{name: int(value)})
        assert driver.reason(command) is Reason.BAD_FIELD, field
    assert state_without_seq(driver) == before


def state_without_seq(driver: Driver) -> tuple[object, ...]:
    market = driver.market
    return market.instruments(), market.orders(BTC), [each.name for each in market.sessions()]


def _named(raw: bytes) -> dict[str, int]:
    raw = raw.ljust(32, b"\0")
    fields = ("account", "order_id", "price_ticks", "qty_lots")
    return {
        name: int.from_bytes(raw[at : at + 8], "little", signed=name == "price_ticks")
        for name, at in zip(fields, (0, 8, 16, 24), strict=True)
    }


@pytest.mark.parametrize("raw", [b"", b"a\0b", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0a"])
def test_a_name_is_utf_8_without_zeros(driver: Driver, raw: bytes) -> None:
    instrument = changed(define(3, "x"), **_named(raw) | {"price_ticks": 1, "qty_lots": 1})
    assert driver.reason(instrument) is Reason.BAD_FIELD
    session = changed(_SOUND["session"], **_named(raw))
    assert driver.reason(session) is Reason.BAD_FIELD


def test_names_may_fill_their_fields(driver: Driver) -> None:
    name = "é" * 8
    assert driver.reason(define(3, name)) is Reason.NONE
    assert driver.market.instruments()[-1].name == name
    name = "s" * 29 + "€"
    session = session_command(session=9, name=name, role=Role.TRADE)
    assert driver.reason(session) is Reason.NONE
    assert driver.market.sessions()[-1].name == name


# --- references


def test_a_reference_is_used_once_and_only_upwards(driver: Driver) -> None:
    assert driver.reason(new(1, ref=5)) is Reason.NONE
    assert driver.reason(new(2, ref=5)) is Reason.REF_NOT_INCREASING
    assert driver.reason(new(2, ref=4)) is Reason.REF_NOT_INCREASING
    assert driver.reason(new(2, ref=U64_MAX)) is Reason.NONE
    assert driver.reason(new(3, ref=U64_MAX)) is Reason.REF_NOT_INCREASING


def test_each_session_counts_for_itself(driver: Driver) -> None:
    other = session_command(session=9, name="proxy-1", role=Role.TRADE)
    driver.batch([other, new(1, ref=5)])
    assert driver.reason(new(2, ref=1, session=9)) is Reason.NONE


def test_a_rejected_command_uses_up_its_reference(driver: Driver) -> None:
    driver.send(changed(new(1, ref=5), kind=99))
    assert driver.reason(new(1, ref=5)) is Reason.REF_NOT_INCREASING
    driver.send(changed(new(1, ref=3), kind=99))  # a lower one does not bring it back
    assert last_refs(driver)[PROXY] == 5
    driver.send(session_command(session=PROXY, name="again", role=Role.TRADE))
    assert last_refs(driver)[PROXY] == 5


def test_reference_zero_is_nobodys(driver: Driver) -> None:
    data = encode_command(new(1, ref=0))
    driver.market.apply(data, 10**6)
    assert driver.ids() == []
    assert last_refs(driver)[PROXY] == 0


def last_refs(driver: Driver) -> dict[int, int]:
    return {each.session: each.last_ref for each in driver.market.sessions()}


# --- who may send what, where


@pytest.mark.parametrize(
    ("session", "permitted"),
    [
        (PROXY, {"new", "cancel"}),
        (SHADOW, {"new", "cancel", "clear"}),
        (CONTROL, {"instrument", "mode", "clear"}),
        (READER, set()),
        (99, set()),
    ],
)
def test_roles(driver: Driver, session: int, permitted: set[str]) -> None:
    for kind in ("new", "cancel", "instrument", "mode", "clear"):
        reason = driver.reason(changed(_SOUND[kind], session=session, ref=0))
        assert (reason is not Reason.NOT_PERMITTED) == (kind in permitted), kind


def test_a_session_is_defined_once(driver: Driver) -> None:
    events = driver.send(_SOUND["session"])
    assert [(e.kind, e.leaves_lots, e.contra_leaves_lots, e.flags) for e in events] == [
        (EventKind.SESSION, Role.TRADE, 9, EventFlag.LAST)
    ]
    assert driver.reason(_SOUND["session"]) is Reason.NOT_PERMITTED
    again = session_command(session=9, name="proxy-2", role=Role.ADMIN)
    assert driver.reason(again) is Reason.NOT_PERMITTED
    namesake = session_command(session=10, name="proxy-1", role=Role.ADMIN)
    assert driver.reason(namesake) is Reason.NOT_PERMITTED
    assert [(each.session, each.name, each.role) for each in driver.market.sessions()] == [
        (CONTROL, "control", Role.ADMIN),
        (PROXY, "proxy-0", Role.TRADE),
        (SHADOW, "shadow-feed", Role.SHADOW),
        (READER, "reader", Role.READ_ONLY),
        (9, "proxy-1", Role.TRADE),
    ]


@pytest.mark.parametrize(
    ("mode", "session", "epoch", "reason"),
    [
        (Mode.CLOSED, PROXY, 2, Reason.INSTRUMENT_CLOSED),
        (Mode.CLOSED, SHADOW, 2, Reason.INSTRUMENT_CLOSED),
        (Mode.SHADOW, PROXY, 2, Reason.INSTRUMENT_IN_SHADOW),
        (Mode.SHADOW, SHADOW, 2, Reason.NONE),
        (Mode.SHADOW, SHADOW, 77, Reason.NONE),
        (Mode.LIVE, PROXY, 2, Reason.NONE),
        (Mode.LIVE, PROXY, 1, Reason.STALE_EPOCH),
        (Mode.LIVE, PROXY, 3, Reason.STALE_EPOCH),
        (Mode.LIVE, SHADOW, 2, Reason.INSTRUMENT_LIVE),
    ],
)
def test_the_mode_says_whose_orders_are_taken(
    driver: Driver, mode: Mode, session: int, epoch: int, reason: Reason
) -> None:
    driver.batch([new(1), set_mode(mode, 2)])
    before = driver.market.orders(BTC)
    assert driver.reason(new(2, session=session, epoch=epoch)) is reason
    if reason is not Reason.NONE:
        assert driver.reason(cancel(1, session=session, epoch=epoch)) is reason
        assert driver.market.orders(BTC) == before
    else:
        assert driver.reason(cancel(1, session=session, epoch=epoch)) is Reason.NONE


@pytest.mark.parametrize(
    ("start", "epoch", "mode", "accepted"),
    [
        (Mode.LIVE, 4, Mode.CLOSED, False),
        (Mode.LIVE, 5, Mode.LIVE, True),
        (Mode.LIVE, 5, Mode.CLOSED, False),
        (Mode.LIVE, 5, Mode.SHADOW, False),
        (Mode.LIVE, 6, Mode.CLOSED, True),
        (Mode.SHADOW, 5, Mode.SHADOW, True),
        (Mode.SHADOW, 5, Mode.LIVE, False),
        (Mode.SHADOW, 5, Mode.CLOSED, False),
        (Mode.SHADOW, 2**32 - 1, Mode.LIVE, True),
        (Mode.CLOSED, 5, Mode.LIVE, True),
        (Mode.CLOSED, 5, Mode.SHADOW, True),
        (Mode.CLOSED, 5, Mode.CLOSED, True),
        (Mode.CLOSED, 4, Mode.LIVE, False),
    ],
)
def test_a_mode_needs_a_new_epoch_unless_it_opens_what_is_closed(
    driver: Driver, start: Mode, epoch: int, mode: Mode, accepted: bool
) -> None:
    driver.send(set_mode(start, 5))
    [event] = driver.send(set_mode(mode, epoch))
    [state] = [each for each in driver.market.instruments() if each.instrument == BTC]
    if accepted:
        assert (event.kind, event.contra_id, event.leaves_lots) == (EventKind.MODE, mode, epoch)
        assert (state.mode, state.epoch) == (mode, epoch)
    else:
        assert (event.kind, event.reason) == (EventKind.REJECTED, Reason.STALE_EPOCH)
        assert (state.mode, state.epoch) == (start, 5)


def test_events_of_a_live_instrument_say_so(driver: Driver) -> None:
    def live(command: Command) -> set[bool]:
        return {bool(event.flags & EventFlag.LIVE) for event in driver.send(command)}

    assert live(set_mode(Mode.LIVE, 2)) == {True}
    assert live(new(1, SELL, epoch=2)) == {True}
    assert live(ioc(2, BUY, 100, 9, epoch=2)) == {True}
    assert live(new(3, epoch=1)) == {True}  # a rejection
    assert live(changed(new(3), kind=99)) == {True}
    assert live(define(BTC, "BTC-USD")) == {True}
    assert live(new(4, instrument=ETH)) == {False}
    assert live(changed(session_command(session=9, name="x", role=1), instrument=BTC)) == {False}
    assert live(set_mode(Mode.CLOSED, 3)) == {False}
    assert live(new(5, epoch=3)) == {False}
    assert live(set_mode(Mode.SHADOW, 3)) == {False}
    assert live(new(6, session=SHADOW)) == {False}


def test_nothing_is_known_of_an_instrument_that_was_not_defined(driver: Driver) -> None:
    for command in (
        new(1, instrument=99),
        cancel(1, instrument=99),
        set_mode(Mode.LIVE, 1, instrument=99),
        clear(instrument=99),
    ):
        assert driver.reason(command) is Reason.UNKNOWN_INSTRUMENT
    for number in (99, -1, 2**32):
        with pytest.raises(UnknownInstrument, match=f"no instrument {number}"):
            driver.market.orders(number)


# --- instruments


def test_an_instrument_begins_closed_at_epoch_zero(driver: Driver) -> None:
    [event] = driver.send(define(3, "LTC-USD", price_ticks_max=9, qty_lots_max=8))
    assert (event.kind, event.price_ticks, event.qty_lots) == (EventKind.INSTRUMENT, 9, 8)
    name = event.contra_id.to_bytes(8, "little") + event.order_id.to_bytes(8, "little")
    assert name.rstrip(b"\0") == b"LTC-USD"
    state = driver.market.instruments()[-1]
    assert (state.instrument, state.name, state.mode, state.epoch) == (3, "LTC-USD", Mode.CLOSED, 0)
    assert (state.open_orders, state.price_ticks_max, state.qty_lots_max) == (0, 9, 8)


def test_an_instrument_keeps_its_name_and_a_name_its_instrument(driver: Driver) -> None:
    assert driver.reason(define(BTC, "BTC-EUR")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(3, "BTC-USD")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(BTC, "ETH-USD")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(BTC, "BTC-USD")) is Reason.NONE


@pytest.mark.parametrize(
    ("price_ticks_max", "qty_lots_max", "reason"),
    [(0, 1, Reason.BAD_PRICE), (-(2**63), 1, Reason.BAD_PRICE), (1, 0, Reason.BAD_QUANTITY)],
)
def test_limits_that_allow_nothing_are_refused(
    driver: Driver, price_ticks_max: int, qty_lots_max: int, reason: Reason
) -> None:
    for number, name in ((BTC, "BTC-USD"), (3, "LTC-USD")):
        command = define(number, name, price_ticks_max=price_ticks_max, qty_lots_max=qty_lots_max)
        assert driver.reason(command) is reason
    assert len(driver.market.instruments()) == 2


def test_new_limits_hold_for_new_orders_and_leave_the_book_alone(driver: Driver) -> None:
    driver.send(new(1, SELL, 500, 50))
    driver.send(define(BTC, "BTC-USD", price_ticks_max=400, qty_lots_max=10))
    assert driver.ids() == [1]
    assert driver.reason(new(2, BUY, 500, 5)) is Reason.PRICE_TOO_HIGH
    assert driver.reason(new(2, BUY, 400, 50)) is Reason.QUANTITY_TOO_LARGE
    assert driver.fills(market_order(3, BUY, 10)) == [(1, 500, 10)]


def test_instruments_are_bounded(driver: Driver) -> None:
    room = limits.INSTRUMENTS_MAX - len(driver.market.instruments())
    driver.batch([define(100 + number, f"I{number}") for number in range(room)])
    assert len(driver.market.instruments()) == limits.INSTRUMENTS_MAX
    assert driver.reason(define(99_999, "one more")) is Reason.BOOK_FULL
    assert driver.reason(define(BTC, "BTC-USD")) is Reason.NONE


def test_clear_empties_one_book_and_frees_its_ids(driver: Driver) -> None:
    driver.send(set_mode(Mode.SHADOW, 1, instrument=ETH))
    feed = [new(order_id, session=SHADOW, instrument=ETH) for order_id in (1, 2, 3)]
    driver.batch([*feed, new(4)])
    [event] = driver.send(clear(instrument=ETH))
    assert (event.kind, event.qty_lots, event.flags) == (EventKind.CLEARED, 3, EventFlag.LAST)
    assert (driver.ids(ETH), driver.ids(BTC)) == ([], [4])
    assert driver.reason(new(1, session=SHADOW, instrument=ETH)) is Reason.NONE
    assert driver.send(clear(instrument=ETH, session=CONTROL))[0].qty_lots == 1


def test_a_live_book_is_not_cleared(driver: Driver) -> None:
    driver.send(new(1))
    for session in (SHADOW, CONTROL):
        assert driver.reason(clear(session=session)) is Reason.INSTRUMENT_LIVE
    assert driver.ids() == [1]


# --- bounds


@pytest.mark.parametrize(("per_book", "shard"), [(2, 100), (100, 2)])
def test_a_full_book_takes_what_does_not_rest(
    implementation: str, per_book: int, shard: int
) -> None:
    driver = opened(bounded_market(implementation, per_book=per_book, shard=shard))
    driver.batch([new(1, SELL, 100, 5), new(2, BUY, 90, 5)])
    assert driver.reason(new(3, BUY, 99, 5)) is Reason.BOOK_FULL
    assert driver.reason(new(3, SELL, 91, 5)) is Reason.BOOK_FULL
    assert driver.reason(ioc(3, BUY, 99, 5)) is Reason.NONE
    assert driver.fills(market_order(4, BUY, 1)) == [(1, 100, 1)]
    # It fills a maker, and what is left of it takes the maker's room.
    assert driver.fills(new(5, BUY, 100, 9)) == [(1, 100, 4)]
    assert driver.ids() == [5, 2]
    driver.send(cancel(2))
    assert driver.reason(new(6)) is Reason.NONE


def test_a_full_book_leaves_room_in_the_others(implementation: str) -> None:
    driver = opened(bounded_market(implementation, per_book=1, shard=2))
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), new(1)])
    assert driver.reason(new(2)) is Reason.BOOK_FULL
    assert driver.reason(new(2, instrument=ETH)) is Reason.NONE


def test_both_implementations_have_the_same_bounds() -> None:
    core = pytest.importorskip("engine._core", reason="SKIPPED: the Rust core is not built here")
    for name in (
        "OPEN_ORDERS_PER_BOOK_MAX",
        "OPEN_ORDERS_MAX",
        "INSTRUMENTS_MAX",
        "COMMAND_STEP_NS",
    ):
        assert getattr(core, name) == getattr(limits, name)
