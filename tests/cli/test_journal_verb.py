"""`railswitch journal`: what operators read, and the exit codes that scripts rely on."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from running_cli import railswitch

from bridge.cli.exits import Exit
from engine.frame import FRAME_HEADER_BYTES
from engine.journal import Journal
from engine.types import Role
from engine.wire import encode_command, instrument_command, session_command

SMALL = 16 * 1024


def opened(directory: Path) -> Journal:
    return Journal.open(
        directory,
        shard=1,
        replay=lambda frame: None,
        segment_bytes_min=SMALL,
        segment_bytes_max=SMALL,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A session and 200 definitions of instruments, in some segments."""
    directory = tmp_path / "journal"
    one = opened(directory)
    commands = [session_command(session=1, name="control", role=Role.ADMIN)]
    commands += [
        instrument_command(
            instrument=n, name=f"I-{n}", price_ticks_max=1_000, qty_lots_max=9, ref=n
        )
        for n in range(1, 400)
    ]
    for command in commands:
        frame = bytearray(FRAME_HEADER_BYTES) + encode_command(command)
        if command.ref:
            frame[FRAME_HEADER_BYTES + 6] = 1
        seq = one.link.next_seq
        one.append(frame, first_seq=seq, ts_ns=1_700_000_000 * 10**9 + seq * 1_000)
    one.close()
    return directory


def damage(directory: Path, segment: int = 0) -> Path:
    path = sorted(directory.glob("*.journal"))[segment]
    with path.open("rb+") as file:
        file.seek(4096 + 64)
        file.write(b"\xff")
    return path


def test_verify_of_a_whole_journal(journal: Path) -> None:
    ran = railswitch("journal", "verify", str(journal), "--replay", "--implementation", "python")
    assert ran.code == Exit.DONE, ran.err
    assert "ok" in ran.out
    assert "sequences 1 to 400" in ran.out
    assert "every invariant holds" in ran.out
    ran = railswitch("journal", "verify", str(journal), "--json")
    assert ran.json["last_seq"] == 400
    assert ran.json["damage"] == ""


def test_verify_of_a_damaged_one_names_the_place_and_the_next_step(journal: Path) -> None:
    path = damage(journal)
    ran = railswitch("journal", "verify", str(journal))
    assert ran.code == Exit.FAILED
    assert f"{path}: offset 4096, sequence 1" in ran.out
    assert f"railswitch journal repair {journal}" in ran.out


def test_verify_of_no_journal(tmp_path: Path) -> None:
    ran = railswitch("journal", "verify", str(tmp_path))
    assert ran.code == Exit.FAILED
    assert ran.err == f"railswitch: {tmp_path} holds no journal: it has no *.journal file\n"


def test_dump_as_text_and_as_json_lines(journal: Path) -> None:
    words = ("journal", "dump", str(journal), "--from", "2", "--to", "3", "--events")
    words = (*words, "--implementation", "python")
    ran = railswitch(*words)
    assert ran.code == Exit.DONE, ran.err
    first, event, *_ = ran.out.splitlines()
    assert first.split()[:3] == ["2", "2023-11-14T22:13:20.000002000Z", "INSTRUMENT"]
    assert "name=I-1" in first
    assert event.split()[:2] == ["->", "INSTRUMENT"]
    lines = [msgspec.json.decode(line) for line in railswitch(*words, "--json").out.splitlines()]
    assert [line["seq"] for line in lines] == [2, 3]
    assert lines[0]["events"][0]["kind"] == "INSTRUMENT"
    ran = railswitch("journal", "dump", str(journal), "--kind", "session", "--session", "1")
    assert len(ran.out.splitlines()) == 1


def test_dump_of_a_kind_that_is_none(journal: Path) -> None:
    ran = railswitch("journal", "dump", str(journal), "--kind", "trade")
    assert ran.code == Exit.USAGE
    assert "choose one of NEW, CANCEL" in ran.err


def test_diff_of_equal_and_of_different_journals(journal: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(journal, other)
    ran = railswitch("journal", "diff", str(journal), str(other))
    assert ran.code == Exit.DONE
    assert ran.out.startswith("equal  sequences 1 to 400")
    one = opened(other)
    command = session_command(session=2, name="proxy-0", role=Role.TRADE)
    frame = bytearray(FRAME_HEADER_BYTES) + encode_command(command)
    one.append(frame, first_seq=401, ts_ns=one.link.next_ts_ns)
    one.close()
    ran = railswitch("journal", "diff", str(journal), str(other))
    assert ran.code == Exit.FAILED
    assert f"{journal} ends after sequence 400" in ran.out
    assert "name=proxy-0" in ran.out
    assert railswitch("journal", "diff", str(journal), str(other), "--json").json["what"]


def test_snapshot_is_made_once(journal: Path) -> None:
    words = ("journal", "snapshot", str(journal), "--implementation", "python")
    ran = railswitch(*words)
    assert ran.code == Exit.DONE, ran.err
    assert ".snapshot: " in ran.out
    assert "commands replayed" in ran.out
    assert "already" in railswitch(*words).out
    ran = railswitch("journal", "verify", str(journal), "--replay", "--implementation", "python")
    assert "the replay is equal" in ran.out


def test_repair_is_a_dry_run_that_says_what_is_lost_until_it_is_told(journal: Path) -> None:
    path = damage(journal, 1)
    first_seq = int(path.stem)
    before = {one: one.read_bytes() for one in journal.iterdir()}
    ran = railswitch("journal", "repair", str(journal))
    assert ran.code == Exit.DONE, ran.err
    assert f"lost: every command from sequence {first_seq} on" in ran.out
    assert "They may have been answered" in ran.out
    assert f"would be kept: everything up to sequence {first_seq - 1}" in ran.out
    assert f"{path.name} at " in ran.out
    assert "nothing has been done; --execute does it" in ran.err
    assert {one: one.read_bytes() for one in journal.iterdir()} == before
    plan = railswitch("journal", "repair", str(journal), "--json").json["plan"]
    ran = railswitch("journal", "repair", str(journal), "--execute")
    assert ran.code == Exit.DONE, ran.err
    assert ran.err == ""
    for name in plan["rewrites"] + plan["moves"]:
        assert (Path(plan["aside"]) / name).read_bytes() == before[journal / name]
    assert railswitch("journal", "verify", str(journal)).code == Exit.DONE
    again = railswitch("journal", "repair", str(journal), "--execute")
    assert f"nothing to repair: whole up to sequence {first_seq - 1}" in again.out


def test_repair_from_a_copy_loses_nothing(journal: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(journal, copy)
    damage(journal)
    ran = railswitch("journal", "repair", str(journal), "--from", str(copy), "--execute")
    assert ran.code == Exit.DONE, ran.err
    assert "nothing is lost" in ran.out
    assert railswitch("journal", "diff", str(journal), str(copy)).code == Exit.DONE


def test_repair_is_refused_where_a_copy_does_not_help(journal: Path, tmp_path: Path) -> None:
    damage(journal)
    copy = tmp_path / "copy"
    shutil.copytree(journal, copy)
    ran = railswitch("journal", "repair", str(journal), "--from", str(copy), "--execute")
    assert ran.code == Exit.REFUSED
    assert "Name another one" in ran.err


def test_repair_is_refused_while_an_engine_runs(journal: Path) -> None:
    shutil.rmtree(journal)
    running = opened(journal)
    ran = railswitch("journal", "repair", str(journal), "--execute")
    running.close()
    assert ran.code == Exit.REFUSED
    assert "is in use by another engine" in ran.err


def test_what_is_asked_wrongly_is_told(journal: Path) -> None:
    for words in ((), ("mend",), ("verify",), ("dump", str(journal), "--from", "x")):
        ran = railswitch("journal", *words)
        assert ran.code == Exit.USAGE
        assert "railswitch journal" in ran.err
