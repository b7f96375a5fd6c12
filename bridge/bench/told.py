"""What a benchmark says while it works: lines on stderr, so that nobody thinks it hangs."""

from __future__ import annotations

import sys


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
