from collections.abc import Callable
from os import PathLike
from typing import Any, TypeAlias, final

__all__ = [
    "ACCOUNTS_MAX",
    "COMMAND_STEP_NS",
    "DAY_S",
    "ICEBERGS_PER_BOOK_MAX",
    "ICEBERG_PARTS_MAX",
    "INSTRUMENTS_MAX",
    "LEVELS_PER_SIDE_MAX",
    "MASS_CANCEL_MAX",
    "OPEN_ORDERS_MAX",
    "OPEN_ORDERS_PER_BOOK_MAX",
    "RULES",
    "RULES_OLDEST",
    "STOPS_PER_BOOK_MAX",
    "Committer",
    "Market",
    "Zeroing",
]

ACCOUNTS_MAX: int
COMMAND_STEP_NS: int
DAY_S: int
ICEBERGS_PER_BOOK_MAX: int
ICEBERG_PARTS_MAX: int
INSTRUMENTS_MAX: int
LEVELS_PER_SIDE_MAX: int
MASS_CANCEL_MAX: int
OPEN_ORDERS_MAX: int
OPEN_ORDERS_PER_BOOK_MAX: int
RULES: int
RULES_OLDEST: int
STOPS_PER_BOOK_MAX: int

_InstrumentRow: TypeAlias = tuple[
    tuple[int, str, int, int, int, int, int], tuple[int, int, int, int, int, bool, int, int]
]
AccountRow: TypeAlias = tuple[int, int, int, int, int, bool, int, int, int, int]

@final
class Market:
    def __new__(
        cls,
        *,
        open_orders_per_book_max: int = ...,
        open_orders_max: int = ...,
        levels_per_side_max: int = ...,
        stops_per_book_max: int = ...,
        icebergs_per_book_max: int = ...,
        accounts_max: int = ...,
        mass_cancel_max: int = ...,
    ) -> Market: ...
    @staticmethod
    def restore(snapshot: bytes) -> Market: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def last_ts_ns(self) -> int: ...
    def apply(self, commands: bytes, ts_ns: int, rules: int = ...) -> bytes: ...
    def orders(self, instrument: int) -> bytes | None: ...
    def stops(self, instrument: int) -> bytes | None: ...
    def depth(self, instrument: int, levels: int) -> bytes | None: ...
    def displayed_orders(self, instrument: int, count: int) -> bytes | None: ...
    def instruments(self) -> list[_InstrumentRow]: ...
    def sessions(self) -> list[tuple[int, str, int, int, int]]: ...
    def accounts(self) -> list[AccountRow]: ...
    def account(self, account: int) -> AccountRow: ...
    def next_expiry_ns(self) -> int | None: ...
    def snapshot(self) -> bytes: ...
    def check(self) -> None: ...

@final
class Committer:
    def __new__(
        cls,
        market: Market,
        rotate: Callable[[int, int, bytes, int], tuple[PathLike[str], int, int]],
        *,
        path: PathLike[str],
        offset: int,
        size: int,
        rules: int,
        next_seq: int,
        next_ts_ns: int,
        crc: int,
        commands_max: int,
    ) -> Committer: ...
    @property
    def offset(self) -> int: ...
    def fileno(self) -> int: ...
    def add(self, owner: Any, session: int, commands: bytes | memoryview, now_ns: int) -> None: ...
    def offer(
        self, owner: Any, session: int, commands: bytes | memoryview, above_ref: int, now_ns: int
    ) -> int: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...
    def settled(
        self,
    ) -> tuple[list[tuple[int, int, int, bytes, list[tuple[Any, int, int, int, bytes]]]], bool]: ...
    def failure(self) -> tuple[int, BaseException] | None: ...
    def stop(self) -> None: ...

@final
class Zeroing:
    def want(self, size: int) -> None: ...
    def enough(self) -> None: ...
    def run(self, path: PathLike[str], start: int, end: int, step: int) -> int: ...
