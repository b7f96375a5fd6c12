"""Everything that the demo and the kill tests run on: a monolith, and railswitch in front of it.

All of it are real processes: the monolith with a PostgreSQL of its own, and `railswitch up` with
what that brings along. They end with this process, and their files lie in one directory.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge import config as configuration
from bridge.cli.control_client import ControlClient
from bridge.config import Config
from bridge.datadir import DataDirectory
from bridge.errors import StartFailed
from bridge.limits import WORLD_POLL_S, WORLD_START_S, WORLD_STOP_S
from bridge.sandbox import processes, provision
from bridge.sandbox.example import example_config
from bridge.sandbox.processes import SAME_USER
from bridge.sandbox.servers import EmbeddedPostgres

# Small enough that a demo takes minutes; what each number protects against is in docs/operating.
DEMO_GATE = {
    "operations_min": 3000,
    "fills_min": 200,
    "shadow_s_min": 10.0,
    "book_age_s_max": 30.0,
    # Two databases, the monolith, its clients and all of railswitch share this machine.
    "engine_p99_us_max": 100_000.0,
    "engine_p999_us_max": 500_000.0,
}
# A recorded flow has fewer trades.
FLOW_GATE = DEMO_GATE | {"operations_min": 2000, "fills_min": 20}


class World:
    """Starts in order, stops in reverse. Calls block: use `asyncio.to_thread` from async code."""

    def __init__(
        self,
        directory: Path,
        *,
        faults: Sequence[str] = (),
        gate: Mapping[str, float] = DEMO_GATE,
        seed: int = 1,
        proxy_workers: int = 1,
    ) -> None:
        self.directory = directory
        self._faults = faults
        self._gate = gate
        self._seed = seed
        self._proxy_workers = proxy_workers
        self._stack = contextlib.ExitStack()
        self.config: Config
        self.config_path = directory / "railswitch.toml"
        self.monolith: subprocess.Popen[bytes]
        self.monolith_postgres = EmbeddedPostgres(
            directory / "monolith-postgres", port=processes.free_port()
        )
        self.up: subprocess.Popen[bytes]

    def start(self) -> None:
        """Raises StartFailed, with everything stopped again."""
        try:
            self._start_monolith()
            self._install_fence()
            self._start_up()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def proxy_url(self) -> str:
        return f"http://{self.config.proxy.listen}"

    @property
    def control(self) -> ControlClient:
        return ControlClient(self.config.control.listen)

    @property
    def data(self) -> DataDirectory:
        return DataDirectory(self.config.data_dir)

    def pid(self, part: str) -> int:
        """Of a process that `railswitch up` keeps running; 0 while there is none."""
        run = self.data.last_run()
        children = run.children if run is not None else ()
        return next((c.pid for c in children if c.name == part and c.state == "ready"), 0)

    def kill(self, part: str) -> int:
        """Kills it with -9, and all its own processes: a worker that outlived its master would
        answer what it has begun. Returns the process id that it had.
        """
        pid = self.pid(part)
        if not pid:
            raise StartFailed(f"{part} does not run: see {self.data.log(part)}")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        return pid

    def _start_monolith(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.monolith_postgres.start()
        self._stack.callback(self.monolith_postgres.remove)
        url = provision.provision(self.monolith_postgres.url())
        upstream = processes.free_port()
        log = self.directory / "monolith.log"
        argv = [sys.executable, "-m", "bridge.sandbox.monolith", "--database-url", url]
        argv += ["--port", str(upstream), "--workers", "2", "--seed", str(self._seed)]
        for fault in self._faults:
            argv += ["--fault", fault]
        self.monolith = processes.start(
            argv, log=log, cwd=Path.cwd(), user=SAME_USER, death_signal=signal.SIGTERM
        )
        self._stack.callback(_end, self.monolith)
        _wait_for_port(upstream, self.monolith, log)
        self.config_path.write_text(self._config_text(url, f"http://127.0.0.1:{upstream}"))
        self.config = configuration.load(self.config_path)

    def _install_fence(self) -> None:
        argv = [sys.executable, "-m", "bridge.cli.main", "legacy", "install", "--execute", "--json"]
        done = processes.run([*argv, "--config", self.config_path])
        if done.returncode != 0:
            raise StartFailed(f"railswitch legacy install failed: {done.stderr.strip()}")

    def _start_up(self) -> None:
        log = self.directory / "up.log"
        argv = [sys.executable, "-m", "bridge.cli.main", "up", "--json"]
        argv += ["--config", str(self.config_path)]
        self.up = processes.start(
            argv, log=log, cwd=Path.cwd(), user=SAME_USER, death_signal=signal.SIGTERM
        )
        self._stack.callback(_end, self.up)
        deadline = time.monotonic() + WORLD_START_S
        while not _says_up(log):
            if self.up.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"railswitch up did not start: {processes.log_tail(log)}")
            time.sleep(WORLD_POLL_S)

    def _config_text(self, application_url: str, upstream: str) -> str:
        return example_config(application_url, upstream) + self._own_config()

    def _own_config(self) -> str:
        text = ""
        listens = {name: processes.free_port() for name in ("engine", "control", "proxy")}
        for name, port in listens.items():
            text += f'\n[{name}]\nlisten = "127.0.0.1:{port}"\n'
        text += f"workers = {self._proxy_workers}\n"
        gate = "\n".join(f"{key} = {value}" for key, value in self._gate.items())
        return f"{text}\n[gate]\n{gate}\n"


def _says_up(log: Path) -> bool:
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            news = json.loads(line)
            if news["part"] == "up" and news["state"] == "ready":
                return True
    return False


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WORLD_START_S
    while processes.port_is_free(port) or not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StartFailed(f"the monolith did not start: {processes.log_tail(log)}")
        time.sleep(WORLD_POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/up")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(WORLD_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
