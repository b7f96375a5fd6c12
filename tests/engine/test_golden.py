"""Journals that releases wrote replay to what those releases made of them, for ever."""

from __future__ import annotations

from pathlib import Path

import crc32c
import numpy as np
import pytest
from golden import GOLDEN, detail_lines, event_lines, replayed, state_lines, unpack
from market_driver import BTC, market_or_skip, new, set_mode

from engine.errors import JournalDamaged
from engine.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from engine.journal import Journal
from engine.limits import RULES
from engine.reject import Reason
from engine.replay import Frame
from engine.segment import segment_paths
from engine.types import CommandKind, EventKind, Mode
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, encode_commands

SMALL = 16 * 1024
RELEASES = sorted(path.name for path in GOLDEN.iterdir())


def opened(directory: Path) -> tuple[Journal, list[Frame]]:
    frames: list[Frame] = []
    journal = Journal.open(
        directory, shard=1, replay=frames.append, segment_bytes_min=SMALL, segment_bytes_max=SMALL
    )
    return journal, frames


def reseal(path: Path, offset: int, version: int) -> None:
    """Gives the frame at an offset another version, with the right checksum."""
    with path.open("rb+") as file:
        file.seek(offset)
        header = bytearray(file.read(FRAME_HEADER_BYTES))
        header[4:6] = version.to_bytes(2, "little")
        header[60:] = crc32c.crc32c(header[:60]).to_bytes(4, "little")
        file.seek(offset)
        file.write(header)


@pytest.mark.parametrize("release", RELEASES)
def test_a_golden_journal_replays_to_what_its_release_made_of_it(
    tmp_path: Path, release: str, implementation: str
) -> None:
    unpack(GOLDEN / release, tmp_path)
    found = replayed(tmp_path, market_or_skip(implementation))
    lines = [line for events in found.events for line in event_lines(events)]
    assert lines == (GOLDEN / release / "events.txt").read_text().splitlines()
    state = (GOLDEN / release / "state.txt").read_text().splitlines()
    assert list(state_lines(found.market)) == state
    detail = GOLDEN / release / "detail.txt"
    if detail.exists():
        assert list(detail_lines(found.market)) == detail.read_text().splitlines()
    assert {frame.rules for frame in found.frames} == {int(release.removeprefix("v"))}
    found.market.check()


def test_the_golden_journal_of_today_has_every_kind_and_event(tmp_path: Path) -> None:
    unpack(GOLDEN / f"v{RULES}", tmp_path)
    found = replayed(tmp_path, market_or_skip("python"))
    commands = np.concatenate([np.frombuffer(one.commands, COMMAND_DTYPE) for one in found.frames])
    events = np.concatenate([np.frombuffer(one, EVENT_DTYPE) for one in found.events])
    assert set(CommandKind) <= set(commands["kind"].tolist())
    assert set(EventKind) == set(events["kind"].tolist())
    refused = events[events["kind"] == EventKind.REJECTED]["seq"] - 1
    assert set(CommandKind) <= set(commands[refused]["kind"].tolist())
    # Full bounds need thousands of orders; an outcome that has expired is never journalled.
    bounds = {Reason.BOOK_FULL, Reason.LEVELS_FULL, Reason.STOPS_FULL, Reason.ACCOUNTS_FULL}
    assert set(Reason) - set(events["reason"].tolist()) == bounds | {Reason.OUTCOME_EXPIRED}


def test_an_old_journal_is_continued_under_the_rules_of_today(
    tmp_path: Path, implementation: str
) -> None:
    unpack(GOLDEN / "v1", tmp_path)
    before = replayed(tmp_path, market_or_skip(implementation))
    journal, frames = opened(tmp_path)
    assert frames == before.frames
    # A fill-or-kill order: BAD_FIELD in every frame of version 1, an order like others in this.
    commands = encode_commands(
        [
            set_mode(Mode.LIVE, 3),
            new(10**9, 1, 50, 1, epoch=3, ref=2 * 10**6, tif=4),
        ]
    )
    last_refs = {each.session: each.last_ref for each in before.market.sessions()}
    commands = bytearray(commands)
    commands[16:24] = (last_refs[1] + 1).to_bytes(8, "little")
    frame = bytearray(FRAME_HEADER_BYTES) + commands
    journal.append(frame, first_seq=journal.link.next_seq, ts_ns=journal.link.next_ts_ns)
    journal.close()
    after = replayed(tmp_path, market_or_skip(implementation))
    assert after.events[:-1] == before.events
    assert [one.rules for one in after.frames] == [1] * len(before.frames) + [RULES]
    told = [line.split(" ", 1)[1] for line in event_lines(after.events[-1])]
    assert told[0].startswith("kind=17 flags=3")
    assert f"kind=1 side=1 ord_type=2 tif=4 flags=2 instrument={BTC}" in told[1]


def test_a_journal_of_a_later_release_is_refused_with_what_to_do(tmp_path: Path) -> None:
    unpack(GOLDEN / "v1", tmp_path)
    *_, last = segment_paths(tmp_path)
    reseal(last, SEGMENT_HEADER_BYTES, RULES + 1)
    before = last.read_bytes()
    with pytest.raises(JournalDamaged) as caught:
        opened(tmp_path)
    told = str(caught.value)
    assert f"{last}: the frame at offset 4096" in told
    assert f"a newer release wrote it (version {RULES + 1}; this one reads up to {RULES})" in told
    assert "Start the release that wrote it, or a later one" in told
    assert "damaged" not in told
    assert last.read_bytes() == before


def test_a_version_that_never_was_is_refused(tmp_path: Path) -> None:
    unpack(GOLDEN / "v1", tmp_path)
    *_, last = segment_paths(tmp_path)
    reseal(last, SEGMENT_HEADER_BYTES, 0)
    with pytest.raises(JournalDamaged, match="its version is 0"):
        opened(tmp_path)
