"""What clients can't use up: file descriptors, and the time of everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from engine_harness import (
    Raw,
    engine_process,
    open_market,
    raw,
    run,
    service,
    started,
    until,
)
from market_driver import BTC, new

from engine import limits
from engine.protocol import MessageType, Query, RejectCode, Reply, packed
from engine.service import Service
from engine.types import Role

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
"""
NEEDED = 2 * limits.CONNECTIONS_MAX + limits.FILES_RESERVE


def open_sockets() -> int:
    """Files come and go meanwhile: the journal prepares its next one."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def test_refused_connections_are_told_so_and_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 60.0)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as trader, raw(port) as silent:
                await silent.login("silent")
                before = open_sockets()
                many = [await Raw.connect(port) for _ in range(200)]
                try:
                    # The other ends stay open; the engine's own are gone.
                    await until(lambda: open_sockets() <= before + len(many), "refused are closed")
                    for one in many:
                        payload = await one.rejected()
                        assert payload.code == RejectCode.FULL
                finally:
                    for one in many:
                        one.close()
                (answer,) = await trader.send([new(1)], timeout_s=20.0)
                assert answer.events[0].reason == 0

    run(story())


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    before = LIMITED.format(soft=NEEDED - 1, hard=NEEDED)
    with engine_process(tmp_path, before=before) as engine:
        limits_of_it = Path(f"/proc/{engine.process.pid}/limits").read_text()
        (line,) = (line for line in limits_of_it.splitlines() if line.startswith("Max open files"))
        assert line.split()[3:5] == [str(NEEDED), str(NEEDED)]
        assert engine.terminate() == (0, "")


def test_an_engine_that_may_open_too_few_files_does_not_start(tmp_path: Path) -> None:
    before = LIMITED.format(soft=256, hard=NEEDED - 1)
    with engine_process(tmp_path, before=before) as engine:
        code, told = engine.end()
    assert code != 0
    assert told.startswith("ListenFailed")
    assert f"may open {NEEDED - 1} files and needs {NEEDED}" in told
    assert f"ulimit -n {NEEDED}" in told


def questions(count: int) -> bytes:
    return b"".join(
        packed(MessageType.QUERY, Query(id=n, what="status")) for n in range(1, count + 1)
    )


def test_a_few_questions_at_once_are_answered_and_one_more_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    reply = Service._reply

    def watched(self: Service, query: Query) -> Reply:
        computed.append(query.id)
        return reply(self, query)

    monkeypatch.setattr(Service, "_reply", watched)

    async def story() -> None:
        async with service(tmp_path) as port, raw(port) as one:
            await one.login("asker", Role.READ_ONLY, observe=True)
            for _ in range(3):
                await one.send(questions(limits.QUERIES_OPEN_MAX))
                for n in range(1, limits.QUERIES_OPEN_MAX + 1):
                    payload = await one.expect(MessageType.REPLY)
                    assert msgspec.msgpack.decode(payload, type=Reply).id == n
            computed.clear()
            await one.send(questions(5_000))
            rejected = await one.rejected()
            assert rejected.code == RejectCode.PROTOCOL
            assert f"{limits.QUERIES_OPEN_MAX} questions" in rejected.reason
            # What a connection asked that is sent away is not looked up any more.
            assert len(computed) <= limits.QUERIES_OPEN_MAX

    run(story())


def test_a_client_that_asks_much_at_once_waits_for_its_turn(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                books = await asyncio.gather(*(one.book(BTC) for _ in range(100)))
                assert len(books) == 100

    run(story())
