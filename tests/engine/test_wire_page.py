"""docs/reference/engine-wire.md and engine-client.md: their bytes and programs are what happens."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from engine_harness import KEYS, WAIT_S, Raw, open_market, run, service
from market_driver import market_or_skip

from engine import limits
from engine.protocol import HEADER, MessageType, RejectCode
from engine.rules import PERMITTED
from engine.types import GATEWAY_KINDS, CommandKind, EventKind, Role

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
WIRE = (REFERENCE / "engine-wire.md").read_text()
CLIENT = (REFERENCE / "engine-client.md").read_text()


def conversations() -> Iterator[list[tuple[str, bytes]]]:
    """Of each block of bytes: who sends what, in order. `>` is the client."""
    for block in re.findall(r"```hex\n(.*?)```", WIRE, re.DOTALL):
        told: list[tuple[str, bytes]] = []
        for line in block.splitlines():
            direction, digits = line[:1], line.partition("#")[0]
            if direction in "<>":
                told.append((direction, b""))
            who, data = told[-1]
            told[-1] = (who, data + bytes.fromhex(digits.lstrip("<>")))
        yield told


def test_the_example_is_what_an_engine_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market_or_skip("rust")
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000 * 10**9)
    monkeypatch.setattr(limits, "HEARTBEAT_S", 600.0)

    async def story() -> None:
        async with service(tmp_path, implementation="rust") as port:
            await open_market(port)
            for conversation in conversations():
                one = await Raw.connect(port)
                for who, data in conversation:
                    if who == ">":
                        await one.send(data)
                    else:
                        async with asyncio.timeout(WAIT_S):
                            assert (await one.reader.readexactly(len(data))).hex() == data.hex()
                one.close()

    assert [len(told) for told in conversations()] == [9, 4]
    run(story())


def test_the_example_holds_every_byte_of_its_messages() -> None:
    for conversation in conversations():
        for _, data in conversation:
            size, kind, _, _ = HEADER.unpack_from(data)
            assert len(data) == HEADER.size + size
            assert kind in set(MessageType)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The tables of a section, by their first column."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {each[0]: each[1:] for each in cells}


def test_every_type_of_message_is_on_the_page() -> None:
    table = rows(WIRE, "Connecting")
    for kind in MessageType:
        assert table[chr(kind)][0] == kind.name


def test_every_code_of_a_disconnection_is_on_the_page() -> None:
    assert set(rows(WIRE, "Why a connection ends")) - {"code"} == set(RejectCode)


def test_every_kind_is_on_the_page_with_its_number() -> None:
    commands, events = rows(WIRE, "Commands"), rows(WIRE, "Events")
    for kind in set(CommandKind) - GATEWAY_KINDS:
        assert commands[kind.name][0] == str(int(kind))
    for kind in GATEWAY_KINDS:
        assert f"{kind.name} ({int(kind)})" in WIRE
    for event in EventKind:
        assert events[event.name][0] == str(int(event))


@pytest.mark.parametrize("role", Role)
def test_what_a_role_may_send_is_on_the_page(role: Role) -> None:
    table = rows(WIRE, "Logging in")
    number, sends, asks = table[role.name.lower().replace("_", "-")]
    named = {kind for kind in CommandKind if re.search(rf"\b{kind.name}\b", sends)}
    assert (int(number), asks) == (role, "yes")
    assert named == PERMITTED[role] - GATEWAY_KINDS


@pytest.mark.parametrize(
    "told",
    [
        f"{limits.LOGIN_PAYLOAD_BYTES_MAX:,}",
        f"{limits.CLIENT_PAYLOAD_BYTES_MAX:,}",
        f"1 to {limits.FRAME_COMMANDS_MAX} commands",
        f"{limits.SILENCE_S:g}\nseconds|{limits.SILENCE_S:g} s",
        f"{limits.OUTBOUND_BYTES_MAX // 2**20} MiB",
        f"{limits.OUTCOME_BYTES_MAX // 2**20} MiB",
        f"{limits.CLIENT_UNANSWERED_MAX:,} commands unanswered",
        f"{limits.MASS_CANCEL_MAX:,} at most",
        f"{limits.SESSIONS_MAX} names",
        f"{limits.CONNECTIONS_MAX} connections",
        f"{limits.ABSENCE_GRACE_S:g} seconds after",
    ],
)
def test_bounds_are_on_the_page(told: str) -> None:
    assert re.search(told, WIRE)


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", CLIENT, re.DOTALL)


@pytest.mark.parametrize(("program", "printed"), programs())
def test_programs_print_what_the_page_says(tmp_path: Path, program: str, printed: str) -> None:
    """Each on an engine of its own, with nothing defined."""
    market_or_skip("rust")
    said = StringIO()

    async def story() -> None:
        async with service(tmp_path, implementation="rust") as port:
            names: dict[str, object] = {}
            exec(compile(program, "engine-client.md", "exec"), names)
            with redirect_stdout(said):
                await names["main"]("127.0.0.1", port, KEYS)  # type: ignore[operator]

    run(story())
    assert said.getvalue() == printed


def test_there_are_programs() -> None:
    assert len(programs()) == 2
