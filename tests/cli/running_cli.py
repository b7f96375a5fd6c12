"""The command line as its users have it: a process, its output and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from bridge.cli.sandbox import sandbox_config
from bridge.sandbox.processes import free_port
from bridge.sandbox.provision import APPLICATION_ROLE, as_role

ROOT = Path(__file__).parents[2]


class Ran(msgspec.Struct, frozen=True):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


def argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "bridge.cli.main", *words]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAILSWITCH_")}
    return kept | more


def railswitch(*words: str, cwd: Path = ROOT, **more: str) -> Ran:
    """Runs it to its end. No operating fault may ever show a trace of the program."""
    done = subprocess.run(
        argv(*words),
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def write_config(
    directory: Path,
    legacy_superuser_url: str = "postgresql://postgres@127.0.0.1:1/none",
    upstream: str = "http://127.0.0.1:1",
    more: str = "",
) -> Path:
    """A configuration for the sandbox's database, every listener on a free port."""
    text = sandbox_config(as_role(legacy_superuser_url, APPLICATION_ROLE), upstream)
    for part in ("control", "engine", "proxy"):
        text += f'\n[{part}]\nlisten = "127.0.0.1:{free_port()}"\n'
    file = directory / "railswitch.toml"
    file.write_text(text + more)
    return file
