"""The sandbox's configuration, as the tests of this folder describe their monolith."""

from __future__ import annotations

from pathlib import Path

import bridge.sandbox
from bridge.config import load

CONFIG = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
