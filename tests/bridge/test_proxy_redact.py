"""Values that must not be captured are taken out, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.proxy.capture.redact import REDACTED, Redaction
from shadow.capture import Capture, Outcome

SECRETS = ("secret", "otp")
REDACTION = Redaction(SECRETS)
JSON, FORM = "application/json", "application/x-www-form-urlencoded"

names = st.sampled_from(["secret", "otp", "price", "side", 'q"\\', "é", "Secret", "secrets"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def cleaned(value: Any) -> Any:
    """The specification."""
    if isinstance(value, dict):
        return {k: REDACTED if k in SECRETS else cleaned(v) for k, v in value.items()}
    return [cleaned(one) for one in value] if isinstance(value, list) else value


def capture(**changes: Any) -> Capture:
    given = {
        "worker": "w",
        "number": 1,
        "action": "place",
        "method": "POST",
        "target": "/api/v1/orders",
        "path_params": {},
        "content_type": JSON,
        "request_body": b"{}",
        "account": 7,
        "request_id": "r",
        "outcome": Outcome.ANSWERED,
        "status": 201,
        "response_body": b"{}",
        "sent_mono_ns": 1,
        "answered_mono_ns": 2,
        "sent_at_ns": 3,
    }
    return Capture(**(given | changes))


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_json_loses_the_values_and_nothing_else(value: Any, indent: int, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    redacted = REDACTION.json(body)
    assert json.loads(redacted) == cleaned(value)
    if cleaned(value) == value:
        assert redacted == body


def test_json_keeps_its_order_its_spaces_and_the_text_of_its_numbers() -> None:
    body = b'{ "b":1.10,\n "secret" : {"x":[1,"}"]} ,"a":1e2, "otp":null}'
    assert (
        REDACTION.json(body)
        == b'{ "b":1.10,\n "secret" : "[redacted]" ,"a":1e2, "otp":"[redacted]"}'
    )


@pytest.mark.parametrize(
    "body",
    [
        rb'{"secr\u0065t":"sesame"}',
        b'{"secret":"a","secret":"sesame"}',
        b'[{"x":{"secret":["sesame"]}}]',
        b'{"secret":"\\"sesame"}',
    ],
)
def test_no_spelling_of_json_hides_a_value(body: bytes) -> None:
    assert b"sesame" not in REDACTION.json(body)


@given(st.lists(st.tuples(names, st.text(max_size=6))), st.booleans())
def test_forms_lose_the_values_and_nothing_else(
    fields: list[tuple[str, str]], nested: bool
) -> None:
    keys = [f"order[{name}]" if nested else name for name, _ in fields]
    pairs = zip(keys, fields, strict=True)
    body = "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, (_, value) in pairs).encode()
    redacted = REDACTION.form(body)
    assert parse_qsl(redacted.decode(), keep_blank_values=True) == [
        (key, REDACTED if name in SECRETS else value)
        for key, (name, value) in zip(keys, fields, strict=True)
    ]
    if not any(name in SECRETS for name, _ in fields):
        assert redacted == body


@pytest.mark.parametrize(
    "body",
    [
        b"order%5Bsecret%5D=sesame",
        b"order[secret][]=sesame&order[secret][]=sesame",
        b"[secret]=sesame",
        b"%73ecret=sesame",
        b"a=1;secret=sesame",
        b"secret=a;b=sesame",
        b"a=1& secret=sesame",
        b"secret==sesame",
    ],
)
def test_no_spelling_of_a_form_hides_a_value(body: bytes) -> None:
    assert b"sesame" not in REDACTION.form(body)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"secret":"sesame"'),
        (JSON, b"secret=sesame"),
        (JSON, '{"secret":"sesame"}'.encode("utf-16")),
        (JSON, b"[" * 100_000),
        (FORM, b'{"secret" "sesame"}'),
        ("multipart/form-data; boundary=x", b"--x"),
        ("text/plain", b"secret=sesame"),
    ],
)
def test_what_can_t_be_read_is_not_captured(content_type: str, body: bytes) -> None:
    assert REDACTION.redact_capture(capture(content_type=content_type, request_body=body)) is None


def test_an_answer_that_can_t_be_read_is_not_captured_either() -> None:
    assert REDACTION.redact_capture(capture(response_body=b"<p>secret: sesame")) is None


def test_a_capture_is_cleaned_in_its_query_and_both_bodies() -> None:
    given = capture(
        target="/api/v1/orders?otp=sesame&x=1",
        content_type="",
        request_body=b"order[secret]=sesame&order[side]=buy",
        response_body=b'{"order":{"id":1,"otp":"sesame"}}',
    )
    redacted = REDACTION.redact_capture(given)
    assert redacted is not None
    assert redacted.target == "/api/v1/orders?otp=%5Bredacted%5D&x=1"
    assert redacted.request_body == b"order[secret]=%5Bredacted%5D&order[side]=buy"
    assert redacted.response_body == b'{"order":{"id":1,"otp":"[redacted]"}}'
    assert REDACTION.redact_capture(capture()) == capture()
