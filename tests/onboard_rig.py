"""`railswitch init` without its command line: the file for a database, and decided as one likes."""

from __future__ import annotations

import msgspec
import onboard_world as world

from bridge import config
from bridge.config import Config
from bridge.onboard import routes as routes_of
from bridge.onboard.finding import Finding
from bridge.onboard.recognise import Recognised, recognise
from bridge.onboard.recognise_http import http_findings
from bridge.onboard.recognise_legacy import legacy_findings
from bridge.onboard.recognise_tables import Wanted
from bridge.onboard.reflect import read_database
from bridge.onboard.render import render
from bridge.onboard.routes import Routes


class Written(msgspec.Struct, frozen=True):
    recognised: Recognised
    findings: list[Finding]
    text: str

    @property
    def open(self) -> set[str]:
        return {one.key for one in self.findings if one.undecided}

    def confidence(self, key: str) -> str:
        (found,) = [one for one in self.findings if one.key == key]
        return str(found.confidence)


def written(url: str, routes: str = "", wanted: Wanted = Wanted()) -> Written:  # noqa: B008
    found: Routes | None = routes_of.read(routes) if routes else None
    recognised = recognise(read_database(url, wanted), wanted)
    findings = [
        *legacy_findings(url, "http://127.0.0.1:3000"),
        *recognised.findings,
        *http_findings(found, recognised),
    ]
    return Written(recognised, findings, render(recognised, findings, found))


def loaded(one: Written, **answers: str) -> Config:
    """With each decision made: by the answer for its key, else by the first of its choices."""
    made = {key.replace("__", "."): value for key, value in answers.items()}
    return config.parse(world.decided(one.text, made.get), source="railswitch.toml")
