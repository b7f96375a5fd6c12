"""Two markets, one of each implementation, told the same and held equal; where they differ, the
fewest commands that still show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from market_driver import market_or_skip

from engine.limits import RULES
from engine.market import Market, PythonMarket, RustMarket, restore_market
from engine.wire import COMMAND_BYTES, decode_commands, decode_events

IMPLEMENTATIONS = ("python", "rust")


class Batch(NamedTuple):
    commands: bytes
    ts_ns: int
    rules: int = RULES


class MarketsDifferError(AssertionError):
    """The two implementations do not agree."""


class Pair:
    """Both markets. `bounds` are those of the constructors."""

    def __init__(self, bounds: dict[str, int] | None = None) -> None:
        self.bounds = bounds
        self.markets = [_created(each, bounds) for each in IMPLEMENTATIONS]
        self.told: list[Batch] = []

    @property
    def rust(self) -> Market:
        return next(each for each in self.markets if each.implementation == "rust")

    def apply(self, batch: Batch) -> bytes:
        """The events, which are the same in both."""
        self.told.append(batch)
        commands, ts_ns, rules = batch
        python, rust = (each.apply(commands, ts_ns, rules=rules) for each in self.markets)
        if python != rust:
            raise MarketsDifferError(first_difference(python, rust))
        return python

    def compare(self) -> None:
        """The states, and everything that can be asked of them."""
        python, rust = self.markets
        python.check()
        rust.check()
        for question in ("instruments", "sessions", "accounts", "next_expiry_ns"):
            self._ask(question)
        for state in rust.instruments():
            number = state.instrument
            self._ask("orders", number)
            self._ask("stops", number)
            for most in (0, 1, 3, 1_000_000):
                self._ask("depth", number, most)
                self._ask("displayed_orders", number, most)
        for account in range(8):
            self._ask("account", account)
        states = python.snapshot(), rust.snapshot()
        if states[0] != states[1]:
            at = next((n for n, (a, b) in enumerate(zip(*states, strict=False)) if a != b), -1)
            raise MarketsDifferError(f"the snapshots differ from byte {at} on")

    def swap(self) -> None:
        """Each goes on from the other's snapshot, with the bounds of production."""
        python, rust = (each.snapshot() for each in self.markets)
        self.markets = [restore_market("python", rust), restore_market("rust", python)]
        self.bounds = None

    def restored(self) -> None:
        """Each can be had again from the other's snapshot."""
        for market in self.markets:
            for implementation in IMPLEMENTATIONS:
                again = restore_market(implementation, market.snapshot())
                again.check()
                if again.snapshot() != market.snapshot():
                    raise MarketsDifferError(f"{implementation} restores another state")

    def _ask(self, question: str, *arguments: int) -> None:
        answers = [getattr(market, question)(*arguments) for market in self.markets]
        if answers[0] != answers[1]:
            told = "\n".join(
                f"{m.implementation}: {a}" for m, a in zip(self.markets, answers, strict=True)
            )
            raise MarketsDifferError(f"{question}{arguments}\n{told}")


def first_difference(python: bytes, rust: bytes) -> str:
    pairs = zip(decode_events(python), decode_events(rust), strict=False)
    for left, right in pairs:
        if left != right:
            return f"python: {left}\nrust:   {right}"
    return f"python gives {len(python) // 80} events, rust {len(rust) // 80}"


def shortest(told: list[Batch], bounds: dict[str, int] | None, runs_max: int = 400) -> str:
    """The fewest single commands, of those told, after which the markets differ; as text."""
    single = [
        Batch(
            batch.commands[at : at + COMMAND_BYTES], batch.ts_ns + 1_000 * (at // 64), batch.rules
        )
        for batch in told
        for at in range(0, len(batch.commands), COMMAND_BYTES)
    ]
    if _difference(single, bounds) is None:
        return "(told one by one, the commands do not show it)"
    least = _reduced(single, lambda some: _difference(some, bounds) is not None, runs_max)
    lines = [f"{b.ts_ns} rules {b.rules}: {_as_text(b.commands)}" for b in least]
    return "\n".join([f"bounds {bounds}", *lines, str(_difference(least, bounds))])


def _difference(batches: list[Batch], bounds: dict[str, int] | None) -> str | None:
    pair = Pair(bounds)
    try:
        for batch in batches:
            pair.apply(batch)
        pair.compare()
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def _reduced(
    batches: list[Batch], differs: Callable[[list[Batch]], bool], runs_max: int
) -> list[Batch]:
    """Leaves out halves, quarters, and so on for as long as it still differs."""
    size, runs = len(batches) // 2, 0
    while size and runs < runs_max:
        at = 0
        while at < len(batches) and runs < runs_max:
            fewer = batches[:at] + batches[at + size :]
            runs += 1
            if differs(fewer):
                batches = fewer
            else:
                at += size
        size //= 2
    return batches


def _as_text(command: bytes) -> str:
    try:
        decoded = next(decode_commands(command))
    except ValueError:
        return command.hex()
    fields = {name: getattr(decoded, name) for name in decoded.__struct_fields__}
    return " ".join(f"{name}={value!s}" for name, value in fields.items() if value)


def _created(implementation: str, bounds: dict[str, int] | None) -> Market:
    market = market_or_skip(implementation)
    if bounds is None:
        return market
    return (PythonMarket if implementation == "python" else RustMarket)(**bounds)
