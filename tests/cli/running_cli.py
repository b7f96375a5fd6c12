"""The command line as its users have it: words in, output and an exit code back."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from bridge.cli.main import main
from bridge.sandbox.example import example_config
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


def railswitch(*words: str, cwd: Path = ROOT) -> Ran:
    """Runs it to its end, in this process, which is quicker than in one of its own."""
    out, err = io.StringIO(), io.StringIO()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAILSWITCH_")}
    with (
        patch.dict(os.environ, kept, clear=True),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(words)
    return _ran(code, out.getvalue(), err.getvalue())


def railswitch_process(*words: str) -> Ran:
    """The same as its users have it."""
    done = subprocess.run(
        argv(*words),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return _ran(done.returncode, done.stdout, done.stderr)


def _ran(code: int, out: str, err: str) -> Ran:
    """No operating fault may ever show a trace of the program."""
    assert "Traceback" not in err
    return Ran(code, out, err)


def write_config(
    directory: Path,
    legacy_superuser_url: str = "postgresql://postgres@127.0.0.1:1/none",
    upstream: str = "http://127.0.0.1:1",
    more: str = "",
) -> Path:
    """A configuration for the sandbox's database, every listener on a free port."""
    text = example_config(as_role(legacy_superuser_url, APPLICATION_ROLE), upstream)
    for part in ("control", "engine", "proxy"):
        text += f'\n[{part}]\nlisten = "127.0.0.1:{free_port()}"\n'
    file = directory / "railswitch.toml"
    file.write_text(text + more)
    return file
