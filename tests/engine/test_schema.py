"""docs/engine.sbe.xml and the code say the same: what a client generated from the schema reads and
writes is what the engine means.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import cache

import numpy as np
import pytest
from market_driver import BTC, ETH, SELL, define, ioc, new, opened, set_mode
from sbe import Field, Layout, Schema

from engine import types
from engine.market import create_market
from engine.protocol import (
    EVENTS,
    HEADER,
    SUBSCRIBE,
    TAIL,
    VERSION,
    MessageType,
    events_header,
    message,
    tail_header,
)
from engine.reject import Reason
from engine.rules import FIELDS
from engine.types import (
    GATEWAY_KINDS,
    Command,
    CommandKind,
    Event,
    EventKind,
    MassCancelFlag,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    RestingOrder,
    Role,
    SelfTradePrevention,
    SessionOption,
    TimeInForce,
)
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    DEPTH_DTYPE,
    DISPLAYED_ORDER_DTYPE,
    EVENT_BYTES,
    EVENT_DTYPE,
    RESTING_ORDER_BYTES,
    decode_commands,
    decode_events,
    encode_command,
    encode_event,
    encode_resting_order,
    session_command,
)

SCHEMA = Schema()
ENUMS: dict[str, type[IntEnum]] = {
    "CommandKind": CommandKind,
    "EventKind": EventKind,
    "Side": types.Side,
    "OrderType": OrderType,
    "TimeInForce": TimeInForce,
    "SelfTradePrevention": SelfTradePrevention,
    "MassCancelScope": MassCancelScope,
    "Mode": Mode,
    "Role": Role,
    "Reason": Reason,
    "MessageType": MessageType,
}
SETS: dict[str, type[IntFlag]] = {
    "OrderFlags": OrderFlag,
    "MassCancelFlags": MassCancelFlag,
    "SessionOptions": SessionOption,
    "EventFlags": types.EventFlag,
}
# What a field of the wire may be called in the schema's types, beside a plain number.
TYPES_OF = {
    "kind": {"CommandKind", "EventKind"},
    "side": {"Side", "SideOrBoth"},
    "ord_type": {"OrderType"},
    "tif": {"TimeInForce"},
    "stp": {"SelfTradePrevention"},
    "reason": {"Reason"},
    "flags": {"OrderFlags", "MassCancelFlags", "EventFlags"},
}


def wire_fields(dtype: np.dtype[np.void]) -> dict[str, range]:
    """The bytes of each."""
    assert dtype.fields is not None
    return {
        name: range(at, at + kind.itemsize)
        for name, (kind, at, *_) in dtype.fields.items()
        if name != "pad"
    }


COMMAND_FIELDS, EVENT_FIELDS = wire_fields(COMMAND_DTYPE), wire_fields(EVENT_DTYPE)


def touched(layout: Layout, fields: dict[str, range]) -> set[str]:
    return {
        name
        for name, place in fields.items()
        if any(set(place) & set(each.bytes) for each in layout.fields)
    }


def test_every_kind_has_its_message_and_no_other() -> None:
    ids = {layout.id for layout in SCHEMA.commands()}
    assert ids == {*map(int, CommandKind), 129}
    assert {layout.id for layout in SCHEMA.events()} == {256 + kind for kind in EventKind}
    names = [layout.name for layout in SCHEMA.layouts.values()]
    assert len(set(names)) == len(names)


def test_the_schema_is_little_endian_and_its_blocks_are_the_records() -> None:
    assert SCHEMA.byte_order == "littleEndian"
    assert {layout.size for layout in SCHEMA.commands()} == {COMMAND_BYTES}
    assert {layout.size for layout in SCHEMA.events()} == {EVENT_BYTES}
    assert SCHEMA["RestingOrder"].size == RESTING_ORDER_BYTES
    assert SCHEMA["DepthLevel"].size == DEPTH_DTYPE.itemsize
    assert SCHEMA["DisplayedOrder"].size == DISPLAYED_ORDER_DTYPE.itemsize


@pytest.mark.parametrize("layout", SCHEMA.layouts.values(), ids=lambda layout: layout.name)
def test_fields_ascend_apart_from_each_other_within_their_block(layout: Layout) -> None:
    end = 0
    for field in layout.fields:
        assert field.offset >= end, field
        end = field.offset + field.width
    assert end <= layout.size


@pytest.mark.parametrize("layout", SCHEMA.commands(), ids=lambda layout: layout.name)
def test_a_command_s_message_covers_just_the_fields_that_its_kind_uses(layout: Layout) -> None:
    kind = CommandKind(layout.id % 128)
    expected = FIELDS[kind] | {"kind", "session", "ref"}
    assert touched(layout, COMMAND_FIELDS) == expected


@pytest.mark.parametrize(
    "layout", [*SCHEMA.commands(), *SCHEMA.events()], ids=lambda layout: layout.name
)
def test_codes_are_called_what_they_are_where_they_stand(layout: Layout) -> None:
    fields = COMMAND_FIELDS if layout.id < 256 else EVENT_FIELDS
    dtype = COMMAND_DTYPE if layout.id < 256 else EVENT_DTYPE
    for name, place in fields.items():
        field = layout.field_at(place.start)
        if field is None:
            continue
        if name in TYPES_OF and layout.name != "Rejected":
            assert field.type in TYPES_OF[name], field
        if field.width == len(place) and field.type in ("int64", "uint64", "uint32", "uint16"):
            assert field.type.startswith("u") == (dtype[name].kind == "u"), field


@pytest.mark.parametrize("name", ENUMS)
def test_enums_are_the_code_s(name: str) -> None:
    assert SCHEMA.enums[name] == {each.name: each.value for each in ENUMS[name]}


@pytest.mark.parametrize("name", SETS)
def test_sets_are_the_code_s(name: str) -> None:
    assert SCHEMA.sets[name] == {camel(each.name or ""): each.value for each in SETS[name]}


def test_no_other_codes_are_in_the_schema() -> None:
    assert set(SCHEMA.enums) - set(ENUMS) == {"SideOrBoth", "Trading", "KillSwitch"}
    assert SCHEMA.enums["SideOrBoth"] == {"BOTH": 0} | SCHEMA.enums["Side"]
    assert SCHEMA.enums["Trading"] == {"OPEN": 0, "HALTED": 1}
    assert SCHEMA.enums["KillSwitch"] == {"RELEASED": 0, "KILLED": 1}
    assert set(SCHEMA.sets) == set(SETS)


def camel(name: str) -> str:
    first, *rest = name.lower().split("_")
    return first + "".join(map(str.title, rest))


# --- a client that knows only the schema


def order(order_id: int, **rest: int) -> Command:
    fields = {name: getattr(new(order_id), name) for name in Command.__struct_fields__}
    return Command(**fields | rest)  # type: ignore[arg-type]


def admin(kind: CommandKind, **rest: int) -> Command:
    return Command(kind=kind, session=1, **rest)


def of_the_gateway(kind: CommandKind, **rest: int) -> Command:
    return Command(kind=kind, **rest)


# Each kind of command at least once, and what brings about each kind of event.
STORY = [
    define(ETH, "ETH-USD"),
    admin(CommandKind.INSTRUMENT_LIMITS, instrument=ETH, account=5, order_id=10, price_ticks=10**9,
          qty_lots=500, aux=3_600),
    admin(CommandKind.PRICE_BAND, instrument=ETH, price_ticks=5_000, aux=5),
    admin(CommandKind.TRADING, instrument=ETH, aux=1),
    admin(CommandKind.ACCOUNT_LIMITS, account=99, order_id=7, qty_lots=70, price_ticks=9, aux=4),
    admin(CommandKind.KILL_SWITCH, account=98, aux=1),
    admin(CommandKind.CLEAR, instrument=ETH),
    new(1, 1, 100, 5),
    order(2, side=1, flags=OrderFlag.DISPLAY, tif=TimeInForce.GTD, qty_lots=9, aux=2 | 1_000 << 32),
    order(3, side=1, ord_type=OrderType.STOP, price_ticks=0, aux=150, tif=TimeInForce.DAY),
    ioc(4, SELL, 100, 2, account=8),
    order(5, side=2, tif=TimeInForce.IOC, qty_lots=2, stp=SelfTradePrevention.DECREMENT),
    Command(kind=CommandKind.REDUCE, session=2, instrument=BTC, epoch=1, account=7, order_id=2,
            qty_lots=4),
    Command(kind=CommandKind.REPLACE, session=2, instrument=BTC, epoch=1, account=7, order_id=2,
            price_ticks=90, qty_lots=6, aux=20),
    Command(kind=CommandKind.CANCEL, session=2, instrument=BTC, epoch=1, account=7, order_id=1),
    Command(kind=CommandKind.CANCEL, session=2, instrument=BTC, epoch=1, account=7, order_id=1),
    new(6, 2, 150, 1, account=8),
    ioc(7, 1, 150, 1, account=9),
    of_the_gateway(CommandKind.SESSION_OPTIONS, session=2, aux=1),
    Command(kind=CommandKind.MASS_CANCEL, session=2, account=7, flags=1,
            aux=MassCancelScope.ACCOUNT),
    new(8, 1, 90),
    of_the_gateway(CommandKind.DISCONNECTED, session=2),
    of_the_gateway(CommandKind.TIME),
    set_mode(Mode.SHADOW, 3, instrument=ETH),
    session_command(session=9, name="a name of more than sixteen", role=Role.TRADE),
]  # fmt: skip


@cache
def told() -> tuple[bytes, bytes]:
    """The story's commands and events."""
    driver = opened(create_market("python"))
    commands, events = [], []
    for each in STORY:
        command = each if each.kind in GATEWAY_KINDS else driver.referenced(each)
        commands.append(encode_command(command))
        events.append(driver.market.apply(commands[-1], driver.market.last_ts_ns + 1_000))
    return b"".join(commands), b"".join(events)


def records(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def check(
    record: bytes, layout: Layout, decoded: Command | Event, places: dict[str, range]
) -> None:
    """Each number that the schema reads is what the engine's own decoder reads there, and what the
    schema does not read is 0.
    """
    for name, place in places.items():
        field = layout.field_at(place.start)
        if field is not None and field.width == len(place):
            assert SCHEMA.number(field, record) % 2**64 == getattr(decoded, name) % 2**64, (
                layout.name,
                field,
            )
    assert not any(SCHEMA.uncovered(layout, record)), (layout.name, decoded)


def test_commands_are_read_by_the_schema_alone() -> None:
    commands, _ = told()
    seen = set()
    for record, decoded in zip(
        records(commands, COMMAND_BYTES), decode_commands(commands), strict=True
    ):
        layout = SCHEMA.command(record)
        check(record, layout, decoded, COMMAND_FIELDS)
        seen.add(layout.id)
        assert SCHEMA.decode(layout, record)["kind"] == decoded.kind.name
    assert {layout.name for layout in SCHEMA.commands() if layout.id not in seen} == set()


def test_events_are_read_by_the_schema_alone() -> None:
    _, events = told()
    seen = set()
    for record, decoded in zip(records(events, EVENT_BYTES), decode_events(events), strict=True):
        layout = SCHEMA.event(record)
        check(record, layout, decoded, EVENT_FIELDS)
        seen.add(layout.id)
        assert SCHEMA.decode(layout, record)["reason"] == decoded.reason.name
    assert {layout.name for layout in SCHEMA.events() if layout.id not in seen} == set()


def decoded_events(kind: EventKind) -> list[dict[str, object]]:
    _, events = told()
    return [
        dict(SCHEMA.decode(SCHEMA.event(record), record))
        for record in records(events, EVENT_BYTES)
        if record[0] == kind
    ]


def test_what_has_a_name_of_its_own_is_there() -> None:
    (limits,) = decoded_events(EventKind.ACCOUNT_LIMITS)
    assert [limits[name] for name in ("account", "openOrdersMax", "openQtyMax", "rateMax")] == [
        99, 7, 70, 9,
    ]  # fmt: skip
    (instrument,) = decoded_events(EventKind.INSTRUMENT)
    assert (instrument["nameHead"], instrument["nameTail"]) == (b"ETH-USD", b"")
    (session,) = decoded_events(EventKind.SESSION)
    name = (session["nameFirst"], session["nameSecond"], session["nameRest"])
    assert b"".join(name) == b"a name of more than sixteen"  # type: ignore[arg-type]
    assert (session["role"], session["session"]) == ("TRADE", 9)
    fill = decoded_events(EventKind.FILL)[0]
    assert (fill["takerOrderId"], fill["makerOrderId"], fill["side"]) == (4, 1, "SELL")
    (mode,) = decoded_events(EventKind.MODE)
    assert (mode["mode"], mode["epoch"]) == ("SHADOW", 3)
    (trading,) = decoded_events(EventKind.TRADING)
    assert trading["trading"] == "HALTED"
    (options,) = decoded_events(EventKind.SESSION_OPTIONS)
    assert (options["options"], options["session"]) == (frozenset({"cancelOnDisconnect"}), 2)


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("openOrdersMax", 32),
        ("rateMax", 40),
        ("openQtyMax", 48),
        ("group", 56),
    ],
)
def test_limits_stand_where_the_market_takes_them_from(name: str, offset: int) -> None:
    assert SCHEMA["AccountLimits"].field_at(offset) == Field(
        name, offset, 8, "int64" if name == "rateMax" else "uint64"
    )


# --- records that are no commands or events, and framing


def test_resting_orders_are_read_by_the_schema_alone() -> None:
    one = RestingOrder(order_id=1, account=2, price_ticks=3, leaves_lots=4, qty_lots=5, side=2)
    assert SCHEMA.decode(SCHEMA["RestingOrder"], encode_resting_order(one)) == {
        "orderId": 1, "account": 2, "priceTicks": 3, "leavesLots": 4, "qtyLots": 5, "side": "SELL",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "dtype"), [("DepthLevel", DEPTH_DTYPE), ("DisplayedOrder", DISPLAYED_ORDER_DTYPE)]
)
def test_market_data_records_are_the_code_s(layout: str, dtype: np.dtype[np.void]) -> None:
    assert [(camel(name), place) for name, place in sorted(
        wire_fields(dtype).items(), key=lambda each: each[1].start
    )] == [(field.name, field.bytes) for field in SCHEMA[layout].fields]  # fmt: skip


def test_framing_is_read_by_the_schema_alone() -> None:
    header = SCHEMA.decode(SCHEMA["FrameHeader"], message(MessageType.COMMANDS, b"c" * 64))
    assert header == {
        "payloadBytes": 64, "messageType": "COMMANDS", "version": VERSION, "zero": 0
    }  # fmt: skip
    events = events_header(7, 8, 80)[HEADER.size :]
    assert SCHEMA.decode(SCHEMA["EventsPrefix"], events) == {"firstSeq": 7, "tsNs": 8}
    tail = tail_header(7, 9, 8, 80)[HEADER.size :]
    assert SCHEMA.decode(SCHEMA["TailPrefix"], tail) == {"firstSeq": 7, "lastSeq": 9, "tsNs": 8}
    assert SCHEMA.decode(SCHEMA["Subscribe"], SUBSCRIBE.pack(5)) == {"fromSeq": 5}
    sizes = [SCHEMA[name].size for name in ("FrameHeader", "EventsPrefix", "TailPrefix")]
    assert sizes == [HEADER.size, EVENTS.size, TAIL.size]


def test_an_event_at_the_edges_of_its_numbers_is_read_by_the_schema_alone() -> None:
    edge = Event(
        kind=EventKind.FILL,
        side=2,
        ord_type=2,
        tif=6,
        flags=3,
        instrument=2**32 - 1,
        sub=2**32 - 1,
        seq=2**64 - 1,
        ref=2**64 - 1,
        order_id=2**64 - 1,
        contra_id=2**64 - 1,
        price_ticks=-(2**63),
        qty_lots=2**64 - 1,
        leaves_lots=2**64 - 1,
        contra_leaves_lots=2**64 - 1,
    )
    check(encode_event(edge), SCHEMA["Fill"], edge, EVENT_FIELDS)
    assert SCHEMA.decode(SCHEMA["Fill"], encode_event(edge))["priceTicks"] == -(2**63)
