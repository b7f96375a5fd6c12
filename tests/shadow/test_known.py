"""Declared differences explain what they cover, until their day or their cap has come."""

from __future__ import annotations

from datetime import date

from shadow.known import Rule, explaining
from shadow.verdict import Difference, Kind

TODAY = date(2030, 6, 15)


def rule(**changed: object) -> Rule:
    given: dict[str, object] = {
        "id": "lifo",
        "symbols": (),
        "kinds": (Kind.PRIORITY,),
        "expires": date(2030, 12, 31),
        "hits_max": 10,
    }
    return Rule(**(given | changed))  # type: ignore[arg-type]


def found(*kinds: Kind) -> list[Difference]:
    return [Difference(kind=kind, what="differs") for kind in kinds]


def ids(*rules: Rule, kinds: tuple[Kind, ...] = (Kind.PRIORITY,), hits: int = 0) -> tuple[str, ...]:
    return explaining(rules, "BTC-USD", found(*kinds), {"lifo": hits}, TODAY)


def test_a_rule_explains_its_kind() -> None:
    assert ids(rule()) == ("lifo",)


def test_a_rule_of_other_instruments_explains_nothing() -> None:
    assert ids(rule(symbols=("ETH-USD",))) == ()
    assert ids(rule(symbols=("ETH-USD", "BTC-USD"))) == ("lifo",)


def test_an_operation_is_known_only_if_every_difference_is() -> None:
    assert ids(rule(), kinds=(Kind.PRIORITY, Kind.PRICE)) == ()
    other = rule(id="cents", kinds=(Kind.PRICE,))
    assert ids(rule(), other, kinds=(Kind.PRIORITY, Kind.PRICE)) == ("lifo", "cents")


def test_several_differences_of_one_rule_name_it_once() -> None:
    assert ids(rule(), kinds=(Kind.PRIORITY, Kind.PRIORITY)) == ("lifo",)


def test_a_rule_holds_on_its_last_day_and_not_after() -> None:
    assert ids(rule(expires=TODAY)) == ("lifo",)
    assert ids(rule(expires=date(2030, 6, 14))) == ()


def test_a_rule_at_its_cap_explains_nothing_more() -> None:
    assert ids(rule(), hits=9) == ("lifo",)
    assert ids(rule(), hits=10) == ()


def test_a_second_rule_steps_in_for_one_at_its_cap() -> None:
    assert ids(rule(), rule(id="lifo-2"), hits=10) == ("lifo-2",)
