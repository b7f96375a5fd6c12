"""Under which conditions a number was measured. Without them it means nothing."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


def conditions(directory: Path) -> dict[str, Any]:
    """Of this machine, before the measurement; `directory` is where the disk work will happen."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "file_system": _file_system(directory),
        "load_average_before": [round(one, 2) for one in os.getloadavg()],
    }


def processor_s(pid: int) -> float:
    """Processor time so far, of a process and its helpers; user and system."""
    return _ticks_of(pid) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now; 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class _Seconds(NamedTuple):
    wall: float
    service: float
    own: float
    steal: float
    busy: float  # all of the machine, without what was stolen


class CpuMeter:
    """Processor time from its making to `read`, in per cent of one core: of another process and
    its helpers, of this one and those that it waited for, of everything else on the machine, and
    what the hypervisor gave to other machines.
    """

    def __init__(self, pid: int = 0) -> None:
        self._pid = pid  # 0: there is no other process
        self._began = self._now()

    def read(self) -> dict[str, Any]:
        spent = _Seconds(
            *(after - before for after, before in zip(self._now(), self._began, strict=True))
        )
        others = spent.busy - spent.service - spent.own

        def percent(seconds: float) -> int:
            return max(0, round(100 * seconds / spent.wall))

        found = {"service": percent(spent.service)} if self._pid else {}
        found |= {
            "bench": percent(spent.own),
            "others": percent(others),
            "steal": percent(spent.steal),
        }
        return {"cpu_percent": found}

    def _now(self) -> _Seconds:
        tick = os.sysconf("SC_CLK_TCK")
        times = os.times()
        user, nice, system, _idle, _wait, irq, soft, steal, *_ = (
            int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
        return _Seconds(
            wall=time.monotonic(),
            service=processor_s(self._pid) if self._pid else 0.0,
            own=times.user + times.system + times.children_user + times.children_system,
            steal=steal / tick,
            busy=(user + nice + system + irq + soft) / tick,
        )


def _ticks_of(pid: int) -> int:
    """Of a process, of its helpers that have ended, and of those that run."""
    try:
        # After the name, which is in parentheses and may hold anything: utime, stime, and the same
        # of children that have ended.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = " ".join(
            path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")
        ).split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) + sum(_ticks_of(int(child)) for child in children)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


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
