"""A consumer in a process of its own, to be killed: it keeps its effects and its watermark in one
file, a line for each transaction, written before it confirms.

    python reader_process.py stream|poll DATABASE_URL FILE
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from change_sources import WAYS
from interleavings import effect_of

from shadow.legacy.source import Source


def kept(file: Path) -> list[Any]:
    """[watermark, effect] of each transaction; the last line may be torn."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def consume(source: Source, watermark: int, log: TextIO) -> None:
    await source.open(watermark)
    async for transaction in source.transactions():
        effect = effect_of(transaction)
        log.write(json.dumps([transaction.end_lsn, effect]) + "\n")
        log.flush()
        os.fsync(log.fileno())
        source.confirm(transaction.end_lsn)


if __name__ == "__main__":
    name, database, path = sys.argv[1:]
    (way,) = (one for one in WAYS if one.name == name)
    applied = kept(Path(path))
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in applied))
    watermark = applied[-1][0] if applied else 0
    with Path(path).open("a") as kept_in:
        asyncio.run(consume(way(database).source(), watermark, kept_in))
