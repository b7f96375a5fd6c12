"""The Rails exchange with a database of its own, and railswitch in front of it on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import requests
from running_rails import Rails, make_database, running_rails

from bridge import config as configuration
from bridge.config import Config
from bridge.sandbox.demo_world import World
from bridge.sandbox.example import fitted
from bridge.sandbox.provision import APPLICATION_ROLE, as_role

CONFIG = Path(__file__).with_name("railswitch.toml")
PROCESSES = {"WEB_CONCURRENCY": 2, "EXCHANGE_THREADS": 4, "EXCHANGE_LOG_LEVEL": "warn"}

# Rails, its clients and all of railswitch share two cores: an answer may take its time.
PATIENT = "\n[flip]\nhold_ms_max = 10000\n"


class RailsWorld(World):
    """Has a market before it has railswitch: `start_monolith`, then `start_railswitch`."""

    rails: Rails
    database_url: str  # the application's

    def start_monolith(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.monolith_postgres.start()
        self._stack.callback(self.monolith_postgres.remove)
        url = make_database(self.monolith_postgres, "exchange")
        self.database_url = as_role(url, APPLICATION_ROLE)
        self.rails = self._stack.enter_context(
            running_rails(self.directory, self.database_url, **PROCESSES)
        )

    def start_railswitch(self) -> None:
        text = fitted(CONFIG.read_text(), self.database_url, self.rails.url)
        self.config_path.write_text(text + self._own_config() + PATIENT)
        self.config: Config = configuration.load(self.config_path)
        self._install_fence()
        self._start_up()

    def start(self) -> None:
        self.start_monolith()
        self.start_railswitch()

    def configure_gate(self, gate: Mapping[str, float]) -> None:
        """For control processes that are started from now on."""
        text = self.config_path.read_text()
        more = "".join(f"{key} = {value}\n" for key, value in gate.items())
        self.config_path.write_text(text.replace("[gate]\n", f"[gate]\n{more}"))

    def railswitch(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, as an operator has it."""
        command = [sys.executable, "-m", "bridge.cli.main", *words]
        return subprocess.run(
            [*command, "--config", str(self.config_path)],
            env={k: v for k, v in os.environ.items() if not k.startswith("RAILSWITCH_")},
            capture_output=True,
            text=True,
            check=False,
        )


class Caller:
    """One member's requests, to Rails itself or to the proxy."""

    def __init__(self, base_url: str, member: int) -> None:
        self._base = f"{base_url}/api/v1"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-Member-Id"] = str(member)
        self.session.headers["Accept"] = "application/json"

    def ask(self, method: str, path: str, **options: object) -> requests.Response:
        return self.session.request(
            method,
            self._base + path,
            timeout=30.0,
            **options,  # type: ignore[arg-type]
        )

    def place(self, **order: str) -> requests.Response:
        return self.ask("POST", "/orders", json={"order": order})
