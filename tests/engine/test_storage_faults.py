"""A disk that fails under the engine, at the level of its system calls: it stops, showed nothing
that is not durable, and comes back with everything that was answered.

The same for both implementations: the calls of Python and those of the Rust core go through
`faults.c`. A sync that fails loses what it should have synced, as a disk may.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from crash_harness import Trader, answered, check_answers
from engine_harness import EngineProcess, engine_process, open_market, run, until
from journal_story import opened
from market_driver import market_or_skip

SOURCE = Path(__file__).with_name("faults.c")
# In the engine's process, before anything is imported: loads the library and begins again.
PRELOAD = """
import os, sys
if "FAULT_FILE" not in os.environ:
    os.environ |= {told}
    os.execv(sys.executable, sys.orig_argv)
import engine.limits
engine.limits.SEGMENT_BYTES_MIN = engine.limits.SEGMENT_BYTES_MAX = 300_000
"""
TRADERS = 2


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("SKIPPED, not passed: there is no C compiler (cc) to build the failing disk")
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", built, SOURCE, "-ldl", "-lpthread"], check=True
    )
    return built


class Disk:
    """The journal's directory on a disk that fails from when it is told to."""

    def __init__(self, tmp_path: Path, library: Path, implementation: str) -> None:
        self.directory = tmp_path / "journal"
        self.implementation = implementation
        self.traders = [Trader(f"proxy-{n}", 1 + n * 10**6, size=40) for n in range(TRADERS)]
        self._library = library
        self._when = tmp_path / "fails now"

    def engine(self, call: str, do: str, *, after: int = 0, file: str = ".journal") -> str:
        told = {
            "LD_PRELOAD": str(self._library),
            "FAULT_FILE": f"{self.directory}/" if file == "*" else file,
            "FAULT_WHEN": str(self._when),
            "FAULT_CALL": call,
            "FAULT_DO": do,
            "FAULT_AFTER": str(after),
        }
        return PRELOAD.replace("{told}", json.dumps(told))

    def fail(self) -> None:
        self._when.touch()

    def trade_until_it_ends(
        self, before: str, *, begin: bool, kill_after: int = 0
    ) -> tuple[int, str]:
        """Exit code and what was said; the disk fails from the first answers on."""
        self._when.unlink(missing_ok=True)
        with engine_process(
            self.directory, before=before, implementation=self.implementation
        ) as engine:
            assert engine.port, engine.end()
            if begin:
                run(open_market(engine.port))
            run(self._trade(engine, kill_after))
            return engine.end()

    def check(self) -> None:
        """It is recovered on a healthy disk; everything that was answered is there, once."""
        opened(self.directory, self.implementation, size=300_000).journal.close()
        check_answers(self.directory, self.implementation, self.traders)

    async def _trade(self, engine: EngineProcess, kill_after: int) -> None:
        before = answered(self.traders)
        trading = [asyncio.ensure_future(one.trade(engine.port)) for one in self.traders]
        await until(lambda: answered(self.traders) > before + 100, "they trade")
        self.fail()
        if kill_after:
            await until(lambda: answered(self.traders) > before + kill_after, "they go on")
            engine.process.kill()
        await asyncio.gather(*trading)


@pytest.fixture
def disk(tmp_path: Path, library: Path, implementation: str) -> Disk:
    market_or_skip(implementation)
    return Disk(tmp_path, library, implementation)


@pytest.mark.parametrize(
    ("call", "do", "told"),
    [
        ("sync", "eio", "Input/output error"),
        ("write", "eio", "Input/output error"),
        ("write", "enospc", "No space left on device"),
    ],
)
def test_a_disk_that_fails_stops_the_engine_and_nothing_answered_is_lost(
    disk: Disk, call: str, do: str, told: str
) -> None:
    """Again and again, after more and more calls: in frames, in what begins a segment."""
    for n, after in enumerate((0, 11)):
        code, said = disk.trade_until_it_ends(disk.engine(call, do, after=after), begin=not n)
        assert code == 1, said
        assert said.startswith("JournalFailed: ")
        assert told in said
        assert "Free space or replace the disk" in said
        assert "Traceback" not in said
        disk.check()


@pytest.mark.parametrize("call", ["sync", "write", "rename"])
def test_power_that_fails_loses_nothing_that_was_answered(disk: Disk, call: str) -> None:
    """What was written and not synced is gone, wherever it stands."""
    for n, after in enumerate((0, 9) if call != "rename" else (0, 1)):
        before = disk.engine(call, "power", after=after, file="*")
        code, _ = disk.trade_until_it_ends(before, begin=not n)
        assert code == -9
        disk.check()


def test_a_segment_that_cannot_be_begun_stops_the_engine(disk: Disk) -> None:
    for n in range(2):
        code, said = disk.trade_until_it_ends(disk.engine("rename", "eio"), begin=not n)
        assert code == 1
        assert said.startswith("JournalFailed: ")
        disk.check()


def test_short_writes_are_carried_on(disk: Disk) -> None:
    before = disk.engine("write", "short")
    code, said = disk.trade_until_it_ends(before, begin=True, kill_after=3_000)
    assert (code, said) == (-9, "")
    disk.check()


def test_a_slow_disk_is_waited_for(disk: Disk) -> None:
    before = disk.engine("sync", "slow")
    code, said = disk.trade_until_it_ends(before, begin=True, kill_after=1_000)
    assert (code, said) == (-9, "")
    disk.check()
