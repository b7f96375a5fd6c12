"""Where the worlds are that these tests share with others."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "legacies"), str(TESTS / "shadow")]
