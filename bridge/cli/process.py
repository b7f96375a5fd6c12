"""How `engine`, `control`, `shadow` and `proxy` run: until SIGTERM, saying when they are ready."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import uvloop

from bridge.app import Ready
from bridge.cli.common import add_config_options, context
from bridge.cli.exits import Exit
from bridge.cli.output import print_json_line
from bridge.config import Config

Main = Callable[[Config, asyncio.Event, Ready], Awaitable[None]]

_LOG_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="FD",
        help="write one JSON line to this file descriptor when ready (`railswitch up` does this)",
    )


def run(args: argparse.Namespace, main: Main) -> Exit:
    """Runs `main` to its end. SIGTERM and SIGINT set its stop event: it then ends by itself."""
    log_to_stderr()
    uvloop.run(_run(context(args).config, args.ready_fd, main))
    return Exit.DONE


def log_to_stderr() -> None:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=_LOG_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"
    )


async def _run(config: Config, ready_fd: int | None, main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = [] if ready_fd is None else [ready_fd]  # told once: then the number is not ours

    def ready(detail: Mapping[str, str]) -> None:
        print_json_line({"ready": True, **detail})
        if waiting:
            _tell(waiting.pop(), detail)

    await main(config, stop, ready)


def _tell(ready_fd: int, detail: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError):  # whoever asked may have gone; we run all the same
        os.write(ready_fd, msgspec.json.encode(dict(detail)) + b"\n")
        os.close(ready_fd)
