"""Times of the monolith's rows. Pure.

A timestamp without time zone is in the zone that the mapping names. Where clocks are put back, an
hour is there twice: such a time is taken as the second of the two. Where they are put forward, an
hour is not there: such a time is taken as the clock before would have shown it. PostgreSQL's own
`AT TIME ZONE` does the same.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from shadow.legacy.mapping import Time
from shadow.limits import NUMERIC_CHARS_MAX

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UTC = datetime(1970, 1, 1)  # noqa: DTZ001 - of times that are known to be in UTC
_MICROSECOND = timedelta(microseconds=1)
_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_PLACES = {"epoch_s": 6, "epoch_ms": 3, "epoch_us": 0}  # digits from the unit to microseconds


def time_us(text: str, time: Time) -> int:
    """Microseconds since 1970, of PostgreSQL's text of a value of this column. Raises ValueError.

    >>> from shadow.legacy.mapping import Time
    >>> time_us("1430438400250", Time(column="created_at", form="epoch_ms"))
    1430438400250000
    """
    if time.form == "timestamp":
        return timestamp_us(text, time.zone)
    return _epoch_us(text, _PLACES[time.form])


def timestamp_us(text: str, zone: str = "UTC") -> int:
    """Microseconds since 1970 of PostgreSQL's ISO output; `zone` is of one that names none.

    Raises ValueError for infinity, for years before Christ, for another DateStyle, and for a zone
    that is not there.

    >>> timestamp_us("2015-05-01 00:00:00.25"), timestamp_us("2015-05-01 02:00:00+02")
    (1430438400250000, 1430438400000000)
    >>> timestamp_us("2015-05-01 02:00:00", "Europe/Berlin")
    1430438400000000
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None and zone == "UTC":  # nearly every row's: division takes the longest
        since = moment - _EPOCH_UTC
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if moment.tzinfo is None:
        moment = _in_zone(moment, zone)
    return (moment - _EPOCH) // _MICROSECOND


def is_zone(name: str) -> bool:
    """Of the tz database that this machine has."""
    try:
        _zone(name)
    except ValueError:
        return False
    return True


def _in_zone(moment: datetime, zone: str) -> datetime:
    first = moment.replace(tzinfo=_zone(zone))
    second = first.replace(fold=1)
    return max(first.astimezone(UTC), second.astimezone(UTC))


@lru_cache(maxsize=64)  # a handful in a mapping
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"no time zone {name}") from error


def _epoch_us(text: str, places: int) -> int:
    """What is finer than a microsecond is cut: towards the past, also before 1970."""
    found = _NUMBER.fullmatch(text) if len(text) <= NUMERIC_CHARS_MAX else None
    if found is None:
        raise ValueError(f"{text[:NUMERIC_CHARS_MAX]!r} is no plain number")
    sign, whole, fraction = found.groups(default="")
    digits = int(sign + whole + fraction)
    too_fine = len(fraction) - places
    if too_fine > 0:
        return digits // int(10**too_fine)
    return digits * int(10**-too_fine)
