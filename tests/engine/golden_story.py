"""The commands of the golden journal of rules 2: every kind, accepted and rejected.

Run once when a release has new rules (`python tests/engine/golden_story.py v2`); what it wrote then
stays as it is.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from golden import GOLDEN, write

from engine.frame import FRAME_HEADER_BYTES
from engine.journal import Journal
from engine.types import Command, CommandKind, Role
from engine.wire import encode_commands, instrument_command, session_command

K = CommandKind
ADMIN, P1, P2, SHADOW, READER = 1, 2, 3, 4, 5
BTC, ETH, DOGE = 1, 2, 3
BUY, SELL = 1, 2
MARKET, LIMIT, STOP, STOP_LIMIT = 1, 2, 3, 4
DAY, GTC, IOC, FOK, GTD = 0, 1, 3, 4, 6
POST_ONLY, DISPLAY, MIN_QTY = 1, 2, 4
START_S = 1_800_000_000
SEGMENT_BYTES = 16 * 1024
HIGH = 2**32


class Story:
    def __init__(self) -> None:
        self._refs: dict[int, int] = {}
        self.frames: list[tuple[int, bytes]] = []  # nanoseconds, commands
        self.now_ns = START_S * 10**9

    def frame(self, *commands: Command, later_ns: int = 10**6) -> None:
        self.now_ns += later_ns
        data = encode_commands(self._referenced(one) for one in commands)
        self.frames.append((self.now_ns, data))
        self.now_ns += 1_000 * len(commands)

    def _referenced(self, one: Command) -> Command:
        if one.ref or one.kind in (K.SESSION, K.TIME, K.SESSION_OPTIONS, K.DISCONNECTED):
            return one
        self._refs[one.session] = self._refs.get(one.session, 0) + 1
        return changed(one, ref=self._refs[one.session])


def changed(one: Command, **fields: int) -> Command:
    return Command(**{name: getattr(one, name) for name in one.__struct_fields__} | fields)


def new(order_id: int, side: int, price: int, qty: int, **rest: int) -> Command:
    fields = {"session": P1, "instrument": BTC, "epoch": 1, "account": 7, "ord_type": LIMIT}
    fields |= {"tif": GTC, "price_ticks": price, "qty_lots": qty} | rest
    return Command(kind=K.NEW, order_id=order_id, side=side, **fields)


def to(kind: K, order_id: int = 0, **rest: int) -> Command:
    fields = {"session": P1, "instrument": BTC, "epoch": 1, "account": 7} | rest
    return Command(kind=kind, order_id=order_id, **fields)


def admin(kind: K, **rest: int) -> Command:
    return Command(kind=kind, **{"session": ADMIN} | rest)


def define(number: int, name: str, price_max: int, qty_max: int) -> Command:
    one = instrument_command(
        instrument=number, name=name, price_ticks_max=price_max, qty_lots_max=qty_max
    )
    return changed(one, session=ADMIN)


def golden_frames() -> list[tuple[int, bytes]]:
    story = Story()
    _opening(story)
    _orders(story)
    _stops_and_self_trades(story)
    _changes(story)
    _limits(story)
    _time_and_sessions(story)
    for commands in _chance():
        story.frame(*commands, later_ns=17 * 10**9)
    _end(story)
    return story.frames


def _opening(story: Story) -> None:
    roles = {ADMIN: Role.ADMIN, P1: Role.TRADE, P2: Role.TRADE, SHADOW: Role.SHADOW}
    names = {ADMIN: "control", P1: "proxy-é", P2: "proxy-2", SHADOW: "shadow", READER: "reader"}
    roles[READER] = Role.READ_ONLY
    story.frame(*(session_command(session=n, name=names[n], role=roles[n]) for n in names))
    story.frame(
        session_command(session=P1, name="again", role=Role.TRADE),
        session_command(session=9, name="nobody", role=99),
        define(BTC, "BTC-USD", 10_000, 1_000),
        define(ETH, "ETH-€", 10_000, 1_000),
        define(DOGE, "DOGE", 2**63 - 1, 2**64 - 1),
        define(ETH, "OTHER", 5, 5),
        define(8, "BAD", 0, 5),
        admin(K.MODE, instrument=BTC, epoch=1, aux=2),
        admin(K.MODE, instrument=ETH, epoch=0, aux=1),
        admin(K.MODE, instrument=DOGE, epoch=1, aux=2),
        admin(K.MODE, instrument=BTC, epoch=1, aux=9),
        to(K.MODE, instrument=BTC, epoch=2, aux=2),
        Command(kind=K.TIME),
        to(K.TIME, instrument=0, epoch=0, account=0),
    )


def _orders(story: Story) -> None:
    story.frame(*(new(100 + n, BUY, 990 - n, 10 + n, account=5 + n % 3) for n in range(6)))
    story.frame(*(new(200 + n, SELL, 1_010 + n, 10 + n, account=5 + n % 3) for n in range(6)))
    iceberg = {"flags": DISPLAY, "aux": 5}
    story.frame(
        new(300, BUY, 1_012, 25, account=50),
        new(301, SELL, 1_013, 40, account=51, **iceberg),
        new(302, BUY, 1_013, 18, account=50, tif=IOC),
        new(303, SELL, 0, 12, ord_type=MARKET, tif=IOC, account=52),
        new(304, BUY, 1_013, 500, tif=FOK, account=50),
        new(305, BUY, 1_013, 6, tif=FOK, account=50),
        new(306, BUY, 1_020, 90, tif=IOC, flags=MIN_QTY, aux=80, account=50),
        new(307, BUY, 1_014, 30, tif=IOC, flags=MIN_QTY, aux=3, account=50),
        new(308, BUY, 980, 10, flags=POST_ONLY),
        new(309, BUY, 1_020, 10, flags=POST_ONLY),
        new(310, BUY, 979, 30, flags=POST_ONLY | DISPLAY, aux=7, tif=DAY),
        new(311, BUY, 978, 9, tif=DAY),
        new(312, BUY, 977, 9, tif=GTD, aux=(START_S + 100) * HIGH),
        new(313, BUY, 976, 9, tif=GTD, aux=(START_S - 100) * HIGH),
        new(314, BUY, 975, 9, tif=GTD, flags=DISPLAY, aux=(START_S + 9_000) * HIGH + 2),
        new(315, BUY, 0, 400, ord_type=MARKET, tif=FOK, account=50),
    )
    story.frame(
        new(311, BUY, 978, 9),
        new(320, BUY, 0, 9),
        new(320, BUY, 10_001, 9),
        new(320, BUY, 900, 0),
        new(320, BUY, 900, 1_001),
        new(320, BUY, 900, 9, flags=DISPLAY, aux=9),
        new(320, BUY, 900, 9, tif=IOC, flags=MIN_QTY, aux=10),
        new(320, BUY, 900, 9, tif=FOK, flags=MIN_QTY, aux=3),
        new(320, BUY, 900, 9, tif=5),
        new(320, BUY, 900, 9, stp=7),
        new(320, BUY, 900, 9, epoch=2),
        new(320, BUY, 900, 9, instrument=77),
        new(320, BUY, 900, 9, instrument=ETH),
        new(320, BUY, 900, 9, session=READER),
        new(320, BUY, 900, 9, session=99),
        new(320, BUY, 900, 9, session=SHADOW, epoch=0),
        new(320, BUY, 900, 9, ref=3),
        *(new(330 + n, 1 + n % 2, 500 + n % 3, 4 + n, session=SHADOW, instrument=ETH, epoch=0)
          for n in range(8)),
        new(340, BUY, 2**63 - 1, 2**64 - 1, instrument=DOGE),
        new(341, SELL, 2**63 - 1, 2**64 - 2, instrument=DOGE, account=8),
    )  # fmt: skip


def _stops_and_self_trades(story: Story) -> None:
    stop = {"ord_type": STOP, "tif": GTC}
    story.frame(
        new(400, BUY, 0, 8, aux=1_016, account=60, **stop),
        new(401, SELL, 0, 8, aux=989, account=60, **stop),
        new(402, BUY, 1_019, 20, aux=1_017, ord_type=STOP_LIMIT, account=61),
        new(403, SELL, 970, 5, aux=988, ord_type=STOP_LIMIT, tif=DAY, account=61),
        new(404, BUY, 0, 8, aux=0, **stop),
        new(405, BUY, 0, 8, aux=1_001, account=60, **stop),
        new(406, SELL, 0, 3, aux=5, account=62, **stop),
        new(407, BUY, 1_016, 40, account=63),
        new(408, SELL, 0, 60, ord_type=MARKET, tif=IOC, account=64),
        new(409, BUY, 1_030, 80, account=65),
    )
    for n, stp in enumerate((1, 2, 3, 4)):
        base = 420 + 10 * n
        story.frame(
            new(base, SELL, 1_040 + n, 10, account=70),
            new(base + 1, SELL, 1_040 + n, 6, account=71),
            new(base + 2, SELL, 1_041 + n, 9, account=70, flags=DISPLAY, aux=2),
            new(base + 3, BUY, 1_041 + n, 14, account=70, stp=stp),
            new(base + 4, BUY, 1_041 + n, 14, account=70, stp=stp, tif=FOK),
        )
    story.frame(
        admin(K.ACCOUNT_LIMITS, account=80, aux=5),
        admin(K.ACCOUNT_LIMITS, account=81, aux=5),
        new(470, SELL, 1_060, 5, account=80),
        new(471, BUY, 1_060, 5, account=81, stp=1),
        new(472, BUY, 1_060, 5, account=81),
    )


def _changes(story: Story) -> None:
    story.frame(
        new(500, BUY, 900, 30),
        new(501, BUY, 900, 30, account=8),
        to(K.REDUCE, 500, qty_lots=12),
        to(K.REDUCE, 500, qty_lots=12),
        to(K.REDUCE, 500, qty_lots=0),
        to(K.REDUCE, 501, qty_lots=1),
        to(K.REDUCE, 9_999, qty_lots=1),
        to(K.REPLACE, 500, price_ticks=901, qty_lots=20, aux=510),
        to(K.REPLACE, 510, price_ticks=902, qty_lots=21, aux=510),
        to(K.REPLACE, 510, price_ticks=902, qty_lots=21, aux=501),
        to(K.REPLACE, 510, price_ticks=1_500, qty_lots=3, aux=511),
        to(K.REPLACE, 308, price_ticks=1_500, qty_lots=3, aux=512),
        to(K.REPLACE, 308, price_ticks=981, qty_lots=3, aux=512, session=P2),
        to(K.CANCEL, 512),
        to(K.CANCEL, 512),
        to(K.CANCEL, 501),
        to(K.CANCEL, 501, price_ticks=1),
        to(K.CANCEL, 406, account=62),
        new(520, SELL, 0, 5, aux=3, ord_type=STOP),
        to(K.REDUCE, 520, qty_lots=2),
        to(K.REPLACE, 520, price_ticks=0, qty_lots=4, aux=521),
        to(K.REPLACE, 521, price_ticks=1, qty_lots=4, aux=522),
    )
    story.frame(
        new(530, BUY, 800, 3, account=90),
        new(531, SELL, 2_000, 3, account=90, session=P2),
        new(532, SELL, 0, 3, account=90, aux=2, ord_type=STOP, session=P2),
        to(K.MASS_CANCEL, account=90, side=BUY, aux=1),
        to(K.MASS_CANCEL, account=90, aux=1, flags=1, instrument=0, epoch=0),
        new(533, BUY, 800, 3, session=P2),
        to(K.MASS_CANCEL, account=0, aux=3, session=P2),
        to(K.MASS_CANCEL, account=0, aux=2),
        to(K.MASS_CANCEL, account=0, aux=9),
        admin(K.MASS_CANCEL, instrument=BTC, side=SELL, aux=2),
        admin(K.MASS_CANCEL, aux=1, flags=1, account=6),
        admin(K.MASS_CANCEL, instrument=ETH, aux=2),
    )


def _limits(story: Story) -> None:
    limits = {"account": 5, "order_id": 2, "price_ticks": 50_000, "qty_lots": 500, "aux": 3_600}
    story.frame(
        admin(K.INSTRUMENT_LIMITS, instrument=BTC, **limits),
        admin(K.INSTRUMENT_LIMITS, instrument=BTC, **limits | {"order_id": 0}),
        admin(K.INSTRUMENT_LIMITS, instrument=BTC, **limits | {"aux": 90_000}),
        admin(K.INSTRUMENT_LIMITS, instrument=BTC, **limits | {"qty_lots": 0}),
        admin(K.PRICE_BAND, instrument=BTC, price_ticks=5_000, aux=100),
        admin(K.PRICE_BAND, instrument=BTC, price_ticks=50, aux=100),
        new(600, BUY, 903, 4),
        new(600, BUY, 900, 3),
        new(600, BUY, 95, 4),
        new(600, BUY, 900, 56),
        new(600, BUY, 900, 4, flags=DISPLAY, aux=1),
        new(600, BUY, 0, 4, ord_type=STOP, aux=5_003),
        new(600, BUY, 900, 4, tif=DAY),
        admin(K.TRADING, instrument=BTC, aux=1),
        new(601, BUY, 900, 4),
        to(K.REPLACE, 600, price_ticks=905, qty_lots=4, aux=602),
        to(K.REDUCE, 600, qty_lots=2),
        admin(K.TRADING, instrument=BTC, aux=2),
        admin(K.TRADING, instrument=BTC, aux=0),
        admin(K.ACCOUNT_LIMITS, account=95, order_id=2, qty_lots=20, price_ticks=4, aux=0),
        admin(K.ACCOUNT_LIMITS, account=95, price_ticks=-1),
        new(610, BUY, 500, 4, account=95),
        new(611, BUY, 500, 18, account=95),
        new(612, BUY, 500, 4, account=95),
        new(613, BUY, 500, 4, account=95),
        to(K.CANCEL, 612, account=95),
        new(614, BUY, 500, 4, account=95),
        to(K.REPLACE, 614, account=95, price_ticks=505, qty_lots=4, aux=615),
        new(616, BUY, 500, 4, account=95, tif=IOC),
        admin(K.KILL_SWITCH, account=96, aux=1),
        new(620, BUY, 500, 4, account=96),
        to(K.CANCEL, 9_999, account=96),
        admin(K.KILL_SWITCH, account=96, aux=3),
        to(K.KILL_SWITCH, account=96, aux=0, instrument=0, epoch=0),
    )
    story.frame(
        admin(K.KILL_SWITCH, account=96, aux=0),
        new(621, BUY, 500, 4, account=96),
        new(622, BUY, 500, 4, account=95, tif=IOC),
        admin(K.ACCOUNT_LIMITS, account=95),
        later_ns=2 * 10**9,
    )


def _time_and_sessions(story: Story) -> None:
    story.frame(
        new(700, BUY, 400, 4, session=P2, account=99),
        new(701, SELL, 0, 4, session=P2, account=99, aux=105, ord_type=STOP),
        Command(kind=K.SESSION_OPTIONS, session=P2, aux=1),
        Command(kind=K.SESSION_OPTIONS, session=READER, aux=1),
        Command(kind=K.SESSION_OPTIONS, session=P2, aux=6),
        Command(kind=K.SESSION_OPTIONS, session=77, aux=1),
        Command(kind=K.DISCONNECTED, session=P2),
        Command(kind=K.DISCONNECTED, session=77),
        Command(kind=K.DISCONNECTED, session=P1, aux=4),
    )
    story.frame(Command(kind=K.TIME), later_ns=99 * 10**9)
    story.frame(Command(kind=K.TIME), new(702, BUY, 400, 4, tif=DAY), later_ns=86_400 * 10**9)
    raw = [changed(to(K.CANCEL, 1), kind=kind) for kind in (0, 6, 28, 99, 255)]
    story.frame(*raw)


def _chance() -> Iterator[list[Command]]:
    """Orders of every kind around one price."""
    chance = random.Random(2)
    next_id = 10_000
    for _ in range(12):
        commands: list[Command] = []
        for _ in range(chance.randrange(4, 14)):
            next_id += 1
            side, price = chance.choice((BUY, SELL)), 5 * chance.randrange(190, 211)
            qty, account = 2 * chance.randrange(1, 12), chance.randrange(80, 84)
            rest = {"account": account, "stp": chance.choice((0, 0, 1, 2, 3, 4))}
            what = chance.randrange(10)
            if what < 4:
                rest["tif"] = chance.choice((DAY, GTC, GTC, IOC, FOK))
            elif what == 4:
                rest |= {"flags": DISPLAY, "aux": 2, "qty_lots": qty + 2}
            elif what == 5:
                rest |= {"flags": POST_ONLY}
            elif what == 6:
                rest |= {"ord_type": STOP, "price_ticks": 0, "aux": price}
            elif what == 7:
                stop = price + (5 if side == BUY else -5)
                rest |= {"ord_type": STOP_LIMIT, "aux": stop}
            else:
                target = chance.randrange(max(10_000, next_id - 12), next_id)
                if what == 8:
                    commands.append(to(K.CANCEL, target, account=account))
                else:
                    fields = {"price_ticks": price, "qty_lots": qty, "aux": next_id}
                    commands.append(to(K.REPLACE, target, account=account, **fields))
                continue
            commands.append(changed(new(next_id, side, price, qty), **rest))
        yield commands


def _end(story: Story) -> None:
    story.frame(
        admin(K.MODE, instrument=ETH, epoch=1, aux=0),
        Command(kind=K.CLEAR, session=SHADOW, instrument=BTC),
        new(900, BUY, 500, 4, instrument=ETH, epoch=0, session=SHADOW),
        Command(kind=K.CLEAR, session=SHADOW, instrument=ETH),
        admin(K.CLEAR, instrument=ETH),
        admin(K.MODE, instrument=DOGE, epoch=2, aux=0),
        new(901, BUY, 500, 4, instrument=DOGE, epoch=2),
        admin(K.MODE, instrument=BTC, epoch=1, aux=2),
    )


def main() -> None:
    golden = GOLDEN / sys.argv[1]
    with tempfile.TemporaryDirectory() as made:
        journal = Journal.open(
            Path(made),
            shard=1,
            replay=lambda frame: None,
            segment_bytes_min=SEGMENT_BYTES,
            segment_bytes_max=SEGMENT_BYTES,
        )
        for ts_ns, commands in golden_frames():
            frame = bytearray(FRAME_HEADER_BYTES) + commands
            journal.append(frame, first_seq=journal.link.next_seq, ts_ns=ts_ns)
        journal.close()
        write(golden, Path(made))


if __name__ == "__main__":
    main()
