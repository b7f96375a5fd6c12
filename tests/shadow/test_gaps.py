"""Lost captures and the operations that miss one: what excuses whom, for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shadow.captures import Gap
from shadow.gaps import Claims, Dark
from shadow.instrument import Run
from shadow.limits import GAP_CLAIM_S
from shadow.work import StreamEntry

_S = 1_000_000_000
WINDOW_NS = int(GAP_CLAIM_S * _S)
RUN = Run("BTC-USD", 1)


class Desk:
    """What the pipeline does with them: an operation without a capture is a gap, or dark."""

    def __init__(self, *, bulk: bool) -> None:
        self.claims = Claims(bulk=bulk)
        self.gaps = 0
        self.dark = 0
        self.entries: list[StreamEntry] = []

    def misses(self, account: int, now_ns: int = 0) -> bool:
        excused = self.claims.claim(account, now_ns)
        self.gaps += excused
        if not excused:
            self.dark += 1
            self.claims.dark(RUN, now_ns, account)
        return excused

    def lost(self, count: int, now_ns: int = 0) -> None:
        self.entries.append(StreamEntry(f"{len(self.entries)}-0", {}))
        self.claims.lost(Gap("w", 1, count), self.entries[-1], now_ns, self._undark)

    def unclaimed(self, now_ns: int = WINDOW_NS) -> int:
        """Counted for every instrument, once nobody has claimed them."""
        self.claims.settle(now_ns, [RUN])
        assert all(entry.open == 0 for entry in self.entries)
        return sum(count for entry in self.entries for _, count in entry.lost)

    def _undark(self, dark: Dark) -> None:
        self.dark -= 1
        self.gaps += 1


def test_without_bulk_requests_a_number_excuses_one_operation() -> None:
    desk = Desk(bulk=False)
    desk.lost(2)
    assert [desk.misses(7) for _ in range(3)] == [True, True, False]
    desk.lost(1)
    assert (desk.gaps, desk.dark, desk.unclaimed()) == (3, 0, 0)


def test_with_bulk_requests_a_number_excuses_an_account_and_no_other() -> None:
    desk = Desk(bulk=True)
    desk.lost(1)
    assert [desk.misses(account) for account in (7, 7, 8, 7)] == [True, True, False, True]


def test_a_number_that_was_taken_twice_over_goes_to_who_needs_it() -> None:
    desk = Desk(bulk=True)
    desk.lost(2)
    assert [desk.misses(account) for account in (7, 7, 7, 8, 8, 9)] == [True] * 5 + [False]


def test_an_account_is_not_excused_for_ever() -> None:
    desk = Desk(bulk=True)
    desk.lost(1)
    times = range(0, 3 * WINDOW_NS, WINDOW_NS // 5)
    assert [desk.misses(7, now_ns) for now_ns in times] == [True] * 5 + [False] * 10


def test_news_of_a_loss_reaches_back_as_far_and_no_further() -> None:
    desk = Desk(bulk=True)
    for now_ns in (0, 1, WINDOW_NS // 2):
        desk.misses(7, now_ns)
    desk.misses(8, WINDOW_NS // 2)
    desk.lost(1, WINDOW_NS)
    assert (desk.gaps, desk.dark) == (2, 2)  # the first of 7, and that of 8


def test_an_operation_whose_capture_came_after_all_takes_no_number() -> None:
    claims, undarked = Claims(bulk=True), list[Dark]()
    said = [claims.dark(RUN, 0, account) for account in (7, 7, 8)]
    said[0].is_corrected = True
    claims.lost(Gap("w", 1, 2), StreamEntry("1-0", {}), 0, undarked.append)
    assert all(one.is_corrected for one in said)
    assert len(undarked) == 2


def test_dark_operations_are_forgotten_with_their_time() -> None:
    claims = Claims(bulk=True)
    said: list[Dark] = []
    for number in range(300):
        said.append(claims.dark(RUN, number * _S, number % 7))
        said[-1].is_corrected = number % 3 == 0
        if number % 50 == 0:
            claims.lost(Gap("w", 1, 1), StreamEntry("1-0", {}), number * _S, lambda run: None)
    assert len(claims._dark) <= GAP_CLAIM_S
    assert sum(map(len, claims._dark_of.values())) <= len(claims._dark)


requests = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), max_size=6)  # account, orders


@given(requests, st.randoms(use_true_random=False), st.integers(0, 30), st.booleans())
def test_no_order_of_a_lost_request_stays_dark(
    lost: Sequence[tuple[int, int]], random: object, heard_after: int, in_parts: bool
) -> None:
    """In whatever order they come, before the news of the loss, after it, or around it."""
    orders = [account for account, count in lost for _ in range(count)]
    random.shuffle(orders)  # type: ignore[attr-defined]
    desk = Desk(bulk=True)
    for account in orders[:heard_after]:
        desk.misses(account)
    for count in [1] * len(lost) if in_parts else [len(lost)] if lost else []:
        desk.lost(count)
    for account in orders[heard_after:]:
        desk.misses(account)
    assert (desk.gaps, desk.dark) == (len(orders), 0)
    # Of news in parts, the first may excuse all: then the others count once more, to be safe.
    assert desk.unclaimed() <= (len(lost) - 1 if in_parts and lost else 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 20)),  # account or 0: a loss; seconds later
        max_size=60,
    )
)
def test_a_number_excuses_one_account_once(steps: Sequence[tuple[int, int]]) -> None:
    """However the news and the operations follow each other."""
    desk = Desk(bulk=True)
    now_ns, numbers = 0, 0
    since: dict[int, int] = {}  # account -> when its present excuse began
    excuses = Counter[int]()
    for account, seconds in steps:
        now_ns += seconds * _S
        desk.claims.settle(now_ns, [])
        if account == 0:
            numbers += 1
            desk.lost(1, now_ns)
        elif desk.misses(account, now_ns) and now_ns - since.get(account, -WINDOW_NS) >= WINDOW_NS:
            since[account] = now_ns
            excuses[account] += 1
        assert desk.dark >= 0
    assert excuses.total() <= numbers
    assert desk.gaps + desk.dark == sum(account != 0 for account, _ in steps)


@given(st.booleans(), requests, st.integers(0, 40))
def test_every_number_is_claimed_or_counted(
    bulk: bool, lost: Sequence[tuple[int, int]], numbers: int
) -> None:
    desk = Desk(bulk=bulk)
    if numbers:
        desk.lost(numbers)
    orders = [account for account, count in lost for _ in range(count)]
    for account in orders:
        desk.misses(account)
    assert desk.unclaimed() == max(0, numbers - len(orders))
