"""A wire to Redis that carries little: what is large takes its time on it, and arrives."""

from __future__ import annotations

from pathlib import Path

import pytest
from capture_rig import Given, Reader, Relay, home, shipping
from proxy_rig import run, until

from bridge.proxy.capture import ship, stream
from bridge.proxy.capture.ship import Shipper


@pytest.mark.parametrize("spooled", [False, True], ids=["at once", "from the spool"])
def test_a_large_batch_is_given_the_time_that_its_bytes_need(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, spooled: bool
) -> None:
    monkeypatch.setattr(stream, "REDIS_ANSWER_S", 0.1)  # an empty batch's
    monkeypatch.setattr(stream, "REDIS_BYTES_PER_S_MIN", 300_000)

    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with Relay(port) as wire:
            wire.delay_s = 0.03  # of each 64 KiB, both ways
            wire.refuses = spooled
            shipper = Shipper([source], wire.url, home=mine, spool_bytes_max=1 << 24)
            async with shipping(shipper, within_s=20.0):
                source.give(10, body=b"x" * 60_000)
                if spooled:
                    await until(lambda: shipper.spooled_bytes)
                    wire.refuses = False
                await until(lambda: Reader().read(redis_url).numbers() == list(range(1, 11)))
            Reader().read(redis_url).assert_closed(10)

    run(story())


def test_behind_a_slow_batch_captures_go_to_the_disk_and_not_over_the_queue_s_edge(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "TEE_SLOW_S", 0.02)

    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with Relay(port) as wire:
            wire.delay_s = 0.05
            shipper = Shipper([source], wire.url, home=mine, spool_bytes_max=1 << 24)
            async with shipping(shipper, within_s=20.0):
                source.give(1)
                await until(lambda: Reader().read(redis_url).numbers() == [1])
                source.give(10, body=b"x" * 60_000)
                await until(lambda: shipper.spooled_bytes)
                await until(lambda: Reader().read(redis_url).numbers() == list(range(1, 12)))
            Reader().read(redis_url).assert_closed(11)

    run(story())
