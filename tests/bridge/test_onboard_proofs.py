"""What the rows of a status prove: each proof, and what takes it away."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bridge.onboard.evidence import Evidence, Met, OrderSeen
from bridge.onboard.proofs import statuses

SECOND = 1_000_000
ONE, HALF, NONE = Decimal(1), Decimal("0.5"), Decimal(0)
LATE = ("x", Decimal(90), 1_000 * SECOND)  # a trade below the buyers' limit of 100, much later


def order(
    status: str,
    *,
    leaves: Decimal = ONE,
    filled: Decimal = NONE,
    updated_s: int = 100,
    role: str = "maker",
    has_all: bool = True,
) -> OrderSeen:
    """A buyer at 100; what was filled of it was at second 100."""
    fill = Met(
        role=role,
        rested=role == "maker",
        price=Decimal(100),
        quantity=filled,
        at_us=100 * SECOND,
        fill={},
    )
    return OrderSeen(
        row={"state": status},
        symbol="x",
        price=Decimal(100),
        quantity=ONE,
        leaves=leaves,
        created_us=50 * SECOND,
        updated_us=updated_s * SECOND,
        fills=(fill,) if filled else (),
        has_all=has_all,
    )


def proved(*orders: OrderSeen, prints: tuple[tuple[str, Decimal, int], ...] = ()) -> dict[str, str]:
    evidence = Evidence(orders=orders, prints=prints, fills=len(orders), unexplained=0)
    sides = dict.fromkeys(range(len(orders)), "buy")
    return {value: one.word for value, one in statuses(evidence, "state", sides).items()}


def partly(status: str, updated_s: int = 100, role: str = "maker") -> OrderSeen:
    return order(status, leaves=HALF, filled=HALF, updated_s=updated_s, role=role)


def test_filled_is_what_has_fills_for_all_of_it() -> None:
    full = [order("1", leaves=NONE, filled=ONE)] * 5
    assert proved(*full) == {"1": "filled"}
    assert proved(*full[:4]) == {"1": ""}
    assert proved(*full, order("1")) == {"1": ""}  # one with something left
    assert proved(*full, order("1", leaves=NONE, filled=HALF)) == {"1": ""}


def test_nothing_left_alone_is_no_fill() -> None:
    unseen = [order("1", leaves=NONE, has_all=False)] * 50
    assert proved(*unseen) == {"1": ""}


def test_nothing_left_and_less_than_all_filled_is_canceled() -> None:
    gone = [order("2", leaves=NONE, filled=HALF)] * 5
    assert proved(*gone) == {"2": "canceled"}
    never = [order("2", leaves=NONE)] * 50  # rejected, as well
    assert proved(*never) == {"2": ""}


def test_open_is_what_a_fill_left_behind() -> None:
    assert proved(*[partly("0")] * 5) == {"0": "open"}
    assert proved(*[partly("0")] * 4) == {"0": ""}
    assert proved(*[partly("0", role="taker")] * 50) == {
        "0": ""
    }  # the rest of one that may not rest


def test_open_is_not_what_was_changed_or_passed_over_afterwards() -> None:
    assert proved(*[partly("0")] * 50, partly("0", updated_s=160)) == {"0": ""}
    assert proved(*[partly("0")] * 50, prints=(LATE,)) == {"0": ""}


def test_of_two_that_could_be_open_neither_is() -> None:
    assert proved(*[partly("0")] * 9, *[partly("1")] * 9) == {"0": "", "1": ""}
    assert proved(*[partly("0")] * 9, partly("1")) == {"0": "", "1": ""}


def test_a_cancel_that_came_at_once_is_no_rival() -> None:
    """Some of that status were changed later, so that a fill is not what left them in it."""
    gone = [partly("2")] * 9 + [partly("2", updated_s=160)]
    assert proved(*[partly("0")] * 9, *gone) == {"0": "open", "2": ""}


@pytest.mark.parametrize(("partly_filled", "word"), [(1, "canceled"), (0, "")])
def test_canceled_is_what_was_passed_over_and_once_partly_filled(
    partly_filled: int, word: str
) -> None:
    """Without a fill it may be pending or rejected."""
    resting = [partly("0", updated_s=100)] * 5
    gone = [order("2", updated_s=200)] * 9 + [partly("2", updated_s=200)] * partly_filled
    # the trade below them comes after their last change, and not after that of those that rest
    later = ("y", Decimal(90), 1_000 * SECOND)
    assert proved(*resting, *gone, prints=(later,))["2"] == ""
    moved = [
        OrderSeen(**{name: getattr(one, name) for name in one.__struct_fields__} | {"symbol": "y"})
        for one in gone
    ]
    assert proved(*resting, *moved, prints=(later,))["2"] == word
