"""What verbs share: the options that say where things are, and what they lead to."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import msgspec

from bridge import config as configuration
from bridge.config import Config
from bridge.datadir import DataDirectory
from bridge.errors import ConfigError
from bridge.supervise import DATABASE_VARIABLE, REDIS_VARIABLE


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration with every URL resolved."""

    path: Path
    config: Config
    directory: DataDirectory

    def instrument(self, symbol: str) -> str:
        """The symbol, if it is configured. Raises ConfigError."""
        known = [one.symbol for one in self.config.instruments]
        if symbol not in known:
            raise ConfigError(
                f"{symbol} is no configured instrument: {self.path} has {', '.join(known)}"
            )
        return symbol


def add_config_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where things are")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration (default: $RAILSWITCH_CONFIG, else ./railswitch.toml)",
    )
    group.add_argument(
        "--database-url",
        metavar="URL",
        help=f"the control store (default: ${DATABASE_VARIABLE}, else the running `railswitch up`,"
        " else control.database_url)",
    )
    group.add_argument(
        "--redis-url",
        metavar="URL",
        help=f"Redis (default: ${REDIS_VARIABLE}, else as above, else redis.url)",
    )


def add_json_option(parser: argparse.ArgumentParser, what: str = "JSON on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=f"{what}, for programs")


def add_execute_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--execute", action="store_true", help="do it; without this nothing is changed"
    )


def context(args: argparse.Namespace) -> Context:
    """The configuration, its URLs from flags, environment, running `up` or file, in this order."""
    path = configuration.find(args.config)
    config = configuration.load(path)
    directory = DataDirectory(config.data_dir)
    run = directory.running()
    database_url = (
        args.database_url
        or os.environ.get(DATABASE_VARIABLE)
        or (run.database_url if run else "")
        or config.control.database_url
    )
    redis_url = (
        args.redis_url
        or os.environ.get(REDIS_VARIABLE)
        or (run.redis_url if run else "")
        or config.redis.url
    )
    replace = msgspec.structs.replace
    return Context(
        path=path,
        config=replace(
            config,
            control=replace(config.control, database_url=database_url),
            redis=replace(config.redis, url=redis_url),
        ),
        directory=directory,
    )
