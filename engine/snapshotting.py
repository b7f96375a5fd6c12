"""Keeps a shard's snapshots fresh: starts a process that makes one when the journal has grown.

The process reads the journal from the disk and knows nothing of the engine; whatever becomes of it,
the engine goes on.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

from engine import limits
from engine.segment import segment_paths
from engine.snapshot_file import next_seq_of, snapshot_paths

log = logging.getLogger(__name__)


def grown_bytes(directory: Path) -> int:
    """What the journal's finished segments hold that is in no snapshot."""
    segments = segment_paths(directory)[:-1]
    snapshots = snapshot_paths(directory)
    begin = next_seq_of(snapshots[-1]) if snapshots else 0
    return sum(path.stat().st_size for path in segments if next_seq_of(path) >= begin)


class Growth:
    """Of a journal, look by look: whether it is time for a snapshot."""

    def __init__(self) -> None:
        self.wanted_bytes = limits.SNAPSHOT_EVERY_BYTES
        self._looks: deque[int] = deque(maxlen=limits.SNAPSHOT_BUSY_LOOKS)

    def is_due(self, grown: int) -> bool:
        self._looks.append(grown)
        is_busy = grown - self._looks[0] > limits.SNAPSHOT_BUSY_BYTES
        latest = max(self.wanted_bytes, limits.SNAPSHOT_LATEST_BYTES)
        return grown >= (latest if is_busy else self.wanted_bytes)


class Snapshots:
    """Looks in a thread of its own, from when it is made until `close`."""

    def __init__(self, directory: Path, *, shard: int, implementation: str) -> None:
        self._directory = directory
        self._command = [
            *(sys.executable, "-m", "engine.snapshotter", str(directory)),
            *("--shard", str(shard), "--implementation", implementation),
            *("--nice", str(limits.SNAPSHOT_NICE)),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._growth = Growth()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends a process that is at work: the next engine begins it again."""
        with self._lock:
            self._is_closed.set()
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(limits.SNAPSHOT_LOOK_S):
            try:
                if self._growth.is_due(grown_bytes(self._directory)):
                    self._take()
            except OSError as error:
                log.warning("no snapshot could be made, the engine goes on: %s", error)
                self._wait_longer()

    def _take(self) -> None:
        with self._lock:
            if self._is_closed.is_set():
                return
            self._process = process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        told, _ = process.communicate()
        with self._lock:
            self._process = None
        if self._is_closed.is_set():
            return
        if process.returncode == 0:
            self._growth.wanted_bytes = limits.SNAPSHOT_EVERY_BYTES
            log.info("%s", told.strip())
        else:
            log.warning(
                "no snapshot could be made, the engine goes on; recovery takes longer until there "
                "is one: %s",
                told.strip() or f"its process ended with {process.returncode}",
            )
            self._wait_longer()

    def _wait_longer(self) -> None:
        """What failed once is not tried again every second."""
        self._growth.wanted_bytes += limits.SNAPSHOT_EVERY_BYTES
