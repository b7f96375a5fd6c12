"""Keys are found on their lines, however a file is written."""

from __future__ import annotations

import doctest
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import config_lines
from bridge.config_lines import Lines

TEXT = '''\
# a comment with [brackets] and = signs
top = """
not = "a key"
"""
a.b . "c d" = 1 # [no.table]

[one.two]
three = [
  "x", # ]
  { four = 1, five = { six = 'a # b' } },
]
"quoted.key" = \'\'\'
[fake]
\'\'\'
date = 1979-05-27 07:32:00

[[rows]]
n = 1
[rows.sub]
m = 2
[[rows.deep]]
k = 1
[[rows.deep]]
k = 2
[[rows]]
n = { x.y = 1 }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("a",), 5),
        (("a", "b", "c d"), 5),
        (("one",), 7),
        (("one", "two"), 7),
        (("one", "two", "three", 0), 9),
        (("one", "two", "three", 1, "five", "six"), 10),
        (("one", "two", "quoted.key"), 12),
        (("one", "two", "date"), 15),
        (("rows", 0), 17),
        (("rows", 0, "sub", "m"), 20),
        (("rows", 0, "deep", 1, "k"), 24),
        (("rows", 1), 25),
        (("rows", 1, "n", "x", "y"), 26),
    ],
)
def test_where_a_key_stands(path: config_lines.Path, line: int) -> None:
    assert Lines(TEXT).by_path[path] == line


def test_nothing_in_a_string_or_a_comment_is_a_key() -> None:
    assert set(Lines(TEXT).by_path) == set(paths(tomllib.loads(TEXT)))


def test_the_examples_in_the_text() -> None:
    assert doctest.testmod(config_lines).failed == 0


def test_a_sentence_gets_the_line_of_the_key_that_it_names() -> None:
    lines = Lines(TEXT)
    assert lines.told("f", "`one.two.three` is odd") == "f:8: `one.two.three` is odd"
    assert lines.told("f", "`rows[1].gone` is odd") == "f:25: `rows[1].gone` is odd"
    assert lines.told("f", "`gone` and `a.b` differ") == "f:5: `gone` and `a.b` differ"
    assert lines.told("f", "`gone`: the key is missing") == "f: `gone`: the key is missing"


def paths(value: Any, path: config_lines.Path = ()) -> Iterator[config_lines.Path]:
    """Of every key and every element in what tomllib has read."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        yield from paths(inner, (*path, key))


names = st.text("ab_1", min_size=1, max_size=3)
keys = st.one_of(names, st.sampled_from(['"x.y"', "'q r'", '"\\"\\u00e9"', '"#"']))
scalars = st.sampled_from(
    [
        *("1", "-0.5", "true", "1979-05-27", '"a = [b] # c"', "'\\'", '"\\\\"', '""', "''"),
        *('"""\n[x]\ny = 1\n"""', "'''\n'' ] }\n'''", '"""a"""""', "''''b'''''"),
    ]
)


def tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.dictionaries(keys, values, max_size=3)
    return pairs.map(lambda one: "{" + ", ".join(f" {k} = {v}" for k, v in one.items()) + " }")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    gaps = st.sampled_from(["", "\n", " # ] }\n  "])
    return st.lists(st.tuples(gaps, values, gaps), max_size=3).map(
        lambda items: "[" + "".join(f"{a}{value}{b}," for a, value, b in items) + "\n]"
    )


def is_flat(text: str) -> bool:
    return "\n" not in text


inline = st.recursive(
    scalars.filter(is_flat),
    lambda inner: st.one_of(tables(inner), lists(inner).map(lambda one: one.replace("\n", ""))),
    max_leaves=5,
).filter(lambda one: "#" not in one or one[0] in "\"'")
values = st.one_of(scalars, inline, lists(inline))
gaps = st.sampled_from(["", "\n", "# [c]\n", "  \n\t\n"])
lines = st.one_of(
    st.tuples(keys, values).map(lambda one: f"{one[0]} = {one[1]}\n"),
    st.tuples(keys, keys, values).map(lambda one: f"{one[0]} . {one[1]}={one[2]} # = x\n"),
    st.lists(keys, min_size=1, max_size=3).map(lambda one: f"[{' . '.join(one)}]\n"),
    st.lists(keys, min_size=1, max_size=2).map(lambda one: f"[[ {'.'.join(one)} ]] # [[\n"),
)


@given(st.lists(st.tuples(gaps, lines), max_size=8))
def test_every_key_is_found_and_on_its_own_line(written: list[tuple[str, str]]) -> None:
    """What TOML does not allow together is left out, line by line. The line of a pair's key is the
    one that it was written on.
    """
    text = ""
    for gap, line in written:
        try:
            tomllib.loads(text + gap + line)
        except tomllib.TOMLDecodeError:
            continue
        before = set(paths(tomllib.loads(text)))
        number = (text + gap).count("\n") + 1
        text += gap + line
        new = set(paths(tomllib.loads(text))) - before
        found = Lines(text).by_path
        assert set(found) == set(paths(tomllib.loads(text)))
        last = number + line.count("\n") - 1
        assert all(number <= found[path] <= last for path in new)
        if "\n" not in line[:-1]:
            assert {found[path] for path in new} <= {number}
