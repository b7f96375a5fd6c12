"""From differences to a verdict: first divergences, what follows from them, what is declared."""

from __future__ import annotations

from engine.reject import Reason
from engine.types import Event, EventKind
from shadow.judge import Divergence, not_taken, ruling
from shadow.verdict import Difference, Kind, Verdict


def found(*, lasting: bool = True) -> list[Difference]:
    return [Difference(kind=Kind.PRIORITY, what="differs", lasting=lasting)]


def test_no_difference_is_a_match_even_after_a_divergence() -> None:
    parted = Divergence(3, Verdict.MISMATCH, "")
    assert ruling([], (), None, 5) == (Verdict.MATCH, "", 0, None)
    assert ruling([], (), parted, 5) == (Verdict.MATCH, "", 0, parted)


def test_the_first_lasting_mismatch_is_the_root_of_what_follows() -> None:
    first = ruling(found(), (), None, 5)
    assert first == (Verdict.MISMATCH, "", 0, Divergence(5, Verdict.MISMATCH, ""))
    second = ruling(found(), (), first.divergence, 6)
    assert (second.verdict, second.root_order_id) == (Verdict.MISMATCH, 5)
    assert second.divergence == first.divergence


def test_a_difference_that_leaves_the_books_equal_is_a_root_of_nothing() -> None:
    assert ruling(found(lasting=False), (), None, 5) == (Verdict.MISMATCH, "", 0, None)


def test_a_known_difference_names_its_rules_and_may_part_the_books() -> None:
    known = ruling(found(), ("a", "b"), None, 5)
    assert (known.verdict, known.reason) == (Verdict.KNOWN, "a, b")
    assert known.divergence == Divergence(5, Verdict.KNOWN, "a, b")


def test_what_follows_something_uncomparable_is_no_mismatch() -> None:
    parted = Divergence(5, Verdict.UNCOMPARABLE, "price off the tick")
    ruled = ruling(found(), (), parted, 6)
    assert (ruled.verdict, ruled.root_order_id) == (Verdict.UNCOMPARABLE, 5)
    assert "price off the tick" in ruled.reason


def test_a_refusal_that_says_nothing_of_the_order_is_told_from_one_that_does() -> None:
    def rejected(reason: Reason) -> list[Event]:
        return [Event(kind=EventKind.REJECTED, reason=reason)]

    assert "INSTRUMENT_CLOSED" in not_taken(rejected(Reason.INSTRUMENT_CLOSED))
    assert "OUTCOME_EXPIRED" in not_taken(rejected(Reason.OUTCOME_EXPIRED))
    assert not_taken(rejected(Reason.BAD_QUANTITY)) == ""
    assert not_taken([Event(kind=EventKind.ACCEPTED)]) == ""
