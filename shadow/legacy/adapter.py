"""What configuration can't say of a monolith, said in Python: one function at a time.

`mapping.adapter = "my_adapter:Adapter"` names a class, made once in each process, without
arguments. It has any of the methods of `Adapter`, and none that it doesn't need. They are called on
one thread, for every row, request and answer: they keep to plain values, read no clock and wait
for nothing.

What a method raises, and what it gives back of another kind, never stops a process and is never
guessed at: the row is unreadable, the comparison of the order uncomparable, with the reason; while
the instrument is live the request goes to the monolith as it came, and an order that has been taken
is told as of unknown outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from shadow.errors import AdapterFailed

if TYPE_CHECKING:
    from shadow.legacy.mapping import Route
    from shadow.normalise import Fields

Row = dict[str, str | None]  # column -> PostgreSQL's text, None for NULL
Rendering = Literal["place", "cancel", "refuse"]

_T = TypeVar("_T")


class Adapter(Protocol):
    """Every one of these is optional."""

    # Columns that its methods read besides those that the mapping names.
    order_columns: tuple[str, ...]
    fill_columns: tuple[str, ...]

    def order_row(self, row: Row) -> Row | None:
        """An order's row as the mapping should see it; None: there is no such row for us. Columns
        may be absent: unchanged, and stored out of line. The row is a copy.
        """

    def fill_row(self, row: Row) -> Row | None:
        """The same of a fill's."""

    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        """What a request gives, by our names of the fields, before the monolith's words are looked
        up; of a bulk request once for each order. The dictionary is a copy.
        """

    def answer(self, action: Rendering, body: Any) -> Any:
        """The body of an answer before it is written as JSON: dictionaries keep their order. Part
        of it may be `msgspec.Raw`, a number with all its digits.
        """


class Adapted:
    """As it is called: what the adapter lacks changes nothing, what it raises is AdapterFailed."""

    def __init__(self, adapter: object | None = None) -> None:
        self._order_row = getattr(adapter, "order_row", None)
        self._fill_row = getattr(adapter, "fill_row", None)
        self._request = getattr(adapter, "request", None)
        self._answer = getattr(adapter, "answer", None)
        self.order_columns: tuple[str, ...] = tuple(getattr(adapter, "order_columns", ()))
        self.fill_columns: tuple[str, ...] = tuple(getattr(adapter, "fill_columns", ()))

    def order_row(self, row: Row) -> Row | None:
        return self._row("order_row", self._order_row, row)

    def fill_row(self, row: Row) -> Row | None:
        return self._row("fill_row", self._fill_row, row)

    def fields(self, fields: Fields) -> Fields:
        if self._request is None:
            return fields
        replace = msgspec.structs.replace
        if fields.route.each:
            return replace(fields, each=tuple(self._one(one) for one in fields.each))
        return self._one(fields)

    def answer(self, action: Rendering, body: Any) -> Any:
        if self._answer is None:
            return body
        return _called("answer", self._answer, action, body)

    def _one(self, fields: Fields) -> Fields:
        values = _called("request", self._request, fields.route, dict(fields.values))
        if not isinstance(values, dict):
            raise AdapterFailed(f"the adapter's request gave {type(values).__name__}, not dict")
        return msgspec.structs.replace(fields, values=values, unadapted=fields.values)

    def _row(self, name: str, method: Callable[[Row], Any] | None, row: Row) -> Row | None:
        if method is None:
            return row
        found = _called(name, method, dict(row))
        if found is None:
            return None
        if not isinstance(found, dict) or not all(
            isinstance(column, str) and isinstance(value, str | None)
            for column, value in found.items()
        ):
            raise AdapterFailed(f"the adapter's {name} gave no row of texts")
        return found


PLAIN = Adapted()  # there is no adapter


def _called(name: str, method: Callable[..., _T] | None, *args: Any) -> _T:
    assert method is not None
    try:
        return method(*args)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise AdapterFailed(f"the adapter's {name} failed: {said}") from error
