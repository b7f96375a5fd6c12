"""The supervisor over small real processes: order, readiness, restarts, a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bridge.datadir import DataDirectory
from bridge.errors import AlreadyRunning, StartFailed
from bridge.sandbox import processes
from bridge.supervise import News, Part, Plan, Supervisor, locked

# argv: name, journal, behaviour, --ready-fd, FD
CHILD = """
import os, signal, sys
name, journal, behaviour, _, fd = sys.argv[1:]
def note(what):
    with open(journal, "a") as file:
        file.write(f"{name} {what}\\n")
if behaviour == "fails":
    sys.exit("no such luck")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
note("starts")
if behaviour == "silent":
    os.close(int(fd))
else:
    os.write(int(fd), b'{"listen": "here"}\\n')
signal.sigwait([signal.SIGTERM])
note("stops")
"""


class Stage:
    """A data directory, children that write into one journal, and the supervisor's news."""

    def __init__(self, path: Path) -> None:
        self.directory = DataDirectory(path / "data")
        self.directory.make()
        self.journal = path / "journal"
        self.script = path / "child.py"
        self.script.write_text(CHILD)
        self.news: list[News] = []
        self.stop = asyncio.Event()

    def part(self, name: str, behaviour: str = "lives", *, needed: bool = True) -> Part:
        argv = (sys.executable, str(self.script), name, str(self.journal), behaviour)
        return Part(name=name, argv=argv, needed=needed)

    def supervisor(self, *waves: tuple[Part, ...]) -> Supervisor:
        plan = Plan(config="c.toml", database_url="d", redis_url="r", waves=waves)
        return Supervisor(self.directory, plan, self.news.append)

    def pid(self, name: str) -> int:
        run = self.directory.running()
        assert run is not None
        return next(child.pid for child in run.children if child.name == name)

    def states(self, part: str) -> list[str]:
        return [one.state for one in self.news if one.part == part]


@pytest.fixture
def scene(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def run(scene: Stage, supervisor: Supervisor, when_up: Callable[[], None] = lambda: None) -> None:
    def up() -> None:
        when_up()
        scene.stop.set()

    asyncio.run(asyncio.wait_for(supervisor.run(scene.stop, up=up), 30))


def test_waves_start_in_order_and_stop_in_reverse(scene: Stage) -> None:
    run(scene, scene.supervisor((scene.part("a"),), (scene.part("b"),), (scene.part("c"),)))
    assert scene.journal.read_text().split("\n")[:-1] == [
        *("a starts", "b starts", "c starts"),
        *("c stops", "b stops", "a stops"),
    ]


def test_what_runs_is_written_down_while_it_runs_and_only_then(scene: Stage) -> None:
    def when_up() -> None:
        written = scene.directory.running()
        assert written is not None
        assert (written.database_url, written.redis_url) == ("d", "r")
        (child,) = written.children
        assert (child.name, child.state, child.detail) == ("a", "ready", {"listen": "here"})
        assert processes.alive(child.pid)

    run(scene, scene.supervisor((scene.part("a"),)), when_up)
    assert scene.directory.running() is None
    assert scene.states("a") == ["starting", "ready", "stopped"]


def test_killed_child_is_started_again(scene: Stage) -> None:
    async def story() -> None:
        running = asyncio.create_task(scene.supervisor((scene.part("a"),)).run(scene.stop))
        await until(lambda: "ready" in scene.states("a"), "ready")
        first = scene.pid("a")
        os.kill(first, signal.SIGKILL)
        await until(lambda: scene.states("a").count("ready") == 2, "ready again")
        assert scene.pid("a") != first
        assert "killed by SIGKILL" in next(n.text for n in scene.news if n.state == "died")
        scene.stop.set()
        await running

    asyncio.run(story())


def test_needed_part_that_can_not_start_stops_all_and_says_what_it_said(scene: Stage) -> None:
    supervisor = scene.supervisor((scene.part("a"),), (scene.part("b", "fails"),))
    with pytest.raises(StartFailed, match=r"b exited with 1: no such luck"):
        asyncio.run(supervisor.run(scene.stop))
    assert scene.journal.read_text() == "a starts\na stops\n"


def test_part_that_is_not_needed_may_fail_and_is_tried_again(scene: Stage) -> None:
    async def story() -> None:
        supervisor = scene.supervisor((scene.part("a", "fails", needed=False), scene.part("b")))
        running = asyncio.create_task(supervisor.run(scene.stop))
        await until(lambda: scene.states("a").count("starting") >= 2, "tried twice")
        assert "ready" in scene.states("b")
        scene.stop.set()
        await running

    asyncio.run(story())


def test_stop_while_starting_leaves_nothing(scene: Stage) -> None:
    async def story() -> None:
        running = asyncio.create_task(
            scene.supervisor((scene.part("a", "silent"),)).run(scene.stop)
        )
        await until(scene.journal.exists, "started")
        pid = scene.pid("a")
        scene.stop.set()
        await running
        assert not processes.alive(pid)

    asyncio.run(story())


def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    scene = Stage(tmp_path)
    plan = Plan(config="c", database_url="", redis_url="", waves=((scene.part("a"),),))
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan))
    program = (
        "import asyncio, msgspec, pathlib, sys\n"
        "from bridge.datadir import DataDirectory\n"
        "from bridge.supervise import Plan, Supervisor\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "plan = msgspec.json.decode((root / 'plan.json').read_bytes(), type=Plan)\n"
        "supervisor = Supervisor(DataDirectory(root / 'data'), plan, lambda news: None)\n"
        "asyncio.run(supervisor.run(asyncio.Event(), up=lambda: print('up', flush=True)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        child = scene.pid("a")
        parent.kill()
    asyncio.run(until(lambda: not processes.alive(child), "the child ends too"))
    assert scene.directory.running() is None


def test_second_up_on_a_data_directory_is_refused(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    program = (
        "import sys\n"
        "from bridge.datadir import DataDirectory\n"
        "from bridge.supervise import locked\n"
        "with locked(DataDirectory(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(AlreadyRunning, match=str(other.pid)), locked(directory):
            pass
    with locked(directory):
        pass


def test_engine_keys_are_made_once_one_for_each_role_and_are_private(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    keys = directory.engine_keys()
    assert {key.role for key in keys} == {"trade", "shadow", "admin", "read-only"}
    assert len({key.key for key in keys}) == 4
    assert directory.engine_keys() == keys
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
