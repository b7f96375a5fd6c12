"""Orders of the same clients answered by Rails, by Rails behind the proxy, and by the engine:
`PYTHONPATH=tests .venv/bin/python tests/rails/measure.py --write docs/performance.md`.

Closed loop: each client sends its next order or cancel when it has the answer to the last. Clients,
Puma, two PostgreSQL servers and all of railswitch share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rails_world import PROCESSES, RailsWorld

from bridge.bench.conditions import conditions
from bridge.sandbox.load import DEFAULT_SYMBOLS, Load

SYMBOL = DEFAULT_SYMBOLS[:1]
GATE = {
    "operations_min": 200,
    "fills_min": 10,
    "shadow_s_min": 1.0,
    "engine_p99_us_max": 5_000_000.0,
    "engine_p999_us_max": 5_000_000.0,
}
CLIENTS = 8
WARM_UP_S = 3.0
PATIENCE_S = 120.0
POLL_S = 0.2
BEGIN, END = "<!-- measured by tests/rails/measure.py: begin -->", "<!-- rails: end -->"
DIRECT, PROXIED, LIVE = "Rails, directly", "Rails, through the proxy", "the engine, after the flip"


async def measured(world: RailsWorld, seconds: float) -> list[str]:
    """A row for each of the three."""
    await asyncio.to_thread(world.start_monolith)
    rows = [await _row(DIRECT, world.rails.url, seconds, seed=1)]
    await asyncio.to_thread(world.start_railswitch)
    await _operator(world, "stage", "shadow")
    load = Load(world.proxy_url, SYMBOL, seed=2, rate_per_s=50.0, clients=CLIENTS)
    await load.start()
    await _until_gate_passes(world)
    await load.stop()
    rows.append(await _row(PROXIED, world.proxy_url, seconds, seed=3))
    await _until_gate_passes(world)
    await _operator(world, "flip")
    rows.append(await _row(LIVE, world.proxy_url, seconds, seed=4))
    return rows


async def _row(name: str, url: str, seconds: float, *, seed: int) -> str:
    load = Load(url, SYMBOL, seed=seed, rate_per_s=None, clients=CLIENTS)
    load.phase("warm-up")
    await load.start()
    await asyncio.sleep(WARM_UP_S)
    load.phase(name)
    await asyncio.sleep(seconds)
    load.phase("end")
    result = await load.stop()
    told = result.latency(name)
    p50, p99 = (told.get_value_at_percentile(at) / 1000 for at in (50, 99))
    failed = sum(result.failed.values()) + sum(n for s, n in result.statuses.items() if s >= 500)
    count = told.get_total_count()
    return (
        f"| {name} | {count / seconds:,.0f} | {p50:.1f} ms | {p99:.1f} ms | {count:,} | {failed} |"
    )


async def _operator(world: RailsWorld, verb: str, *words: str) -> None:
    done = await asyncio.to_thread(world.railswitch, verb, "BTC-USD", *words, "--execute")
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


async def _until_gate_passes(world: RailsWorld) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(_gate, world) != "pass":  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(POLL_S)


def _gate(world: RailsWorld) -> str:
    return next(one.gate for one in world.control.status().instruments if one.symbol == "BTC-USD")


def page(rows: list[str], where: Path, seconds: float) -> str:
    heads = "| answered by | requests/s | P50 | P99 | requests | failed |"
    own = f"{CLIENTS} clients, closed loop, {seconds:g} s each; Puma {PROCESSES['WEB_CONCURRENCY']}"
    own += f" processes of {PROCESSES['EXCHANGE_THREADS']} threads, Rails 6.1; one instrument"
    found = "; ".join(f"{name}: {value}" for name, value in conditions(where).items())
    return "\n".join([heads, "| --- " * 6 + "|", *rows, "", f"{own}; {found}."])


@contextmanager
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="railswitch-rails-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each of the three")
    parser.add_argument("--write", type=Path, help="a page with the marks that the table is put in")
    args = parser.parse_args()
    with directory() as where, RailsWorld(where, gate=GATE) as world:
        told = page(asyncio.run(measured(world, args.seconds)), where, args.seconds)
    print(told)
    if args.write:
        before, _, rest = args.write.read_text().partition(BEGIN)
        if not rest:
            sys.exit(f"{args.write} has no line {BEGIN}")
        args.write.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
