"""The mirror of the engine's open orders is the engine's book, whatever was applied twice."""

from __future__ import annotations

from itertools import islice

from harness import BTC, SCALES, Client, Shard
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_config import CONFIG

from bridge.bench.synthetic import Monolith, random_flow
from engine.wire import decode_resting_orders
from shadow.feed import command_of, reference
from shadow.mirror import Mirror, Open
from shadow.operation import Cancel, Place
from shadow.ordering import operations


@given(seed=st.integers(0, 2**32), since=st.integers(0, 120))
@settings(max_examples=15, deadline=None)
def test_it_follows_the_book_from_any_moment_on(seed: int, since: int) -> None:
    shard = Shard()
    feed = Client(shard, "shadow-feed")
    monolith = Monolith(SCALES, CONFIG.mapping)
    mirror, answers = Mirror(), []
    for n, done in enumerate(islice(random_flow(monolith, [BTC], seed), 120)):
        if n == since:  # as after a restart: the book of now, and then what led to it once more
            book = decode_resting_orders(shard.market.orders(1))
            mirror = Mirror(book, seq=shard.market.last_seq)
            for seq, events in answers:
                assert mirror.is_ahead_of(seq - 1)
                mirror.apply(seq, events)
        (operation,) = operations(done.tx)
        assert isinstance(operation, Place | Cancel)
        answer = feed._send(command_of(operation, 1, reference(done.tx.commit_lsn, 0)))
        answers.append((answer.seq, answer.events))
        mirror.apply(answer.seq, answer.events)
    book = list(decode_resting_orders(shard.market.orders(1)))
    assert len(mirror) == len(book)
    for order in book:
        assert mirror.get(order.order_id) == Open(
            order.account, order.price_ticks, order.leaves_lots
        )
