"""The JSON Schema of `railswitch.toml`, for editors: its shape from `bridge.config`, its words from
the tables of `docs/reference/config.md`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from bridge.config import Config
from shadow.legacy.shorthand import COLUMNS
from shadow.refusals import REASONS

Schema = dict[str, Any]

_ROW = re.compile(r"^\| `([\w.\[\]]+)` \|[^|]*\| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_PLAIN: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.BoolType: "boolean",
    inspect.FloatType: "number",
}
# Keys whose value may be written as the one column that it mostly is.
_SHORT = {
    f"mapping.{table}.{key}": f"mapping.{table}.{key}.column"
    for table, keys in COLUMNS.items()
    for key in keys
}
_ERRORS = "mapping.errors"
_WHERE = tuple(f"mapping.{table}.where" for table in COLUMNS)


def schema(page: str) -> Schema:
    """`page` is the text of the reference; "": then nothing is described."""
    told = {key: _LINK.sub(r"\1", text) for key, text in _ROW.findall(page)}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "railswitch.toml",
        **_of(inspect.type_info(Config), "", told),
    }


def _of(kind: inspect.Type, path: str, told: Mapping[str, str]) -> Schema:
    if isinstance(kind, inspect.StructType):
        return _short(_table(kind, path, told), path, told)
    if isinstance(kind, inspect.VarTupleType):
        return {"type": "array", "items": _of(kind.item_type, f"{path}[]", told)}
    if isinstance(kind, inspect.DictType):
        value = _of(kind.value_type, f"{path}.NAME", told)
        if path in _WHERE:
            value = {"anyOf": [{"type": "string"}, value]}
        names = {"propertyNames": {"enum": sorted(REASONS)}} if path == _ERRORS else {}
        return {"type": "object", **names, "additionalProperties": value}
    if isinstance(kind, inspect.LiteralType):
        return {"enum": list(kind.values)}
    if isinstance(kind, inspect.UnionType):
        return {"anyOf": [_of(one, path, told) for one in kind.types]}
    return {"type": _PLAIN[type(kind)]}


def _table(kind: inspect.StructType, path: str, told: Mapping[str, str]) -> Schema:
    properties = {}
    for field in kind.fields:
        where = f"{path}.{field.encode_name}" if path else field.encode_name
        described = {"description": told[where]} if where in told else {}
        properties[field.encode_name] = {
            **described,
            **_of(field.type, where, told),
            **_default(field),
        }
    needed = [field.encode_name for field in kind.fields if field.required]
    return {
        "type": "object",
        "properties": properties,
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def _short(table: Schema, path: str, told: Mapping[str, str]) -> Schema:
    column = _SHORT.get(path, "")
    if not column:
        return table
    described = {"description": told[column]} if column in told and path not in told else {}
    return {**described, "anyOf": [{"type": "string"}, table]}


def _default(field: inspect.Field) -> Schema:
    value = field.default
    if value is msgspec.NODEFAULT or isinstance(value, msgspec.Struct | dict):
        return {}
    return {"default": list(value) if isinstance(value, tuple) else value}
