"""Who is booked as maker of a fill. Pure.

Most monoliths book the order that rested. Some book the one with the lower id, whoever rested: in
them the two sides of a fill say nothing of who came first.
"""

from __future__ import annotations

from typing import Literal

MakerRule = Literal["resting", "lower_id"]


def booked(maker: int, taker: int, rule: MakerRule) -> tuple[int, int]:
    """(maker, taker) as the monolith books a fill of a resting and an incoming order.

    >>> booked(9, 7, "resting"), booked(9, 7, "lower_id"), booked(7, 9, "lower_id")
    ((9, 7), (7, 9), (7, 9))
    """
    if rule == "lower_id" and taker < maker:
        return taker, maker
    return maker, taker
