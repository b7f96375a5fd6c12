"""In what order did the daemon handle what waits? Commit order, but for what the fills refute: then
the fewest moves of neighbours that explain them, found by trying those that the fills point at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from shadow.later_book import LaterBook, Walk
from shadow.later_track import Fate, Step, Track, Trial, done, tried
from shadow.limits import REORDER_MOVES_MAX, REORDER_TRIES_MAX, UNDECIDED_S

_RETRY_US = 500_000  # at first; then twice as long each time
_UNDECIDED_US = int(UNDECIDED_S * 1_000_000)


class Handled(NamedTuple):
    """The book has been left as after all of the steps that have a walk."""

    walks: list[Walk | None]
    undecided: int  # index of the first step that may still turn out otherwise


class _Found(NamedTuple):
    steps: list[Step]
    start: int  # the first that is another one than before
    moved: list[Step]


class Search:
    def __init__(self, tracks: dict[int, Track], book: LaterBook) -> None:
        self._tracks = tracks
        self._book = book
        self._tries = 0

    def handled(self, steps: list[Step], now_us: int, overdue: int) -> Handled:
        """Puts `steps` in order. The first `overdue` of them, and those that have waited too long,
        are handled as they are, whatever the fills say.
        """
        walks: list[Walk | None] = []
        marks: list[int] = []
        undecided = -1
        while len(walks) < len(steps):
            index = len(walks)
            step = steps[index]
            trial = tried(step, self._tracks, self._book)
            is_late = index < overdue or now_us - step.since_us >= _UNDECIDED_US
            if trial.fate is Fate.REFUTED:
                found = self._repaired(steps, marks, now_us, must=is_late)
                if found is not None:
                    steps[:] = found.steps
                    del walks[found.start :], marks[found.start :]
                    undecided = -1 if undecided >= found.start else undecided
                    continue
                if not is_late:
                    break
            if trial.fate is Fate.OPEN and not is_late and undecided < 0:
                undecided = index
            marks.append(self._book.mark())
            walks.append(trial.walk)
            done(step, trial.walk, self._tracks, self._book)
        return Handled(walks, len(walks) if undecided < 0 else undecided)

    def _repaired(
        self, steps: list[Step], marks: list[int], now_us: int, *, must: bool
    ) -> _Found | None:
        """With the book before the first step that differs; as it was when nothing is found."""
        refuted = steps[len(marks)]
        if now_us < refuted.retry_at_us and not must:
            return None
        self._tries = 0
        here = self._book.mark()
        for moves in range(1, REORDER_MOVES_MAX + 1):
            found = self._search(steps, marks, moves, ())
            if found is not None:
                for step in found.moved:
                    step.is_moved = True
                start = found.start
                self._book.rewind(marks[start] if start < len(marks) else here)
                return found
        refuted.retry_us = 2 * refuted.retry_us or _RETRY_US
        refuted.retry_at_us = now_us + refuted.retry_us
        return None

    def _search(
        self, steps: list[Step], marks: list[int], moves: int, moved: tuple[Step, ...]
    ) -> _Found | None:
        """The step behind the marks is refuted; the book stands before it. Tries to move one that
        would change that, and to go on behind it.
        """
        index = len(marks)
        here = self._book.mark()
        for source, target in list(self._moves(steps, index)):
            step = steps[source]
            if step in moved or not _may_move(steps, source, target):
                continue
            if self._tries > REORDER_TRIES_MAX:
                return None
            first = min(source, target)
            start = marks[first] if first < index else here
            self._book.rewind(start)
            order = [*steps[:source], *steps[source + 1 :]]
            order.insert(target, step)
            trying = marks[:first]
            until = index + 1 if source > index else index
            if self._goes(order, trying, until):
                return _Found(order, first, [*moved, step])
            if moves > 1 and len(trying) > first:
                found = self._search(order, trying, moves - 1, (*moved, step))
                if found is not None:
                    return found._replace(start=min(found.start, first))
            self._book.rewind(start)
            for again in steps[first:index]:
                self._do(again)
        return None

    def _goes(self, steps: list[Step], marks: list[int], until: int) -> bool:
        """Handles those behind the marks, up to one that is refuted."""
        while len(marks) <= until:
            self._tries += 1
            step = steps[len(marks)]
            trial = tried(step, self._tracks, self._book)
            if trial.fate is Fate.REFUTED:
                return False
            marks.append(self._book.mark())
            done(step, trial.walk, self._tracks, self._book)
        return True

    def _do(self, step: Step) -> Trial:
        trial = tried(step, self._tracks, self._book)
        done(step, trial.walk, self._tracks, self._book)
        return trial

    def _moves(self, steps: list[Step], index: int) -> Iterator[tuple[int, int]]:
        """(from, to) of steps that the refuted one's fills point at, nearest first."""
        place = {one.order_id: n for n, one in enumerate(steps) if one.cancel is None}
        before: set[int] = set()
        behind: set[int] = set()
        for order_id in self._pointed_at(steps[index]):
            at = place.get(order_id, index)
            if at < index:
                before.add(at)
            elif at > index:
                behind.add(at)
        moves = [(index, at) for at in before] + [(at, index) for at in behind]
        moves += [(at, index) for at in before]  # behind the refuted one
        yield from sorted(moves, key=lambda move: (abs(move[0] - move[1]), move))

    def _pointed_at(self, step: Step) -> Iterator[int]:
        """Orders on whose place it depends whether the step is refuted."""
        if step.cancel is not None:
            yield step.order_id
            yield from self._tracks[step.order_id].met
            return
        track = self._tracks[step.order_id]
        walk = tried(step, self._tracks, self._book).walk
        assert walk is not None
        for take in walk.takes:
            met = track.met.get(take.maker)
            if met is None or met.fill.qty_lots != take.qty_lots:
                yield take.maker
                yield from self._tracks[take.maker].met
        if walk.stopped_at:
            yield walk.stopped_at
            yield from self._tracks[walk.stopped_at].met
        taken = {take.maker for take in walk.takes}
        for other in track.met:
            if other not in taken:
                yield other
                known = self._tracks.get(other)
                yield from known.met if known is not None else ()


def _may_move(steps: list[Step], source: int, target: int) -> bool:
    if source > target:
        return all(steps[source].may_pass(other) for other in steps[target:source])
    return all(other.may_pass(steps[source]) for other in steps[source + 1 : target + 1])
