"""Which engine implementation to run: what was asked for, or an error; never a silent fallback."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import EngineImplementationUnavailable
from engine.market import create_market

VARIABLE = "RAILSWITCH_ENGINE"


def chosen_implementation(configured: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The implementation and, for the operator, why it is this one.

    Nothing asked for means the Rust core, or, in an installation without it, the reference book.
    Raises EngineImplementationUnavailable for one that was asked for and can't be had.
    """
    wanted, why = configured, "engine.implementation"
    if not wanted:
        wanted, why = environ.get(VARIABLE, ""), VARIABLE
    if wanted:
        return create_market(wanted).implementation, f"asked for by {why}"
    try:
        return create_market("rust").implementation, "the default"
    except EngineImplementationUnavailable:
        return "python", "installed without the Rust core"
