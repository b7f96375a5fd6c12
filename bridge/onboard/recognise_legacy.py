"""Where the monolith is: what the operator said. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from bridge.onboard.finding import Finding, certain, guess

_ROLE = "railswitch"


def legacy_findings(database_url: str, upstream: str) -> list[Finding]:
    why = "as given"
    if urlsplit(database_url).username != _ROLE:
        why = f"as given; it must log in as {_ROLE}, by which the fence recognises our own writer"
    found = [certain("legacy.database_url", database_url, why)]
    if upstream:
        found.append(certain("legacy.upstream", upstream, "as given"))
    else:
        why = "where the monolith answers; --upstream of init"
        found.append(guess("legacy.upstream", why, '"http://127.0.0.1:3000"'))
    return found
