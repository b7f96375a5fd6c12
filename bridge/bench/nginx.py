"""Plain nginx as a proxy, and with its `mirror`: what railswitch is measured beside."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ALSO_IN = ("/usr/sbin", "/usr/local/sbin")  # where users other than root don't look
_CONNECTIONS = 4096
_NEVER = 1_000_000_000  # requests after which a connection is closed
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx(NamedTuple):
    binary: str
    version: str
    no_mirror: str  # why it can't; "": it can


def binary() -> str | None:
    """None where it is not installed."""
    return shutil.which(
        "nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *ALSO_IN])
    )


def found(place: Path) -> Nginx | None:
    """Asks it for its version, and whether it takes a configuration with `mirror`; in `place`."""
    program = binary()
    if program is None:
        return None
    version = re.search(r"nginx/(\S+)", _said([program, "-v"]))
    tested = place / "nginx-tested"
    tested.mkdir(parents=True)
    file = written(tested, port=1, upstream=1, mirror=1)
    said = _said([program, "-t", "-p", str(tested), "-c", str(file)])
    why = "" if "test is successful" in said else (said.splitlines() or ["no reason given"])[0]
    shutil.rmtree(tested)
    return Nginx(program, version.group(1) if version else "unknown", why)


def written(place: Path, *, port: int, upstream: int, mirror: int = 0) -> Path:
    """The configuration file of an nginx whose files are all in `place`; `mirror` 0: without."""
    file = place / "nginx.conf"
    file.write_text(_configuration(place, port, upstream, mirror))
    return file


def command(nginx: Nginx, place: Path, file: Path) -> list[str]:
    return [nginx.binary, "-p", str(place), "-c", str(file)]


def _configuration(place: Path, port: int, upstream: int, mirror: int) -> str:
    """One worker; connections to the upstreams are kept; what railswitch adds is added."""
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    temporary = "\n".join(f"  {one}_temp_path {place}/{one};" for one in _TEMPORARY)
    mirrored = "mirror /mirror;" if mirror else ""
    return f"""
{f"user {user} {group};" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log crit;
events {{ worker_connections {_CONNECTIONS}; }}
http {{
  access_log off;
{temporary}
  keepalive_requests {_NEVER};
  map $http_x_request_id $or_new_id {{ "" $request_id; default $http_x_request_id; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Request-Id $or_new_id;
{_upstream("monolith", upstream)}
{_upstream("shadow", mirror) if mirror else ""}
  server {{
    listen 127.0.0.1:{port};
    location / {{ {mirrored} proxy_pass http://monolith; }}
{"    location = /mirror { internal; proxy_pass http://shadow$request_uri; }" if mirror else ""}
  }}
}}
"""


def _upstream(name: str, port: int) -> str:
    return (
        f"  upstream {name} {{ server 127.0.0.1:{port}; keepalive {_CONNECTIONS // 4};"
        f" keepalive_requests {_NEVER}; }}"
    )


def _said(argv: list[str]) -> str:
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (ran.stderr + ran.stdout).strip()
