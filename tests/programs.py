"""Programs from Debian's packages that a machine may lack: their tests are then skipped."""

from __future__ import annotations

import shutil

import pytest


def needed(*names: str, package: str) -> str:
    """The path of the first that is here; otherwise the test is skipped."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(
        f"SKIPPED, not passed: there is no {names[0]} program (as root: apt-get install {package})"
    )
