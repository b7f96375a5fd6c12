"""How much money orders lock, and the statements that move it: as values."""

from __future__ import annotations

from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_side import CONFIG

from engine.types import Side
from shadow.legacy import funds
from shadow.legacy.convert import scales
from shadow.legacy.mapping import Accounts, Currencies

BTC = scales(CONFIG.instruments)["BTC-USD"]
ALL = {one.symbol: Currencies(base="btc", quote="usd") for one in CONFIG.instruments}
ACCOUNTS = Accounts(
    table="accounts",
    currencies=ALL,
    lock="SELECT 1 FROM a WHERE m = ANY (:accounts) FOR UPDATE",
    reserve="UPDATE a SET l = l + :amount WHERE c = :currency",
    settle="UPDATE a SET l = l - :amount",
    release="UPDATE a SET l = l - :amount;",
)
LEGACY = msgspec.structs.replace(CONFIG.mapping, funds="legacy", accounts=ACCOUNTS)


def problems(**changes: object) -> list[str]:
    accounts = msgspec.structs.replace(ACCOUNTS, **changes)
    mapping = msgspec.structs.replace(LEGACY, accounts=accounts)
    return list(funds.problems(mapping, CONFIG.instruments))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("UPDATE a SET b = :paid", "UPDATE a SET b = %(paid)s::numeric"),
        ("UPDATE a SET b = :side::int", "UPDATE a SET b = %(side)s::text::int"),
        ("SELECT x[1:paid], ':paid', \":paid\"", "SELECT x[1:paid], ':paid', \":paid\""),
        ("SELECT $q$ :paid; $q$ -- ; :paid", "SELECT $q$ :paid; $q$ -- ; :paid"),
        (r"SELECT E'\':paid;', 'a''; :paid'", r"SELECT E'\':paid;', 'a''; :paid'"),
        ("SELECT /* ; :zz */ 5 % :paid", "SELECT /* ; :zz */ 5 %% %(paid)s::numeric"),
    ],
)
def test_values_are_put_in_where_they_stand_and_nowhere_else(text: str, query: str) -> None:
    assert funds.statement("settle", text).query == query


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("UPDATE a SET b = 1; DROP TABLE a", "one statement"),
        ("COMMIT", "must begin with"),
        ("UPDATE a SET b = :amout", "has no value :amout"),
        ("UPDATE a SET b = 'x", "that nothing closes"),
        ("SELECT " + "x" * 10_000, "longer than"),
    ],
)
def test_a_statement_that_can_not_be_one_is_named(text: str, what: str) -> None:
    (problem,) = problems(release=text)
    assert problem.startswith("`mapping.accounts.release`")
    assert what in problem


def test_what_is_missing_is_named() -> None:
    assert problems() == []
    assert "mapping.accounts.reserve" in problems(reserve="")[0]
    assert "mapping.accounts.table" in problems(table="")[0]
    (lacking,) = problems(currencies={"BTC-USD": ALL["BTC-USD"]})
    assert "lacks ETH-USD, SOL-USD, and the statements use :currency" in lacking
    (unread,) = funds.problems(msgspec.structs.replace(LEGACY, funds="none"), CONFIG.instruments)
    assert 'only read with `mapping.funds` = "legacy"' in unread


@given(
    side=st.sampled_from((Side.BUY, Side.SELL)),
    limit_ticks=st.integers(1, BTC.price_ticks_max),
    parts=st.lists(st.integers(1, 10**15), min_size=1, max_size=8),
    data=st.data(),
)
def test_what_fills_and_a_cancel_take_off_the_lock_is_what_was_put_on_it(
    side: Side, limit_ticks: int, parts: list[int], data: st.DataObject
) -> None:
    *filled, canceled = parts
    locked = funds.amount_of(BTC, side, limit_ticks, sum(parts))
    assert locked is not None
    left = locked
    with localcontext(prec=100):
        for lots in filled:
            price_ticks = data.draw(st.integers(1, limit_ticks))
            fill = funds.Fill(
                order_id=1,
                account=7,
                side=side,
                is_maker=False,
                limit_ticks=limit_ticks,
                price_ticks=price_ticks,
                qty_lots=lots,
                leaves_lots=0,
                symbol="BTC-USD",
            )
            values = funds.settle_values(fill, 1, BTC, ACCOUNTS)
            assert values["paid"] + values["refund"] == values["amount"]
            assert values["refund"] >= 0
            wanted = Decimal(price_ticks) * BTC.tick * lots * BTC.lot
            assert values["paid" if side is Side.BUY else "received"] == wanted
            left -= values["amount"]
        assert left == funds.amount_of(BTC, side, limit_ticks, canceled)


def test_a_market_order_to_buy_locks_no_amount_that_could_be_known() -> None:
    assert funds.amount_of(BTC, Side.BUY, None, 5) is None
    assert funds.amount_of(BTC, Side.SELL, None, 5) == 5 * BTC.lot
