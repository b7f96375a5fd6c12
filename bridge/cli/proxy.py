"""`railswitch proxy`: the processes that clients talk to."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator

from bridge import app
from bridge.cli import process
from bridge.cli.common import Context, context
from bridge.cli.exits import Exit
from bridge.cli.output import problem
from bridge.config import Config
from bridge.config_rules import host_port
from bridge.datadir import DataDirectory, ProxyRun
from bridge.errors import NotRunning, StartFailed
from bridge.limits import PROXY_LOOK_S, RESTART_SLACK_S, WORKER_DRAIN_S, WORKER_READY_S
from bridge.proxy.listening import check_free
from bridge.proxy.master import Operator
from bridge.sandbox.processes import DirectoryLock

DESCRIPTION = """\
Runs the proxy in front of the monolith, with proxy.workers processes on one port. Every request
goes to the monolith and its answer back, untouched, until an instrument is flipped. It needs the
control store at its start, to know who answers for what; afterwards it goes on without it. SIGTERM
stops it after the requests that it has begun, a second one at once. SIGHUP, or --restart, replaces
every worker by a new one with the configuration as it is now, and no client notices.
"""

EXAMPLE = """\
  railswitch proxy --config railswitch.toml
  railswitch proxy --config railswitch.toml --restart"""


def configure(parser: argparse.ArgumentParser) -> None:
    process.configure(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="restart the workers of the proxy that runs on this data directory, also one of "
        "`railswitch up`; returns when the old ones have answered what they had begun",
    )


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    if args.restart:
        return _restart(where.directory)
    operator = Operator(
        settings=lambda: app.proxy_settings(context(args).config),
        tell=lambda told: _write(where.directory, told),
    )

    async def main(config: Config, stop: asyncio.Event, ready: app.Ready) -> None:
        def end() -> None:
            (operator.at_once if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, operator.restart.set)
        await app.run_proxy(config, stop, ready, operator)

    with _alone(where):
        return process.run(args, main)


@contextlib.contextmanager
def _alone(where: Context) -> Iterator[None]:
    """Two proxies of one data directory would have the same names at the engine. Raises PortInUse,
    AlreadyRunning.
    """
    check_free(*host_port(where.config.proxy.listen))
    lock = DirectoryLock(where.directory.part("proxy"))
    lock.acquire()
    try:
        yield
    finally:
        where.directory.forget_proxy()
        lock.release()


def _write(directory: DataDirectory, told: ProxyRun) -> None:
    """A full disk is no reason to serve nobody."""
    try:
        directory.write_proxy(told)
    except StartFailed as error:
        problem(f"{error}; `railswitch proxy --restart` may not find this proxy")


def _restart(directory: DataDirectory) -> Exit:
    before = directory.proxy()
    if before is None:
        raise NotRunning(
            f"no `railswitch proxy` runs on {directory.path}: start it, or give the --config that "
            "it was started with"
        )
    os.kill(before.pid, signal.SIGHUP)
    after = _followed(directory, before)
    if after.failed:
        problem(f"the restart was given up, what serves goes on: {after.failed}")
        return Exit.FAILED
    print(f"{len(after.slots)} workers restarted")
    return Exit.DONE


def _followed(directory: DataDirectory, before: ProxyRun) -> ProxyRun:
    """Tells each step, and returns how it ended. Raises NotRunning, StartFailed."""
    patience_s = len(before.slots) * WORKER_READY_S + 2 * WORKER_DRAIN_S + RESTART_SLACK_S
    deadline_s = time.monotonic() + patience_s
    shown = _lines(before)
    while True:
        now = directory.proxy()
        if now is None or now.pid != before.pid:
            raise NotRunning(f"the proxy, process {before.pid}, has ended: its log says why")
        for line in _lines(now):
            if line not in shown:
                print(line, flush=True)
        shown = _lines(now)
        if now.restarts > before.restarts and not now.restarting:
            return now
        if time.monotonic() > deadline_s:
            raise StartFailed(f"the restart takes longer than {patience_s:.0f} s: see the log")
        time.sleep(PROXY_LOOK_S)


def _lines(run: ProxyRun) -> list[str]:
    lines = []
    for slot in run.slots:
        text = f"worker {slot.number}: process {slot.pid or '-'} {slot.state}"
        lines.append(text + (f", {slot.finishing} finishes" if slot.finishing else ""))
    return lines
