"""`railswitch up`: everything on this machine, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rich.markup import escape

from bridge.cli.common import Context, add_config_options, add_json_option, context
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json_line, progress, word
from bridge.config_rules import host_port, unix_path
from bridge.embedded import Embedded
from bridge.errors import PortInUse, StoreUnreachable
from bridge.sandbox.processes import port_is_free
from bridge.supervise import News, Supervisor, locked, railswitch_plan

DESCRIPTION = """\
Starts the engine, control, shadow and proxy processes, watches them, and starts again what dies.
Without a database or Redis URL it brings its own PostgreSQL and Redis and keeps their data in the
data directory. Ctrl-C or SIGTERM stops everything in order. Starting changes nothing for clients:
until an instrument is flipped, the proxy passes every request through to the monolith.
"""

EXAMPLE = """\
  railswitch up --config railswitch.toml
  railswitch up --database-url postgresql://control@db/railswitch --redis-url redis://cache/0"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_json_option(parser, "one JSON line for each event")


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    tell = _json_news if args.json else _printed_news
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interruptible())
        stack.enter_context(locked(where.directory))
        _check_ports(where)
        where.directory.engine_keys()  # before the processes that would each make their own
        servers = Embedded(
            where.directory,
            database_url=where.config.control.database_url,
            redis_url=where.config.redis.url,
            tell=tell,
        )
        with progress("starting PostgreSQL and Redis", quiet=args.json):
            stack.enter_context(servers)
            _migrate(servers.database_url, tell)
        plan = railswitch_plan(
            config=where.path, database_url=servers.database_url, redis_url=servers.redis_url
        )
        supervisor = Supervisor(where.directory, plan, tell)
        asyncio.run(_supervise(supervisor, servers, lambda: _all_up(where, tell)))
        _ignore_signals()  # stopping the servers is bounded, and cutting it short helps nobody
    return Exit.DONE


async def _supervise(supervisor: Supervisor, servers: Embedded, done: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    keeper = asyncio.create_task(servers.keep())
    try:
        await supervisor.run(stop, up=done)
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


def _migrate(database_url: str, tell: Callable[[News], None]) -> None:
    from migrations import MigrationFailed, upgrade

    try:
        upgrade(database_url)
    except MigrationFailed as error:
        raise StoreUnreachable(str(error)) from error
    tell(News(part="store", state="ready", text="migrated", at_s=time.time()))


def _check_ports(where: Context) -> None:
    config = where.config
    for key, listen in (
        ("engine.listen", config.engine.listen),
        ("control.listen", config.control.listen),
        ("proxy.listen", config.proxy.listen),
    ):
        if unix_path(listen):
            continue  # the engine itself sees whether another listens there
        host, port = host_port(listen)
        if host in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::") and not port_is_free(port):
            raise PortInUse(
                f"{key} = {listen}: another program listens there; stop it, or choose another "
                f"port in {where.path}"
            )


def _all_up(where: Context, tell: Callable[[News], None]) -> None:
    text = (
        f"clients go to http://{where.config.proxy.listen}, which passes everything on to "
        f"{', '.join(where.config.legacy.upstreams)} until an instrument is flipped. "
        "`railswitch status` shows it; Ctrl-C stops it."
    )
    tell(News(part="up", state="ready", text=text, pid=os.getpid(), at_s=time.time()))


def _printed_news(news: News) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(news.at_s))
    pid = f"pid {news.pid}" if news.pid else ""
    text = escape(news.text if news.text != news.state else "")
    console().print(f"{at}  {news.part:<9} {word(news.state, 9)} {pid:<11} {text}".rstrip())


def _json_news(news: News) -> None:
    print_json_line(news)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM while servers start is taken like Ctrl-C, so that they are stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
