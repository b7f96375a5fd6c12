"""Reads an SBE schema, and decodes records by nothing but what it says: as a client does that was
generated from it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

SCHEMA = Path(__file__).parents[2] / "docs" / "engine.sbe.xml"
MESSAGE = "{http://fixprotocol.io/2016/sbe}message"
NUMBERS = {"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "int64": "q", "char": "c"}

Value = int | bytes | str | frozenset[str]


class Field(NamedTuple):
    name: str
    offset: int
    width: int
    type: str  # a primitive's name, or that of an enum, a set or a text

    @property
    def bytes(self) -> range:
        return range(self.offset, self.offset + self.width)


class Layout(NamedTuple):
    """One message of the schema."""

    id: int
    name: str
    size: int
    fields: tuple[Field, ...]

    def field_at(self, offset: int) -> Field | None:
        return next((each for each in self.fields if each.offset == offset), None)


class Schema:
    def __init__(self, path: Path = SCHEMA) -> None:
        root = ElementTree.parse(path).getroot()
        self.byte_order = root.attrib["byteOrder"]
        self.enums: dict[str, dict[str, int]] = {}
        self.sets: dict[str, dict[str, int]] = {}
        self._formats = dict(NUMBERS)
        for kind in root.iter("enum"):
            name, encoding = kind.attrib["name"], kind.attrib["encodingType"]
            self._formats[name] = NUMBERS[encoding]
            self.enums[name] = {
                each.attrib["name"]: ord(each.text or "")
                if encoding == "char"
                else int(each.text or "")
                for each in kind.iter("validValue")
            }
        for kind in root.iter("set"):
            name = kind.attrib["name"]
            self._formats[name] = NUMBERS[kind.attrib["encodingType"]]
            self.sets[name] = {
                each.attrib["name"]: 1 << int(each.text or "") for each in kind.iter("choice")
            }
        for kind in root.findall("types/type"):
            self._formats[kind.attrib["name"]] = f"{kind.attrib['length']}s"
        self.layouts = {each.id: each for each in map(self._layout, root.iter(MESSAGE))}

    def __getitem__(self, name: str) -> Layout:
        return next(each for each in self.layouts.values() if each.name == name)

    def commands(self) -> list[Layout]:
        return [each for each in self.layouts.values() if each.id < 256]

    def events(self) -> list[Layout]:
        return [each for each in self.layouts.values() if 256 < each.id < 512]

    def command(self, data: bytes) -> Layout:
        """By the rule at the head of the schema."""
        order_type = self.enums["OrderType"]
        is_stop = data[0] == 1 and data[2] in (order_type["STOP"], order_type["STOP_LIMIT"])
        return self.layouts[129 if is_stop else data[0]]

    def event(self, data: bytes) -> Layout:
        return self.layouts[256 + data[0]]

    def number(self, field: Field, data: bytes) -> int:
        """As it stands on the wire, whatever it means."""
        (value,) = struct.unpack_from("<" + self._formats[field.type], data, field.offset)
        return value if isinstance(value, int) else int.from_bytes(value, "little")

    def decode(self, layout: Layout, data: bytes) -> dict[str, Value]:
        """Enums by name, sets as names, texts as bytes without their padding."""
        found: dict[str, Value] = {}
        for field in layout.fields:
            number = self.number(field, data)
            if field.type in self.enums:
                names = {value: name for name, value in self.enums[field.type].items()}
                found[field.name] = names[number]
            elif field.type in self.sets:
                choices = self.sets[field.type]
                assert number < 2 * max(choices.values()), (layout.name, field.name, number)
                found[field.name] = frozenset(n for n, bit in choices.items() if number & bit)
            elif field.type in NUMBERS:
                found[field.name] = number
            else:
                found[field.name] = data[field.offset : field.offset + field.width].rstrip(b"\0")
        return found

    def uncovered(self, layout: Layout, data: bytes) -> bytes:
        """What stands where the layout has no field."""
        covered = {at for field in layout.fields for at in field.bytes}
        return bytes(byte for at, byte in enumerate(data) if at not in covered)

    def _layout(self, message: ElementTree.Element) -> Layout:
        fields = tuple(
            Field(
                each.attrib["name"],
                int(each.attrib["offset"]),
                struct.calcsize("<" + self._formats[each.attrib["type"]]),
                each.attrib["type"],
            )
            for each in message.iter("field")
        )
        return Layout(
            int(message.attrib["id"]),
            message.attrib["name"],
            int(message.attrib["blockLength"]),
            fields,
        )
