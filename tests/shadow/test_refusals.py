"""A monolith's own error bodies: which one answers, and how several become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.legacy.mapping import ErrorAnswer
from shadow.refusals import REASONS, ErrorAnswers, Fault, problems

PEATIO = '{"errors":["market.order.invalid_volume_or_price"]}'
RAILS = '{"errors":{"%{field}":["%{message}"]}}'


def answers(**bodies: str | tuple[int, str]) -> dict[str, ErrorAnswer]:
    pairs = {key: (422, one) if isinstance(one, str) else one for key, one in bodies.items()}
    return {key: ErrorAnswer(status=status, body=body) for key, (status, body) in pairs.items()}


def rendered(given: dict[str, ErrorAnswer], *reasons: str) -> object:
    faults = [Fault(reason, f"f{n}", f"m{n}") for n, reason in enumerate(reasons)]
    return ErrorAnswers(given).rendered(faults)


@pytest.mark.parametrize(
    ("named", "body"),
    [
        ("price_off_tick", "own"),
        ("price_too_high", "price"),
        ("price_forbidden", "price"),
        ("quantity_missing", "any"),
        ("symbol_missing", "any"),
        ("not_open", None),
    ],
)
def test_a_reason_without_an_answer_falls_back_to_the_more_general_one(
    named: str, body: str | None
) -> None:
    given = answers(price_off_tick='["own"]', invalid_price='["price"]', invalid='["any"]')
    assert rendered(given, named) == (None if body is None else (422, [body]))


def test_placeholders_are_filled_in_keys_and_values() -> None:
    assert rendered(answers(invalid=RAILS), "side_missing") == (422, {"errors": {"f0": ["m0"]}})
    given = answers(invalid='{"error":"%{field} %{message}!","code":7,"more":null}')
    assert rendered(given, "invalid_tif") == (
        422,
        {"error": "f0 m0!", "code": 7, "more": None},
    )


def test_several_faults_are_told_in_one_body() -> None:
    assert rendered(answers(invalid=RAILS), "price_missing", "quantity_missing") == (
        422,
        {"errors": {"f0": ["m0"], "f1": ["m1"]}},
    )
    given = answers(price_missing='{"errors":["p"]}', quantity_missing='{"errors":["q"]}')
    assert rendered(given, "price_missing", "quantity_missing") == (422, {"errors": ["p", "q"]})


def test_what_can_not_be_put_together_is_said_by_the_first() -> None:
    given = answers(price_missing='{"error":"p"}', quantity_missing='{"error":"q"}')
    assert rendered(given, "price_missing", "quantity_missing") == (422, {"error": "p"})
    given = answers(price_missing='["p"]', quantity_missing=(400, '["q"]'))
    assert rendered(given, "price_missing", "quantity_missing") == (422, ["p"])
    assert rendered(answers(not_found=(404, "")), "not_found") == (404, None)


@given(st.sampled_from(REASONS))
def test_every_reason_can_have_an_answer_of_its_own(reason: str) -> None:
    given = answers(**{one: f'["{one}"]' for one in REASONS})
    assert list(problems(given)) == []
    assert rendered(given, reason) == (422, [reason])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            answers(insufficient_fund=PEATIO),
            "`mapping.errors.insufficient_fund` is none of our reasons: the nearest is `insuff",
        ),
        (answers(not_found=(99, PEATIO)), "`mapping.errors.not_found.status` must be from"),
        (answers(not_found="{"), "`mapping.errors.not_found.body` is no JSON"),
        (answers(not_found='["%{count}"]'), "%{count} is none of the placeholders"),
    ],
)
def test_what_can_not_be_answered_is_refused(given: dict[str, ErrorAnswer], says: str) -> None:
    (one,) = problems(given)
    assert says in one
