"""The wire's records of orders and market data, and what is packed into a command's `aux`."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from engine.limits import U32_MAX
from engine.types import OrderState
from engine.wire import (
    DEPTH_DTYPE,
    DISPLAYED_ORDER_DTYPE,
    decode_order_states,
    encode_depth,
    encode_displayed_order,
    encode_order_state,
    pack_new_aux,
    unpack_new_aux,
)

U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1

WIDEST = OrderState(
    order_id=U64_MAX,
    account=U64_MAX - 1,
    price_ticks=I64_MAX,
    leaves_lots=U64_MAX - 2,
    qty_lots=U64_MAX - 3,
    displayed_lots=U64_MAX - 4,
    stop_price_ticks=I64_MAX - 1,
    expiry_s=U32_MAX,
    display_lots=U32_MAX - 1,
    session=2**16 - 1,
    side=255,
    ord_type=254,
    tif=253,
    flags=252,
    stp=251,
)


def test_an_order_state_is_read_as_it_was_written() -> None:
    data = encode_order_state(WIDEST)
    assert len(data) == 72
    assert list(decode_order_states(memoryview(data * 2))) == [WIDEST, WIDEST]
    assert data[-1] == 0
    with pytest.raises(struct.error):
        list(decode_order_states(data[:-1]))


def test_market_data_records_are_what_their_types_say() -> None:
    [depth] = np.frombuffer(encode_depth(2, I64_MAX, U64_MAX, U32_MAX), DEPTH_DTYPE).tolist()
    assert depth == (2, I64_MAX, U64_MAX, U32_MAX)
    data = encode_displayed_order(U64_MAX, I64_MAX, U64_MAX - 1, 1)
    [order] = np.frombuffer(data, DISPLAYED_ORDER_DTYPE).tolist()
    assert order == (U64_MAX, I64_MAX, U64_MAX - 1, 1)


@pytest.mark.parametrize(("part_lots", "expiry_s"), [(0, 0), (5, 0), (0, 7), (U32_MAX, U32_MAX)])
def test_aux_holds_a_part_and_a_second(part_lots: int, expiry_s: int) -> None:
    aux = pack_new_aux(part_lots=part_lots, expiry_s=expiry_s)
    assert 0 <= aux <= U64_MAX
    assert unpack_new_aux(aux) == (part_lots, expiry_s)


@pytest.mark.parametrize("number", [-1, U32_MAX + 1])
def test_aux_holds_nothing_else(number: int) -> None:
    with pytest.raises(ValueError, match=f"{number} does not fit"):
        pack_new_aux(part_lots=number)
    with pytest.raises(ValueError, match=f"{number} does not fit"):
        pack_new_aux(expiry_s=number)
