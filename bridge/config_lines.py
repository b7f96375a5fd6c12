"""On which line of a TOML file a key stands. Pure.

`tomllib` reads values and forgets where they were. This walks over a text that `tomllib` has taken
already, so that it never has to say what is wrong with one.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]  # keys, and places in lists from 0

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_STRINGS = (  # the longer quotes first
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL),
    re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_NAMED = re.compile(r"`([^`]+)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class Lines:
    """
    >>> lines = Lines('[a]\\nb = { c = 1 }\\n[[d]]\\n[[d]]\\ne = 2')
    >>> lines.of("a.b.c"), lines.of("d[1].e"), lines.of("d[1].missing"), lines.of("z")
    (2, 5, 4, 0)
    """

    def __init__(self, text: str) -> None:
        self.by_path = _Walk(text).lines

    def of(self, dotted: str) -> int:
        """The line of a key such as `instruments[1].tick`, from 1; of what it stands in where it is
        not there itself; 0 where nothing of it is.
        """
        path: Path = tuple(
            key or int(place) for key, place in (one.groups() for one in _STEP.finditer(dotted))
        )
        while path and path not in self.by_path:
            path = path[:-1]
        return self.by_path.get(path, 0)

    def told(self, source: str, sentence: str) -> str:
        """With the file and the line of the first key that it names in backticks."""
        found = (self.of(one[1]) for one in _NAMED.finditer(sentence))
        line = next(filter(None, found), 0)
        return f"{source}:{line}: {sentence}" if line else f"{source}: {sentence}"


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._counted_to, self._line = 0, 1
        self._lists: dict[Path, int] = {}  # lists of tables, and the place of their last one
        self._walk()

    def _walk(self) -> None:
        table: Path = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)

    def _header(self) -> Path:
        is_list = self._text.startswith("[[", self._at)
        line = self._here()
        self._at += 2 if is_list else 1
        *parents, last = self._key()
        self._at += 2 if is_list else 1
        path: Path = ()
        for key in parents:
            path = self._entered((*path, key))
            self.lines.setdefault(path, line)
        path = (*path, last)
        if not is_list:
            path = self._entered(path)
            self.lines.setdefault(path, line)
            return path
        place = self._lists[path] = self._lists.get(path, -1) + 1
        self.lines.setdefault(path, line)
        self.lines[(*path, place)] = line
        return (*path, place)

    def _entered(self, path: Path) -> Path:
        """Of a list of tables its last one."""
        return (*path, self._lists[path]) if path in self._lists else path

    def _pair(self, table: Path) -> None:
        line, path = self._here(), table
        for key in self._key():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            if self._text[self._at] in "\"'":
                quoted = self._string()
                keys.append(str(tomllib.loads(f"x = {quoted}")["x"]))
            else:
                keys.append(self._taken(_BARE))
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._list(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._taken(_SCALAR)

    def _list(self, path: Path) -> None:
        self._at += 1
        self._skip(_GAP)
        place = 0
        while self._text[self._at] != "]":
            self.lines[(*path, place)] = self._here()
            self._value((*path, place))
            place += 1
            self._after_one()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._skip(_GAP)
        while self._text[self._at] != "}":
            self._pair(path)
            self._after_one()
        self._at += 1

    def _after_one(self) -> None:
        self._skip(_GAP)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_GAP)

    def _string(self) -> str:
        for quoted in _STRINGS:
            if quoted.match(self._text, self._at):
                return self._taken(quoted)
        raise AssertionError("a string without an end")

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._taken(pattern)

    def _taken(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return found[0]

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
