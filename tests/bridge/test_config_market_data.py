"""`[market_data]` in the configuration, and what it makes of the engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bridge import app
from bridge.config import Config, ConfigError, MarketDataConfig, RedisConfig, parse
from engine.service import FeedSettings

EXAMPLE = (Path(__file__).parents[2] / "bridge" / "sandbox" / "railswitch.toml").read_text()


def config(tmp_path: Path, *, redis_url: str = "redis://127.0.0.1:1", **chosen: object) -> Config:
    return msgspec.structs.replace(
        parse(EXAMPLE, source="railswitch.toml"),
        data_dir=str(tmp_path),
        redis=RedisConfig(url=redis_url),
        market_data=MarketDataConfig(**chosen),  # type: ignore[arg-type]
    )


def test_an_engine_that_has_a_redis_publishes(tmp_path: Path) -> None:
    chosen = {"interval_ms": 20, "levels": 5, "orders": 3, "stream_length": 77}
    found = app.engine_settings(config(tmp_path, **chosen)).market_data
    assert found == FeedSettings(
        url="redis://127.0.0.1:1", interval_ms=20, levels=5, orders=3, stream_length=77
    )


def test_the_defaults_are_those_of_the_engine(tmp_path: Path) -> None:
    found = app.engine_settings(config(tmp_path)).market_data
    assert found == FeedSettings(url="redis://127.0.0.1:1")


def test_an_engine_needs_no_redis_and_may_be_told_not_to_publish(tmp_path: Path) -> None:
    assert app.engine_settings(config(tmp_path, redis_url="")).market_data is None
    assert app.engine_settings(config(tmp_path, enabled=False)).market_data is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("interval_ms = 0", "`market_data.interval_ms`: from 1 to 60000, not 0"),
        ("interval_ms = 60001", "`market_data.interval_ms`"),
        ("levels = 0", "`market_data.levels`: from 1 to 1000"),
        ("orders = -1", "`market_data.orders`: from 0 to 1000"),
        ("orders = 1001", "`market_data.orders`"),
        ("stream_length = 0", "`market_data.stream_length`"),
        ("depth = 5", "unknown key `market_data.depth`"),
        ('enabled = "yes"', "`market_data.enabled`"),
    ],
)
def test_what_cannot_be_used_is_named(line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        parse(f"{EXAMPLE}\n[market_data]\n{line}\n", source="railswitch.toml")
