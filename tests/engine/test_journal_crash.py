"""A journal of real orders, cut and flipped everywhere: the state of a frame boundary, or refusal;
never another book.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from journal_story import Story, append, opened, written
from market_driver import market_or_skip

from engine.errors import JournalDamaged
from engine.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from engine.journal_walk import Walk
from engine.market import state_hash
from engine.segment import segment_paths
from engine.wire import COMMAND_BYTES

SIZE = 8 * 1024
REFUSED = "refused"


class Written:
    """A journal in one small segment, and the state after each of its frames."""

    def __init__(self, directory: Path, implementation: str) -> None:
        self.implementation = implementation
        self.directory = directory
        written(directory, Story(5), frames=4, size=SIZE, length=lambda n: (9, 6, 1, 12)[n])
        (self.path,) = segment_paths(directory)
        self.data = self.path.read_bytes()
        market = market_or_skip(implementation)
        self.states = [state_hash(market)]
        self.ends = [SEGMENT_HEADER_BYTES]
        for frame in Walk(directory).frames():
            market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
            self.states.append(state_hash(market))
            size = FRAME_HEADER_BYTES + len(frame.commands)
            self.ends.append(self.ends[-1] + size)
        assert len(set(self.states)) == 5

    def outcome(self, data: bytes) -> str:
        """The state that an engine comes to, or that it refuses and changes nothing."""
        self.path.write_bytes(data)
        found, told = None, ""
        try:
            found = opened(self.directory, self.implementation, size=SIZE)
        except JournalDamaged as error:
            told = str(error)
        if found is None:
            assert str(self.path) in told
            assert re.search(r"journal (verify|repair) |`engine.shard`|later one", told)
            assert self.path.read_bytes() == data
            return REFUSED
        found.market.check()
        found.journal.close()
        return found.hash


@pytest.fixture
def journal(tmp_path: Path, implementation: str) -> Written:
    market_or_skip(implementation)
    return Written(tmp_path, implementation)


def test_cut_at_every_offset_it_is_the_state_of_the_last_whole_frame(journal: Written) -> None:
    before, last = journal.ends[-3], journal.ends[-1]
    for cut in [*range(SEGMENT_HEADER_BYTES, before, 7), *range(before, last + 2)]:
        whole = sum(end <= cut for end in journal.ends) - 1
        assert journal.outcome(journal.data[:cut]) == journal.states[whole], cut


def test_cut_inside_its_header_it_is_refused(journal: Written) -> None:
    for cut in range(0, SEGMENT_HEADER_BYTES, 97):
        assert journal.outcome(journal.data[:cut]) == REFUSED, cut


def test_emptied_from_every_record_on_it_is_the_state_of_the_last_whole_frame(
    journal: Written,
) -> None:
    """What a disk leaves that wrote the first sectors and not the last ones."""
    for cut in range(SEGMENT_HEADER_BYTES, journal.ends[-1] + 1, COMMAND_BYTES):
        data = journal.data[:cut].ljust(len(journal.data), b"\0")
        whole = sum(end <= cut for end in journal.ends) - 1
        assert journal.outcome(data) == journal.states[whole], cut


def test_with_a_bit_flipped_anywhere_it_is_refused_or_nothing_is_different(
    journal: Written,
) -> None:
    """Every byte of the header and of the frames, and the empty part behind them here and there."""
    end = journal.ends[-1]
    step = 1 if journal.implementation == "python" else 11  # the journal is read by the same code
    for at in [*range(0, end, step), *range(end, len(journal.data), 61)]:
        data = bytearray(journal.data)
        data[at] ^= 1 << (at * 5) % 8
        outcome = journal.outcome(bytes(data))
        if at < end:
            assert outcome == REFUSED, at
        else:
            assert outcome in (REFUSED, journal.states[-1]), at


def test_with_a_record_emptied_anywhere_nothing_that_follows_is_lost_silently(
    journal: Written,
) -> None:
    """Behind it good frames stand: no crash leaves that. In the last frame one does."""
    last = journal.ends[-2]
    for at in range(SEGMENT_HEADER_BYTES, journal.ends[-1], COMMAND_BYTES):
        data = bytearray(journal.data)
        data[at : at + COMMAND_BYTES] = bytes(COMMAND_BYTES)
        expected = REFUSED if at < last else journal.states[-2]
        assert journal.outcome(bytes(data)) == expected, at


def test_after_a_cut_it_goes_on_and_the_cut_frame_never_comes_back(journal: Written) -> None:
    cut = journal.ends[-1] - 5
    assert journal.outcome(journal.data[:cut]) == journal.states[-2]
    found = opened(journal.directory, journal.implementation, size=SIZE)
    first_seq = found.journal.link.next_seq
    append(found.journal, Story(6).frame(2))
    found.journal.close()
    again = opened(journal.directory, journal.implementation, size=SIZE)
    again.journal.close()
    assert again.frames[-1].first_seq == first_seq
    assert len(again.frames) == 4
