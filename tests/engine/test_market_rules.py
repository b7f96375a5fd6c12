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
    TIME_PASSES,
    Driver,
    bounded_market,
    cancel,
    changed,
    clear,
    define,
    disconnected,
    halt,
    iceberg,
    ioc,
    kill,
    limit_account,
    limit_instrument,
    market_order,
    mass_cancel,
    mass_cancel_everywhere,
    new,
    opened,
    price_band,
    reduce,
    replace,
    session_options,
    set_mode,
    stop,
)

from engine.errors import UnknownInstrument
from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    Role,
    TimeInForce,
)
from engine.wire import encode_command, pack_new_aux, session_command

U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1


# --- the order of reasons


def test_of_several_reasons_the_lowest_number_is_given(implementation: str) -> None:
    """One command breaks every rule; each step repairs only what was complained of last."""
    driver = opened(bounded_market(implementation, per_book=2, levels_per_side_max=2))
    day_s = 86_400
    driver.batch(
        [
            limit_instrument(tick_ticks=10, lot_lots=5, notional_max=100_000),
            price_band(100, PRICE_MAX),
            limit_account(open_orders_max=1, open_qty_max=100, rate_max=1),
            new(1, BUY, 200, 5),
            new(3, SELL, 300, 5, account=8),
            kill(),
            halt(),
        ],
        at_s=day_s,
    )
    iceberg_until = pack_new_aux(part_lots=0, expiry_s=day_s - 1)
    command = changed(
        new(1, SELL, -1, 0, session=CONTROL, instrument=99, epoch=9, ref=1, stp=9),
        kind=99,
        tif=TimeInForce.GTD,
        flags=OrderFlag.POST_ONLY | OrderFlag.DISPLAY,
        aux=iceberg_until,
    )
    steps: list[tuple[Reason, list[Command], dict[str, int]]] = [
        (Reason.UNKNOWN_KIND, [], {"kind": CommandKind.NEW}),
        (Reason.BAD_FIELD, [], {"stp": 0}),
        (Reason.REF_NOT_INCREASING, [], {"ref": 0}),  # 0: the driver's next
        (Reason.NOT_PERMITTED, [], {"session": PROXY}),
        (Reason.UNKNOWN_INSTRUMENT, [], {"instrument": ETH}),
        (Reason.INSTRUMENT_CLOSED, [], {"instrument": BTC}),
        (Reason.STALE_EPOCH, [], {"epoch": 1}),
        (Reason.INSTRUMENT_HALTED, [halt(halted=False)], {}),
        (Reason.ACCOUNT_KILLED, [kill(killed=False)], {}),
        (Reason.DUPLICATE_ORDER_ID, [], {"order_id": 2}),
        (Reason.BAD_PRICE, [], {"price_ticks": PRICE_MAX + 1}),
        (Reason.PRICE_TOO_HIGH, [], {"price_ticks": 99}),
        (Reason.BAD_QUANTITY, [], {"qty_lots": QTY_MAX + 1}),
        (Reason.QUANTITY_TOO_LARGE, [], {"qty_lots": 999}),
        (Reason.PRICE_TOO_LOW, [], {"price_ticks": 201}),
        (Reason.PRICE_OFF_TICK, [], {"price_ticks": 210}),
        (Reason.QUANTITY_OFF_LOT, [], {"qty_lots": 500}),
        (Reason.NOTIONAL_TOO_LARGE, [], {"qty_lots": 400}),
        (Reason.BAD_DISPLAY_QUANTITY, [], {"aux": iceberg_until + 10}),
        (Reason.BOOK_FULL, [], {"price_ticks": 200}),  # it crosses now
        (Reason.ACCOUNT_OPEN_ORDERS, [limit_account(open_qty_max=100, rate_max=1)], {}),
        (Reason.ACCOUNT_OPEN_QUANTITY, [limit_account(rate_max=1)], {}),
        (Reason.ACCOUNT_RATE, [limit_account()], {}),
        (Reason.ALREADY_EXPIRED, [], {"aux": pack_new_aux(part_lots=10, expiry_s=day_s + 1)}),
        (Reason.WOULD_TRADE, [], {"flags": OrderFlag.DISPLAY}),
    ]
    assert [reason for reason, _, _ in steps] == sorted(reason for reason, _, _ in steps)
    for reason, permits, repair in steps:
        assert driver.reason(command) is reason
        for permit in permits:
            assert driver.reason(permit) is Reason.NONE
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


@pytest.mark.parametrize("kind", [0, 6, 15, 28, 255])
def test_an_unknown_kind_is_rejected(driver: Driver, kind: int) -> None:
    assert driver.reason(changed(new(1), kind=kind)) is Reason.UNKNOWN_KIND


_SOUND = {
    "new": new(1),
    "market": market_order(1, BUY, 5),
    "cancel": cancel(1),
    "instrument": define(BTC, "BTC-USD"),
    "mode": set_mode(Mode.LIVE, 1),
    "clear": clear(),
    "stop": stop(1, BUY, 100),
    "iceberg": iceberg(1, BUY, 100, 5, 2),
    "reduce": reduce(1, 1),
    "replace": replace(1, 100, 5),
    "mass cancel": mass_cancel(),
    "everywhere": mass_cancel_everywhere(),
    "whole instrument": mass_cancel(MassCancelScope.INSTRUMENT),
    "instrument limits": limit_instrument(),
    "price band": price_band(1, PRICE_MAX),
    "trading": halt(),
    "account limits": limit_account(),
    "kill switch": kill(),
    "time": TIME_PASSES,
    "options": session_options(PROXY, 1),
    "disconnected": disconnected(PROXY),
    "session": session_command(session=9, name="proxy-1", role=Role.TRADE),
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "new",
            (
                "side:0 side:3 ord_type:0 ord_type:5 tif:2 tif:5 tif:255 flags:8 flags:5 flags:6 "
                "flags:128 stp:5 stp:255 aux:1 aux:4294967296 flags:255"
            ),
        ),
        ("market", "tif:0 tif:1 tif:6 side:3 flags:1 flags:2 flags:128 stp:255 aux:1"),
        ("stop", "tif:3 tif:4 tif:6 flags:1 flags:2 flags:4 side:0 stp:5"),
        ("iceberg", "tif:3 tif:4 flags:0 flags:6 aux:4294967298"),
        ("reduce", "side:1 ord_type:2 tif:1 flags:1 stp:1 price_ticks:1 aux:1"),
        ("replace", "side:1 ord_type:2 tif:1 flags:1 stp:1"),
        (
            "mass cancel",
            (
                "side:3 ord_type:2 tif:1 flags:1 flags:2 stp:1 order_id:1 price_ticks:1 qty_lots:1 "
                "aux:0 aux:4 aux:2 aux:3"
            ),
        ),
        ("everywhere", "instrument:1 epoch:1 flags:3 order_id:1"),
        ("instrument limits", "side:1 epoch:1 account:0 order_id:0 price_ticks:-1 aux:86400"),
        ("price band", "side:1 epoch:1 account:1 order_id:1 qty_lots:1"),
        ("trading", "aux:2 epoch:1 account:1 price_ticks:1"),
        ("account limits", "instrument:1 epoch:1 price_ticks:-1 side:1"),
        ("kill switch", "aux:2 instrument:1 epoch:1 order_id:1 qty_lots:1"),
        ("time", "session:1 ref:1 instrument:1 aux:1 qty_lots:1"),
        ("options", "ref:1 aux:2 aux:3 instrument:1 account:1"),
        ("disconnected", "ref:1 aux:1 instrument:1 account:1"),
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

_ENTRY = (
    *("new", "market", "stop", "iceberg", "cancel", "reduce", "replace"),
    *("mass cancel", "everywhere"),
)


@pytest.mark.parametrize(
    ("session", "permitted"),
    [
        (PROXY, {*_ENTRY}),
        (SHADOW, {*_ENTRY, "clear"}),
        (
            CONTROL,
            {
                *("instrument", "mode", "clear", "mass cancel", "everywhere", "whole instrument"),
                *("instrument limits", "price band", "trading", "account limits", "kill switch"),
            },
        ),
        (READER, set()),
        (99, set()),
    ],
)
def test_roles(driver: Driver, session: int, permitted: set[str]) -> None:
    for kind in _SOUND.keys() - {"session", "time", "options", "disconnected"}:
        reason = driver.reason(changed(_SOUND[kind], session=session, ref=0))
        assert (reason is not Reason.NOT_PERMITTED) == (kind in permitted), kind


def test_options_are_for_trading_sessions(driver: Driver) -> None:
    for session, reason in (
        (PROXY, Reason.NONE),
        (SHADOW, Reason.NOT_PERMITTED),
        (CONTROL, Reason.NOT_PERMITTED),
        (99, Reason.NOT_PERMITTED),
    ):
        assert driver.reason(session_options(session, 1)) is reason
    assert driver.reason(session_options(SHADOW, 0)) is Reason.NONE
    assert driver.reason(disconnected(99)) is Reason.NOT_PERMITTED
    assert [each.options for each in driver.market.sessions()] == [0, 1, 0, 0]
    [event] = driver.send(session_options(PROXY, 0))
    assert (event.kind, event.contra_id, event.contra_leaves_lots, event.flags) == (
        EventKind.SESSION_OPTIONS,
        0,
        PROXY,
        EventFlag.LAST,
    )
    assert [each.options for each in driver.market.sessions()] == [0, 0, 0, 0]


def test_what_the_gateway_sends_by_itself_takes_no_reference(driver: Driver) -> None:
    driver.batch([new(1, ref=5), session_options(PROXY, 1), disconnected(PROXY), TIME_PASSES])
    assert last_refs(driver)[PROXY] == 5


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
    assert live(halt()) == {True}
    assert live(changed(kill(), instrument=BTC)) == {False}
    assert live(changed(limit_account(), instrument=BTC)) == {False}
    assert live(changed(TIME_PASSES, instrument=BTC)) == {False}
    assert live(changed(mass_cancel_everywhere(), instrument=BTC)) == {False}
    assert live(mass_cancel(epoch=1)) == {True}
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
