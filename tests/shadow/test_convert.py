"""Decimals to integers and back: exact, or refused."""

from __future__ import annotations

import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.errors import NotExact
from shadow.legacy.convert import Scale, scales
from shadow.legacy.mapping import InstrumentConfig

STEPS = st.sampled_from(["0.01", "0.00000001", "1", "10", "0.25", "0.5", "2.5", "0.000000000001"])


def grid(tick: str = "0.01", lot: str = "0.00000001") -> Scale:
    return Scale(
        symbol="BTC-USD",
        instrument=1,
        tick=Decimal(tick),
        lot=Decimal(lot),
        price_ticks_max=10**9,
        qty_lots_max=10**9,
    )


@given(STEPS, st.integers(0, 2**63 - 1))
def test_ticks_survive_the_way_to_a_decimal_and_back(tick: str, ticks: int) -> None:
    scale = grid(tick=tick)
    assert scale.ticks(scale.price(ticks)) == ticks
    assert scale.ticks(f"{scale.price(ticks):f}") == ticks


@given(STEPS, st.integers(0, 2**64 - 1))
def test_lots_survive_the_way_to_a_decimal_and_back(lot: str, lots: int) -> None:
    scale = grid(lot=lot)
    assert scale.lots(scale.quantity(lots)) == lots
    assert scale.lots(f"{scale.quantity(lots):f}") == lots


@given(
    STEPS,
    st.decimals(min_value=0, max_value=10**15, places=10, allow_nan=False, allow_infinity=False),
)
def test_a_price_is_exact_or_refused(tick: str, price: Decimal) -> None:
    scale = grid(tick=tick)
    with decimal.localcontext(prec=100):
        exact = price / Decimal(tick)
        whole = exact == exact.to_integral_value()
        if whole and exact < 2**63:
            assert scale.ticks(f"{price:f}") == int(exact)
            assert scale.price(int(exact)) == price
        else:
            with pytest.raises(NotExact):
                scale.ticks(f"{price:f}")


def test_a_narrow_decimal_context_rounds_nothing() -> None:
    scale = grid(tick="0.00000001")
    with decimal.localcontext(prec=3):
        assert scale.ticks("12345678.12345678") == 1234567812345678
        assert scale.ticks(Decimal("12345678.12345678")) == 1234567812345678
        assert str(scale.price(1234567812345678)) == "12345678.12345678"


@pytest.mark.parametrize("text", ["236.47", "236.4700000000", "000236.47"])
def test_trailing_and_leading_zeros_change_nothing(text: str) -> None:
    assert grid().ticks(text) == 23647


def test_a_coarse_tick_takes_only_its_multiples() -> None:
    scale = grid(tick="0.25")
    assert scale.ticks("1.75") == 7
    with pytest.raises(NotExact, match=r"price 1\.70 of BTC-USD is not a multiple"):
        scale.ticks("1.70")


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "NaN", "Infinity", "-Infinity", "1e3", "1_000", "+1", ".5", "1.", "٣", "1,5"],
)
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    with pytest.raises(NotExact, match="is not a plain decimal number"):
        grid().ticks(text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1E+1000000", "1E-1000000"])
def test_a_decimal_that_is_no_number_or_endless_is_refused(value: str) -> None:
    with pytest.raises(NotExact):
        grid().ticks(Decimal(value))


def test_an_exponent_of_a_decimal_is_only_a_way_to_write_it() -> None:
    assert grid().ticks(Decimal("1E+2")) == 10_000


def test_a_very_long_number_is_refused_and_quoted_short() -> None:
    with pytest.raises(NotExact) as refused:
        grid().ticks("1" * 100_000)
    assert len(str(refused.value)) < 200


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(NotExact, match=r"quantity -1 of BTC-USD is negative"):
        grid().lots("-1")


def test_what_does_not_fit_the_engine_is_refused() -> None:
    scale = grid(tick="1", lot="1")
    assert scale.ticks(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(NotExact, match="is more than"):
        scale.ticks(str(2**63))
    assert scale.lots(str(2**64 - 1)) == 2**64 - 1
    with pytest.raises(NotExact, match="is more than"):
        scale.lots(str(2**64))


def test_scales_count_the_maxima_in_steps() -> None:
    config = InstrumentConfig(
        symbol="SOL-USD", id=3, tick="0.001", lot="0.0001", price_max="1000", quantity_max="50"
    )
    scale = scales([config])["SOL-USD"]
    assert (scale.instrument, scale.price_ticks_max, scale.qty_lots_max) == (3, 10**6, 5 * 10**5)


def test_a_step_of_zero_is_refused() -> None:
    with pytest.raises(NotExact, match="tick '0' of X is not positive"):
        scales([InstrumentConfig(symbol="X", id=1, tick="0", lot="1")])
