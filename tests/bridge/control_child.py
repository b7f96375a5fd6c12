"""A control process for tests, killed at a moment: `python control_child.py SETTINGS STEP MOMENT`.

SETTINGS is JSON (ControlSettings). It prints its port when it leads. STEP "" lets it live.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

from bridge.control.process import ControlSettings, serve


async def main(settings: ControlSettings, step: str, moment: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def probe(at_step: str, at_moment: str) -> None:
        if (at_step, at_moment) == (step, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    await serve(settings, ready=lambda port: print(port, flush=True), stop=stop, probe=probe)


if __name__ == "__main__":
    asyncio.run(
        main(msgspec.json.decode(sys.argv[1], type=ControlSettings), sys.argv[2], sys.argv[3])
    )
