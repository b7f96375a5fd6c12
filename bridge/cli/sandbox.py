"""`railswitch sandbox`: a small exchange with Rails' manners, and clients for it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import time
from pathlib import Path

import msgspec
from rich.live import Live
from rich.table import Table

from bridge.cli.common import add_json_option
from bridge.cli.exits import Exit
from bridge.cli.output import (
    console,
    micros,
    print_json_line,
    problem,
    progress,
    summary_us,
    table,
)
from bridge.cli.process import log_to_stderr
from bridge.config_rules import host_port
from bridge.sandbox import monolith, provision
from bridge.sandbox.example import example_config
from bridge.sandbox.load import DEFAULT_MIX, Load
from bridge.sandbox.servers import EmbeddedPostgres
from bridge.sandbox.told import LoadResult

DESCRIPTION = """\
Without a word: runs the exchange, with its own PostgreSQL, in the foreground, and writes a
railswitch.toml for it into the directory (if there is none yet), with a gate that needs minutes
instead of an hour. `load` drives orders at it, or at the proxy in front of it. The faults make it
do what monoliths do: priority breaks time priority now and then, rounding rounds a price, dark
writes orders that no proxy sees.
"""

EXAMPLE = """\
  railswitch sandbox                                       # terminal 1: the exchange
  railswitch up --config railswitch-sandbox/railswitch.toml        # terminal 2
  railswitch sandbox load --to http://127.0.0.1:8300 --rate 200    # terminal 3
  railswitch sandbox --fault priority:ETH-USD:0.02"""

_GATE = """
# Small, so that nobody waits an hour to try it out; a real exchange keeps the defaults.
[gate]
operations_min = 2000
fills_min = 200
shadow_s_min = 30.0
engine_p99_us_max = 50000.0 # everything shares this machine's cores
engine_p999_us_max = 250000.0
"""

_SHOWN = ("p50_us", "p99_us", "max_us")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("exchange", "load"), default="exchange")
    exchange = parser.add_argument_group("exchange")
    exchange.add_argument(
        "--directory", default="railswitch-sandbox", help="default: ./railswitch-sandbox"
    )
    exchange.add_argument("--listen", default="127.0.0.1:3000", metavar="HOST:PORT")
    exchange.add_argument("--postgres-port", type=int, default=54320, metavar="PORT")
    exchange.add_argument("--workers", type=int, default=2)
    exchange.add_argument("--fault", action="append", default=[], metavar="KIND:SYMBOL:NUMBER")
    load = parser.add_argument_group("load")
    load.add_argument("--to", default="http://127.0.0.1:8300", metavar="URL")
    load.add_argument("--rate", type=float, default=200.0, help="requests per second, open loop")
    load.add_argument("--clients", type=int, default=24)
    load.add_argument(
        "--bulk",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the requests that place or cancel several orders, e.g. 0.02; default: 0",
    )
    load.add_argument("--seconds", type=float, default=0.0, help="default: until Ctrl-C")
    parser.add_argument("--seed", type=int, default=1)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    if args.what == "load":
        return asyncio.run(_load(args))
    log_to_stderr()
    return _exchange(args)


def _exchange(args: argparse.Namespace) -> Exit:
    faults = monolith.parse_faults(args.fault)
    host, port = host_port(args.listen)
    directory = Path(args.directory).absolute()
    server = EmbeddedPostgres(directory / "postgres", port=args.postgres_port)
    with contextlib.ExitStack() as stack:
        with progress("starting PostgreSQL"):
            server.start()
            stack.callback(server.stop)
            url = provision.provision(server.url())
        settings = monolith.MonolithSettings(
            database_url=url,
            host=host,
            port=port,
            workers=args.workers,
            faults=faults,
            seed=args.seed,
        )
        monolith.run(
            settings, ready=lambda port: _tell(directory, url, f"{host}:{port}", args.json)
        )
    return Exit.DONE


def _tell(directory: Path, url: str, listen: str, json: bool) -> None:
    file = directory / "railswitch.toml"
    made = not file.exists()
    if made:
        file.write_text(example_config(url, f"http://{listen}") + _GATE)
    elif url not in file.read_text():
        problem(f"{file} was written for another exchange than {url}: remove it to have a new one")
    if json:
        print_json_line({"url": f"http://{listen}", "database_url": url, "config": str(file)})
        return
    out = console()
    out.print(f"The exchange answers on http://{listen}; its database is {url}.")
    out.print(f"{'Wrote' if made else 'Kept'} {file}. Next: railswitch up --config {file}")


async def _load(args: argparse.Namespace) -> Exit:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mix = msgspec.structs.replace(DEFAULT_MIX, bulk=args.bulk)
    load = Load(args.to, seed=args.seed, rate_per_s=args.rate, clients=args.clients, mix=mix)
    began = time.monotonic()
    until = began + args.seconds if args.seconds else float("inf")
    second = 0
    load.phase("0")
    await load.start()
    with Live(console=console(), auto_refresh=False, screen=False) as live:
        while not stop.is_set() and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(1.0, until - time.monotonic()))
            load.phase(str(second + 1))
            seen = _second(load.result, str(second))
            if args.json:
                print_json_line({"second": second, "instruments": seen})
            else:
                live.update(_drawn(seen), refresh=True)
            second += 1
    return _ended(await load.stop(), time.monotonic() - began, json=args.json)


def _second(result: LoadResult, phase: str) -> dict[str, dict[str, float]]:
    """Latencies of one phase, which are forgotten then: a long run would fill the memory."""
    symbols = sorted({symbol for one, symbol in result.latencies if one == phase})
    seen = {symbol: summary_us(result.latency(phase, symbol)) for symbol in symbols}
    for key in [key for key in result.latencies if int(key[0]) < int(phase)]:
        del result.latencies[key]
    return seen


def _drawn(seen: dict[str, dict[str, float]]) -> Table:
    made = table("instrument", ">answers/s", ">P50", ">P99", ">max")
    for symbol, one in seen.items():
        count = int(one["count"])
        made.add_row(symbol, str(count), *(micros(one[key], count) for key in _SHOWN))
    return made


def _ended(result: LoadResult, elapsed_s: float, *, json: bool) -> Exit:
    total = {
        "requests": result.requests,
        "answered": result.answered,
        "failed": sum(result.failed.values()),
        "not sent": sum(result.skipped.values()),
        "contradicted": len(result.wrong),
    }
    if json:
        print_json_line({**total, "statuses": result.statuses, "reasons": result.failed})
    else:
        counts = ", ".join(f"{count} {what}" for what, count in total.items())
        console().print(f"\n{counts} in {elapsed_s:.0f} s")
    for reason, count in sorted(result.failed.items()):
        problem(f"{count} times: {reason}")
    return Exit.FAILED if total["failed"] or result.wrong else Exit.DONE
