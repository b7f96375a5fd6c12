"""Two answers are equal only if a client can't tell them apart, times aside."""

from __future__ import annotations

import pytest

from shadow.answer_check import compare_answer
from shadow.verdict import Kind


def differs(legacy: bytes, engine: bytes, status: int = 201) -> str:
    """Where; "" for nowhere."""
    found = compare_answer((status, legacy), (201, engine))
    assert len(found) <= 1
    if not found:
        return ""
    assert (found[0].kind, found[0].lasting) == (Kind.ANSWER, False)
    return found[0].what.rpartition(": ")[2]


@pytest.mark.parametrize(
    ("legacy", "engine"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b'{"a": 1}', b'{"a":1}'),
        (b'{"at":"2024-05-01T00:00:00.123Z"}', b'{"at":"2031-12-24T18:30:59.999Z"}'),
        (b'{"at":"2024-05-01T00:00:00+02:00"}', b'{"at":"2031-12-24T18:30:59+01:00"}'),
        (b"", b""),
    ],
)
def test_equal_answers(legacy: bytes, engine: bytes) -> None:
    assert differs(legacy, engine) == ""


@pytest.mark.parametrize(
    ("legacy", "engine", "where"),
    [
        (b'{"a":"1.0"}', b'{"a":"1.00"}', "body.a"),
        (b'{"a":1}', b'{"a":"1"}', "body.a"),
        (b'{"a":1.10}', b'{"a":1.1}', "body.a"),
        (b'{"a":null}', b'{"a":0}', "body.a"),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', "body (its keys)"),
        (b'{"a":[1]}', b'{"a":[1,2]}', "body.a (its length)"),
        (b'{"a":[{"b":1}]}', b'{"a":[{"b":2}]}', "body.a[0].b"),
        (b'{"at":"2024-05-01T00:00:00.123Z"}', b'{"at":"2024-05-01T00:00:00Z"}', "body.at"),
        (b'{"at":"2024-05-01T00:00:00.123Z"}', b'{"at":null}', "body.at"),
        (b'{"n":"12"}', b'{"n":"34"}', "body.n"),
        (b"<html>", b"{}", "body"),
        (b'{"a":"' + b"x" * 500 + b'"}', b'{"a":"y"}', "body.a"),
    ],
)
def test_different_answers_name_the_place(legacy: bytes, engine: bytes, where: str) -> None:
    assert differs(legacy, engine) == where


def test_another_status_is_told_before_the_body() -> None:
    assert differs(b"{}", b'{"a":1}', status=422) == "status"


def test_a_long_value_is_not_kept_whole() -> None:
    (found,) = compare_answer((201, b'{"a":"' + b"x" * 500 + b'"}'), (201, b'{"a":"y"}'))
    assert len(found.legacy) < 100


def test_a_body_that_is_nested_without_end_does_not_stop_the_comparison() -> None:
    assert differs(b"[" * 100_000, b"{}") == "body"


def test_a_number_with_a_fraction_is_no_string() -> None:
    told = (201, b'{"order":{"price":100.0}}')
    rendered = (201, b'{"order":{"price":"100.0"}}')
    assert compare_answer(told, rendered)
    assert compare_answer(told, told) == ()
