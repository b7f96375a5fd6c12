"""Open files: each client and each connection to the monolith is one."""

from __future__ import annotations

import logging
import resource

from bridge.limits import CLIENTS_MAX, DESCRIPTORS_OTHERS, UPSTREAM_CONNECTIONS_MAX

_log = logging.getLogger(__name__)


def raise_limit(upstreams: int) -> None:
    """To what this process may have at most. Too few for all clients that a worker takes is told:
    beyond them clients wait to be accepted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = CLIENTS_MAX + upstreams * UPSTREAM_CONNECTIONS_MAX + DESCRIPTORS_OTHERS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.warning(
            "a worker may open %d files, and wants %d for %d clients: raise the limit (ulimit -Hn, "
            "or LimitNOFILE of the service)",
            hard,
            wanted,
            CLIENTS_MAX,
        )
