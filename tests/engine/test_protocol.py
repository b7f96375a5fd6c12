"""Cutting bytes into messages, however they arrive and whatever they are."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadMessage
from engine.protocol import (
    HEADER,
    VERSION,
    Login,
    MessageReader,
    MessageType,
    Query,
    message,
    packed,
    unpacked,
)
from engine.ring import Ring

MESSAGES = [
    (MessageType.HEARTBEAT, b""),
    (MessageType.COMMANDS, b"c" * 640),
    (MessageType.QUERY, b"q"),
    (MessageType.EVENTS, b"e" * 5_000),
]
STREAM = b"".join(message(kind, payload) for kind, payload in MESSAGES)


def read(pieces: list[bytes], *, payload_bytes_max: int = 10_000) -> list[tuple[int, bytes]]:
    reader = MessageReader(payload_bytes_max=payload_bytes_max)
    return [(kind, bytes(payload)) for piece in pieces for kind, payload in reader.feed(piece)]


@given(st.lists(st.integers(0, len(STREAM))).map(sorted))
def test_messages_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    ends = [*cuts, len(STREAM)]
    pieces = [STREAM[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    assert read(pieces) == MESSAGES


def test_messages_arrive_byte_by_byte() -> None:
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == MESSAGES


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (HEADER.pack(10_001, ord("C"), VERSION, 0), "10001 bytes: the most is 10000"),
        (HEADER.pack(2**32 - 1, ord("C"), VERSION, 0), "the most is 10000"),
        (HEADER.pack(1, ord("C"), VERSION + 1, 0), f"version {VERSION + 1}: this side speaks"),
        (HEADER.pack(1, ord("C"), VERSION, 1), "two zero bytes"),
        (b"GET / HTTP/1.1\r\n", "protocol version"),
    ],
)
def test_a_header_that_is_none_is_refused_before_its_payload_comes(
    header: bytes, told: str
) -> None:
    with pytest.raises(BadMessage, match=told):
        read([STREAM, header])


@given(st.binary(max_size=300))
def test_random_bytes_are_messages_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        read([data[:100], data[100:]])


@given(st.binary(max_size=100))
def test_a_random_payload_is_a_login_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(unpacked(memoryview(data), Login).name, str)


def test_a_deeply_nested_payload_is_refused() -> None:
    with pytest.raises(BadMessage):
        unpacked(memoryview(b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"), Login)


def test_text_that_is_no_utf_8_is_refused() -> None:
    for place in (b"\x82\xa4name\xa1\xff\xa3key\xa1k", b"\x81\xa1\xff\xa1k"):
        with pytest.raises(BadMessage, match="no Login"):
            unpacked(memoryview(place), Login)


def test_a_question_about_an_impossible_instrument_is_refused() -> None:
    data = packed(MessageType.QUERY, Query(id=1, what="book", instrument=2**40))
    with pytest.raises(BadMessage):
        unpacked(memoryview(data[HEADER.size :]), Query)


def test_a_ring_keeps_the_newest_within_its_bytes() -> None:
    ring = Ring[int](bytes_max=10 * (256 + 44))
    for key in range(1, 31):
        ring.append(2 * key, 2 * key + 1, key, size=44)
    assert list(ring.since(0)) == list(range(21, 31))
    assert ring.evicted_through == 41
    assert ring.covers(42)
    assert not ring.covers(41)
    assert list(ring.since(57)) == [28, 29, 30]
    assert list(ring.since(62)) == []
    assert ring.covers(62)


def test_a_ring_holds_one_item_that_is_too_large() -> None:
    ring = Ring[str](bytes_max=100)
    ring.append(1, 1, "small", size=1)
    ring.append(2, 2, "large", size=10_000)
    assert list(ring.since(0)) == ["large"]
