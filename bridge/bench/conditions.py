"""Under which conditions a number was measured. Without them it means nothing."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def conditions(directory: Path) -> dict[str, Any]:
    """Of this machine, before the measurement; `directory` is where the disk work will happen."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "file_system": _file_system(directory),
        "load_average_before": [round(one, 2) for one in os.getloadavg()],
    }


class CpuMeter:
    """Processor time from its making to `read`, in per cent of one core: of another process, of
    this one, and of everything else on the machine.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._now()

    def read(self) -> dict[str, Any]:
        wall, service, own, all_of_it = (
            after - before for after, before in zip(self._now(), self._began, strict=True)
        )
        return {
            "cpu_percent": {
                "service": round(100 * service / wall),
                "bench": round(100 * own / wall),
                "others": max(0, round(100 * (all_of_it - service - own) / wall)),
            }
        }

    def _now(self) -> tuple[float, float, float, float]:
        tick = os.sysconf("SC_CLK_TCK")
        # After the name, which is in parentheses and may hold anything: utime and stime.
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        service = (int(fields[11]) + int(fields[12])) / tick
        times = os.times()
        user, nice, system, _idle, _wait, irq, soft, steal, *_ = (
            int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
        busy = (user + nice + system + irq + soft + steal) / tick
        return time.monotonic(), service, times.user + times.system, busy


def _file_system(directory: Path) -> str:
    """Type of the file system that holds the directory."""
    found, name = "", "unknown"
    path = str(directory.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(found):
            found, name = mount, kind
    return name
