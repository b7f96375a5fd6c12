"""`railswitch config`: a file checked without anything behind it, and its schema for editors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from running_cli import ROOT, railswitch

from bridge import config
from bridge.cli.exits import Exit

SANDBOX = ROOT / "bridge/sandbox/railswitch.toml"
SCHEMA_FILE = ROOT / "docs/reference/railswitch.schema.json"
SCHEMA = msgspec.json.decode(SCHEMA_FILE.read_bytes())


def test_a_good_file_is_ok(tmp_path: Path) -> None:
    ran = railswitch("config", "check", str(SANDBOX))
    assert (ran.code, ran.err) == (Exit.DONE, "")
    assert ran.out == f"{SANDBOX}: ok, 3 instruments\n"


def test_each_fault_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    text = SANDBOX.read_text() + "\n[gates]\nx = 1\n\n[flip]\nhold_ms = 5\n"
    file.write_text(text)
    ran = railswitch("config", "check", str(file))
    line = SANDBOX.read_text().count("\n") + 2
    assert ran.code == Exit.USAGE
    assert ran.err == (
        f"railswitch: {file}:{line}: unknown key `gates`: the nearest valid key there is `gate`\n"
        f"{file}:{line + 4}: unknown key `flip.hold_ms`: the nearest valid key there is "
        "`hold_ms_max`\n"
    )


def test_an_adapter_that_can_not_be_made_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    text = SANDBOX.read_text().replace("[mapping]\n", '[mapping]\nadapter = "gone:Adapter"\n', 1)
    file.write_text(text)
    ran = railswitch("config", "check", str(file))
    assert ran.code == Exit.USAGE
    assert "`mapping.adapter`: gone:Adapter can't be made" in ran.err


def test_the_schema_beside_the_reference_is_the_one_that_is_printed() -> None:
    """`railswitch config schema > docs/reference/railswitch.schema.json` makes it so."""
    ran = railswitch("config", "schema")
    assert ran.out == SCHEMA_FILE.read_text()


def faults(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Of the words of JSON Schema that ours uses; any other is a fault of the schema."""
    known = {"$schema", "title", "description", "default", "type", "enum", "properties"}
    known |= {"required", "additionalProperties", "propertyNames", "items", "anyOf"}
    assert schema.keys() <= known
    if "anyOf" in schema:
        found = [faults(value, one, path) for one in schema["anyOf"]]
        return [] if [] in found else found[-1]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{path} is none of the words"]
    kinds = {"string": str, "integer": int, "number": int | float, "boolean": bool}
    kinds |= {"object": dict, "array": list}
    kind = kinds[schema["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return [f"{path} is no {schema['type']}"]
    wrong: list[str] = []
    if isinstance(value, list):
        for n, one in enumerate(value):
            wrong += faults(one, schema["items"], f"{path}[{n}]")
    if isinstance(value, dict):
        wrong += [f"{path} lacks {key}" for key in schema.get("required", ()) if key not in value]
        for key, one in value.items():
            where = f"{path}.{key}" if path else key
            inner = schema.get("properties", {}).get(key) or schema["additionalProperties"]
            if not inner or key not in schema.get("propertyNames", {}).get("enum", [key]):
                wrong.append(f"{where} is no key")
            else:
                wrong += faults(one, inner, where)
    return wrong


@pytest.mark.parametrize(
    "file",
    [SANDBOX, ROOT / "tests/bridge/peatio_3.toml", ROOT / "tests/bridge/peatio_2015.toml"],
    ids=lambda path: path.stem,
)
def test_files_that_are_read_fit_the_schema(file: Path) -> None:
    assert faults(tomllib.loads(file.read_text()), SCHEMA) == []


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("[gate]\nfills = 1\n", "gate.fills is no key"),
        ('[flip]\nhold_ms_max = "1"\n', "flip.hold_ms_max is no integer"),
        ("[proxy]\nworkers = true\n", "proxy.workers is no integer"),
        ('[[known]]\nid = "a"\n', "known[0] lacks owner"),
        ('[mapping.errors.late]\nstatus = 422\nbody = ""\n', "mapping.errors.late is no key"),
        ("[mapping.errors.not_open]\nstatus = 422\n", "mapping.errors.not_open lacks body"),
    ],
)
def test_what_does_not_fit_the_schema_can_not_be_read(more: str, fault: str) -> None:
    text = f"{SANDBOX.read_text()}\n{more}"
    assert fault in faults(tomllib.loads(text), SCHEMA)
    with pytest.raises(config.ConfigError):
        config.parse(text, source="x")


def test_keys_show_their_row_of_the_reference() -> None:
    orders = SCHEMA["properties"]["mapping"]["properties"]["orders"]["properties"]
    name, table = orders["side"]["anyOf"]
    assert name == {"type": "string"}
    assert set(table["properties"]) == {"column", "map", "null", "other"}
    tick = SCHEMA["properties"]["instruments"]["items"]["properties"]["tick"]
    assert tick["description"] == 'smallest step of a price, a decimal as text: `"0.01"`'
    errors = SCHEMA["properties"]["mapping"]["properties"]["errors"]["additionalProperties"]
    assert errors["properties"]["status"]["description"].startswith("status code")
