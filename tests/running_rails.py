"""The Rails exchange of tests/rails/exchange as a process: Puma, on Debian's Rails; and what its
people do beside it: migrations, rake tasks, a console.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from running import ROOT

from bridge.sandbox.provision import APPLICATION_ROLE, RAILSWITCH_ROLE, as_role
from bridge.sandbox.servers import EmbeddedPostgres

APPLICATION = ROOT / "tests" / "rails" / "exchange"
PACKAGES = "ruby-railties ruby-activerecord ruby-activejob ruby-actioncable ruby-pg puma"
PATIENCE_S = 60.0
_LIBRARIES = ("rails", "action_cable", "active_record", "active_job", "pg", "rake")


class Rails:
    """A running one, on a port and on a Unix socket."""

    def __init__(self, port: int, socket: Path, log: Path) -> None:
        self.port = port
        self.socket = socket
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text()


def rails_program() -> str:
    """Puma's path; skips the test where Rails or Puma is missing."""
    puma = shutil.which("puma")
    libraries = [f"-r{name}" for name in _LIBRARIES]
    if puma:
        tried = subprocess.run(["ruby", *libraries, "-e", ""], capture_output=True, check=False)
        if tried.returncode == 0:
            return puma
    pytest.skip(
        f"SKIPPED, not passed: there is no Rails with Puma (as root: apt-get install {PACKAGES})"
    )


def make_database(server: EmbeddedPostgres, name: str) -> str:
    """The exchange's database, as its migrations and seeds make it. Returns the superuser's URL."""
    rails_program()
    roles = {APPLICATION_ROLE: "LOGIN", RAILSWITCH_ROLE: "LOGIN REPLICATION"}
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for role, options in roles.items():
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                connection.execute(
                    sql.SQL("CREATE ROLE {} " + options).format(sql.Identifier(role))
                )
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(APPLICATION_ROLE)
            )
        )
    done = rake(as_role(server.url(name), APPLICATION_ROLE), "db:migrate", "db:seed")
    assert done.returncode == 0, done.stderr
    return server.url(name)


def rake(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Tasks, and variables as `NAME=value`."""
    return subprocess.run(
        ["rake", *words],
        cwd=APPLICATION,
        env=_environment(database_url),
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def running_rails(directory: Path, database_url: str, **settings: object) -> Iterator[Rails]:
    """`directory` keeps its log and its socket; `settings` are variables of its own."""
    program = rails_program()
    log, socket = directory / "puma.log", directory / "puma.sock"
    own = {"EXCHANGE_SOCKET": str(socket), "EXCHANGE_LOG_LEVEL": "info"}
    own |= {name: str(value) for name, value in settings.items()}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, "--config", "config/puma.rb", "config.ru"],
            cwd=APPLICATION,
            env=_environment(database_url, own),
            stdout=said,
            stderr=said,
        )
    with process:
        try:
            yield Rails(_port(process, log), socket, log)
        finally:
            process.kill()  # streams that a test left open would hold up a polite stop


class Console:
    """Someone's `rails console`: what it has loaded stays as it was loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, line: str) -> Any:
        """The line's value, as JSON has it. Raises ConsoleError."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.heard()

    def heard(self) -> Any:
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        if "error" in told:
            raise ConsoleError(told["error"], told["message"])
        return told["value"]


class ConsoleError(Exception):
    """`kind` is the Ruby class of the exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@contextlib.contextmanager
def running_console(database_url: str, **settings: str) -> Iterator[Console]:
    process = subprocess.Popen(
        ["ruby", "lib/console.rb"],
        cwd=APPLICATION,
        env=_environment(database_url, settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        console = Console(process)
        assert console.heard() == "ready"
        yield console
        assert process.stdin is not None
        process.stdin.close()


def _environment(database_url: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    own = {"RAILS_ENV": "production", "DATABASE_URL": database_url}
    return dict(os.environ) | own | dict(more or {})


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        said = log.read_text()
        found = re.search(r"Listening on http://127\.0\.0\.1:(\d+)", said)
        if found and "Ctrl-C" in said:
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(f"Puma did not start:\n{log.read_text()}")
