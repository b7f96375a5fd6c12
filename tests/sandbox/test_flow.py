"""Reading a recorded order flow: what clients asked, in an order in which they can have asked."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from bridge.errors import FlowUnreadable
from bridge.sandbox.flow import FlowEvent, FlowEventKind, read_flow, read_rows

HEADER = "received_ms,event,order_id,side,price,amount"


def recorded(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_creations_are_orders_and_open_deletions_cancels(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "flow.csv",
        "1000,order_created,7,buy,236.47,2.00000000",
        "1005,order_created,8,sell,236.40,0.50000000",
        "1010,order_changed,7,buy,236.47,1.50000000",
        "1011,order_deleted,8,sell,236.40,0.00000000",
        "1012,trade,99,,236.47,0.50000000",
        "1020,order_deleted,7,buy,236.47,1.50000000",
    )
    assert list(read_flow(path)) == [
        FlowEvent(
            kind="place",
            order_id=7,
            side="buy",
            price="236.47",
            quantity="2.00000000",
            received_ms=1000,
        ),
        FlowEvent(
            kind="place",
            order_id=8,
            side="sell",
            price="236.40",
            quantity="0.50000000",
            received_ms=1005,
        ),
        FlowEvent(
            kind="cancel",
            order_id=7,
            side="buy",
            price="236.47",
            quantity="1.50000000",
            received_ms=1020,
        ),
    ]


def test_a_cancel_published_before_its_order_follows_it(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "flow.csv",
        "1,order_deleted,7,buy,1.00,2.00",
        "2,order_created,7,buy,1.00,2.00",
        "3,order_created,8,buy,1.00,2.00",
    )
    asked = [(event.kind, event.order_id) for event in read_flow(path)]
    assert asked == [("place", 7), ("cancel", 7), ("place", 8)]


def test_a_cancel_is_asked_once_and_only_of_orders_of_the_flow(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "flow.csv",
        "1,order_created,7,buy,1.00,2.00",
        "2,order_deleted,7,buy,1.00,2.00",
        "2,order_deleted,7,buy,1.00,2.00",
        "3,order_deleted,5,sell,9.00,1.00",
    )
    assert [event.kind for event in read_flow(path)] == ["place", "cancel"]


def test_a_compressed_file_reads_the_same(tmp_path: Path) -> None:
    plain = recorded(tmp_path / "flow.csv", "1,order_created,7,buy,1.00,2.00")
    packed = tmp_path / "flow.csv.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert list(read_rows(packed)) == list(read_rows(plain))


def test_an_exponent_is_written_out(tmp_path: Path) -> None:
    path = recorded(tmp_path / "flow.csv", "1,trade,7,,236.62,1e-06")
    [row] = read_rows(path)
    assert (row.event, row.amount) == (FlowEventKind.TRADE, "0.000001")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1,order_created,7,buy,1.00", "line 3"),
        ("x,order_created,7,buy,1.00,2.00", "line 3"),
        ("1,order_made,7,buy,1.00,2.00", "line 3.*order_made"),
        ("1,order_created,7,bid,1.00,2.00", "line 3.*'bid'"),
        ("1,order_created,7,,1.00,2.00", "line 3"),
        ("1,trade,7,buy,1.00,2.00", "line 3"),
        ("1,order_created,7,buy,one,2.00", "line 3.*'one'"),
        ("1,order_created,7,buy,,2.00", "line 3"),
        ("1,order_created,7,buy,1.00,NaN", "line 3.*'NaN'"),
        ("1,order_created,7,buy,-1.00,2.00", "line 3"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, row: str, problem: str) -> None:
    path = recorded(tmp_path / "flow.csv", "1,order_created,6,buy,1.00,2.00", row)
    with pytest.raises(FlowUnreadable, match=f"flow.csv, {problem}"):
        list(read_flow(path))


def test_what_is_no_order_flow_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    with pytest.raises(FlowUnreadable, match=r"missing\.csv"):
        list(read_rows(missing))
    other = tmp_path / "other.csv"
    for text, problem in (("", "missing"), ("a,b\n1,2\n", "a, b")):
        other.write_text(text)
        with pytest.raises(FlowUnreadable, match=f"{problem}.*received_ms, event"):
            list(read_rows(other))
    cut = tmp_path / "cut.csv.xz"
    cut.write_bytes(lzma.compress(HEADER.encode() * 1000)[:-20])
    with pytest.raises(FlowUnreadable, match=r"cut\.csv\.xz"):
        list(read_rows(cut))
