"""What may be written short in `[mapping]`, made long: `price = "price"` is
`price = { column = "price" }`. Pure.
"""

from __future__ import annotations

from typing import Any

COLUMNS = {  # keys that may be the name of a column
    "orders": (
        *("id", "symbol", "account", "side", "ord_type", "tif", "status", "price", "quantity"),
        *("leaves", "filled", "funds", "created_at", "updated_at"),
    ),
    "fills": (
        *("id", "symbol", "price", "quantity", "total", "taker_side", "created_at", "updated_at"),
    ),
}


def expanded(mapping: Any) -> Any:
    """What is none of these shapes stays as it is: decoding will name it."""
    if not isinstance(mapping, dict):
        return mapping
    return mapping | {
        name: _table(mapping[name], columns)
        for name, columns in COLUMNS.items()
        if isinstance(mapping.get(name), dict)
    }


def _table(table: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    long: dict[str, Any] = {
        key: {"column": value} if key in columns and isinstance(value, str) else value
        for key, value in table.items()
    }
    if isinstance(long.get("where"), dict):
        long["where"] = {
            column: [values] if isinstance(values, str) else values
            for column, values in long["where"].items()
        }
    return long
