"""The journal's writing half: a frame is on the disk before anything of it is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engine.errors import JournalFailed
from engine.frame import SEGMENT_HEADER_BYTES, Link, seal_frame, segment_header
from engine.limits import COMMAND_STEP_NS, SEGMENT_GROWTH
from engine.preparer import Preparer, Zeroing
from engine.segment import segment_path, sync_directory, write_all


class JournalWriter:
    """Goes on at `offset` of `path`, after `link`; its last frame begins at `last_offset`. `append`
    and `rotate` are for one thread. Takes `lock_fd` over: `close` gives the directory up.

    Raises OSError.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shard: int,
        lock_fd: int,
        path: Path,
        offset: int,
        last_offset: int,
        link: Link,
        bytes_max: int,
    ) -> None:
        self.link = link  # what the next frame must follow, while `append` writes them
        self.path = path
        self.offset = offset
        self._directory = directory
        self._shard = shard
        self._lock_fd = lock_fd
        self._bytes_max = bytes_max
        self._fd = os.open(path, os.O_RDWR)
        _write_again(self._fd, last_offset, offset)
        sync_directory(directory)
        self.size = os.fstat(self._fd).st_size
        self._preparer = Preparer(directory)

    def prepare(self, zeroing: Callable[[], Zeroing]) -> None:
        """Begins to prepare the next segment, ahead of its need."""
        self._preparer.zeroing = zeroing
        self._preparer.begin(self._next_bytes())

    def append(self, frame: bytearray, *, first_seq: int, ts_ns: int) -> None:
        """Writes a frame (64 free bytes, then commands) and waits until it is durable.

        Raises JournalFailed; the journal is then not to be used again.
        """
        assert first_seq == self.link.next_seq, "a frame must follow the one before it"
        assert ts_ns >= self.link.next_ts_ns, "sequencer time must not go back"
        try:
            if self.offset + len(frame) > self.size:
                self.rotate(len(frame), after=self.link)
            link = seal_frame(
                frame, first_seq=first_seq, ts_ns=ts_ns, after=self.link, step_ns=COMMAND_STEP_NS
            )
            write_all(self._fd, frame, self.offset)
            os.fdatasync(self._fd)
        except OSError as error:
            raise journal_failed(f"writing {self.path}", error) from error
        self.offset += len(frame)
        self.link = link
        self.advance(self.offset)

    def advance(self, offset: int) -> None:
        """Frames have been written up to there: the next segment is prepared at that pace. Cheap,
        and for any thread.
        """
        self._preparer.advance(offset / self.size)

    def rotate(self, frame_bytes: int, *, after: Link) -> None:
        """Begins another segment, with room for a frame of so many bytes. Raises OSError."""
        prepared, size = self._preparer.take(self._next_bytes())
        path = segment_path(self._directory, after.next_seq)
        fd = begin_segment(prepared, path, shard=self._shard, after=after)
        os.close(self._fd)
        self._fd, self.path = fd, path
        self.offset, self.size = SEGMENT_HEADER_BYTES, max(size, SEGMENT_HEADER_BYTES + frame_bytes)
        self._preparer.begin(self._next_bytes())

    def close(self) -> None:
        self._preparer.close()
        os.close(self._fd)
        os.close(self._lock_fd)

    def _next_bytes(self) -> int:
        """Segments grow with what is written: a quiet shard never holds a large one."""
        return min(self._bytes_max, self.size * SEGMENT_GROWTH)


def _write_again(fd: int, start: int, end: int) -> None:
    """Makes sure of what was replayed: only the last frame can have been written and not synced. A
    sync alone would not do: where one has failed, Linux takes the pages for clean, gives them back
    to whoever reads, and never writes them. Raises OSError.
    """
    write_all(fd, os.pread(fd, end - start, start), start)
    os.fsync(fd)


def begin_segment(prepared: Path, path: Path, *, shard: int, after: Link) -> int:
    """Under its name it is whole or not there: header and zeros are durable before the name is.
    Returns it open for writing. Raises OSError.
    """
    fd = os.open(prepared, os.O_RDWR)
    try:
        write_all(fd, segment_header(shard=shard, after=after), 0)
        os.fsync(fd)
        prepared.rename(path)
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def journal_failed(doing: str, error: OSError) -> JournalFailed:
    return JournalFailed(
        f"{doing} failed: {error.strerror or error}. The engine has stopped, and showed nothing "
        f"that is not durable. Free space or replace the disk, then start it again: it goes on "
        f"from its journal"
    )
