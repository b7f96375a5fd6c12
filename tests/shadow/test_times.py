"""Times of the monolith's rows, in whatever form and zone, as PostgreSQL itself reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.legacy.mapping import Time
from shadow.legacy.times import is_zone, time_us, timestamp_us

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (local times)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tokyo", "UTC")
# Clocks were put forward and back on these days, each in one of the zones.
TURNS = ("2015-03-29", "2015-10-25", "2015-03-08", "2015-11-01", "2015-04-05", "2015-10-04")


def test_every_quarter_of_an_hour_is_read_as_postgresql_reads_it(database: str) -> None:
    """Those that are not there, and those that are there twice, too."""
    moments = [
        datetime.fromisoformat(day) + timedelta(minutes=15 * n) for day in TURNS for n in range(96)
    ]
    with psycopg.connect(database) as connection:
        for zone in ZONES:
            rows = connection.execute(
                "SELECT t::text, (extract(epoch FROM t AT TIME ZONE %s) * 1000000)::bigint"
                " FROM unnest(%s::timestamp[]) AS t",
                [zone, moments],
            ).fetchall()
            assert len(rows) == len(moments)
            wrong = [text for text, at_us in rows if timestamp_us(text, zone) != at_us]
            assert (zone, wrong) == (zone, [])


@given(st.datetimes(datetime(1970, 1, 1), datetime(2037, 1, 1)), st.sampled_from(ZONES))  # noqa: DTZ001
def test_a_local_time_shows_itself_in_its_zone_if_its_clock_ever_showed_it(
    moment: datetime, zone: str
) -> None:
    at_us = timestamp_us(str(moment), zone)
    utc = EPOCH.replace(tzinfo=UTC) + timedelta(microseconds=at_us)
    shown = utc.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    skipped = shown - moment in (timedelta(hours=1), timedelta(minutes=30))
    assert shown == moment or (skipped and timestamp_us(str(shown), zone) == at_us)


@given(st.integers(-(10**15), 10**16))
def test_an_epoch_is_exact_in_every_unit(at_us: int) -> None:
    assert time_us(str(at_us), Time(column="at", form="epoch_us")) == at_us
    assert time_us(str(at_us), Time(column="at", form="epoch_ms")) == at_us * 1000
    assert time_us(str(at_us), Time(column="at", form="epoch_s")) == at_us * 1_000_000


@pytest.mark.parametrize(
    ("text", "form", "at_us"),
    [
        ("1430438400.25", "epoch_s", 1_430_438_400_250_000),
        ("1430438400.2500009", "epoch_s", 1_430_438_400_250_000),
        ("-0.0000001", "epoch_s", -1),
        ("1430438400250.5", "epoch_ms", 1_430_438_400_250_500),
    ],
)
def test_a_fraction_of_an_epoch_is_cut_at_the_microsecond(text: str, form: str, at_us: int) -> None:
    time = Time(column="at", form=form)  # type: ignore[arg-type]
    assert time_us(text, time) == at_us


@pytest.mark.parametrize("text", ["", "1e9", "NaN", "Infinity", "2015-05-01", "1" * 101])
def test_what_is_no_number_is_no_epoch(text: str) -> None:
    with pytest.raises(ValueError, match="no plain number"):
        time_us(text, Time(column="at", form="epoch_s"))


def test_a_zone_that_is_not_there_is_no_zone() -> None:
    assert is_zone("Europe/Berlin")
    for name in ("Europe/Atlantis", "", "../etc/passwd", "Berlin\0"):
        assert not is_zone(name)
    with pytest.raises(ValueError, match="no time zone Europe/Atlantis"):
        timestamp_us("2015-05-01 00:00:00", "Europe/Atlantis")
