"""Finds the adapter that `mapping.adapter` names: a module beside the configuration, or installed.

The only code that imports it; everything else is given a `shadow.legacy.adapter.Adapted`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from bridge.errors import ConfigError
from shadow.legacy.adapter import PLAIN, Adapted

_METHODS = ("order_row", "fill_row", "request", "answer")


def placed(adapter: str, directory: Path) -> str:
    """With the path of its file, where that is in this directory: other processes find it too."""
    module, colon, name = adapter.rpartition(":")
    file = (directory / f"{module.replace('.', '/')}.py").absolute()
    return f"{file}:{name}" if colon and file.is_file() else adapter


def adapted(adapter: str) -> Adapted:
    """ "": there is none. Raises ConfigError for one that can't be made."""
    if not adapter:
        return PLAIN
    where, _, name = adapter.rpartition(":")
    try:
        made = getattr(_module(where), name)()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"`mapping.adapter`: {adapter} can't be made: {said}. It is a class without arguments, "
            "in a module beside the configuration or one that is installed"
        ) from error
    if not any(callable(getattr(made, method, None)) for method in _METHODS):
        raise ConfigError(
            f"`mapping.adapter`: {adapter} has none of the methods {', '.join(_METHODS)}"
        )
    return Adapted(made)


def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    name = f"railswitch_adapter_{hashlib.sha256(where.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, where)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
