"""The mapping against what the monolith has written: read, and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge.adapting import adapted
from bridge.config import Config
from shadow.legacy.audit import audit
from shadow.legacy.audit_types import Audit
from shadow.legacy.convert import scales
from shadow.legacy.recent import read_recent
from shadow.legacy.symbols import resolved
from shadow.limits import AUDIT_STATEMENT_S


async def check(
    config: Config,
    symbols: Sequence[str] = (),
    *,
    last: int,
    statement_s: float = AUDIT_STATEMENT_S,
    progress: Callable[[str], None] = lambda _: None,
) -> Audit:
    """`symbols`: () for all. Raises ShadowError, ConfigError."""
    url = config.legacy.database_url
    mapping = await resolved(url, config.mapping)
    recent = await read_recent(
        url,
        mapping,
        last=last,
        symbols=symbols,
        statement_s=statement_s,
        adapter=adapted(config.mapping.adapter),
        progress=progress,
    )
    return audit(recent, mapping, scales(config.instruments))
