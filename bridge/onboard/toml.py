"""Values as TOML. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def written(value: Any) -> str:
    """
    >>> written({"column": "price", "exponent": -2}), written(["a", True])
    ('{ column = "price", exponent = -2 }', '["a", true]')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        parts = (f"{key(one)} = {written(other)}" for one, other in value.items())
        return f"{{ {', '.join(parts)} }}" if value else "{}"
    return f"[{', '.join(map(written, value))}]"


def key(name: str) -> str:
    """
    >>> key("price"), key("a b")
    ('price', '"a b"')
    """
    return name if _BARE.fullmatch(name) else str(written(name))


def comment(text: str) -> str:
    """On one line, whatever a database's names and values hold."""
    return f"# {_CONTROL.sub('?', text)}"
