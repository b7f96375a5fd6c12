"""Where the command line finds the control store and Redis: flag, environment, running up, file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
from running_cli import write_config

from bridge.cli.common import Context, add_config_options, context
from bridge.config import load
from bridge.datadir import DataDirectory, Run

IN_FILE = '\n[redis]\nurl = "redis://file:1/0"\n'


def resolved(file: Path, *words: str) -> Context:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return context(parser.parse_args(["--config", str(file), *words]))


def running_up(file: Path, pid: int) -> None:
    directory = DataDirectory(load(file).data_dir)
    directory.make()
    directory.write_run(
        Run(
            pid=pid,
            config=str(file),
            database_url="postgresql://up/x",
            redis_url="redis://up:1/0",
            started_at_s=0.0,
        )
    )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAILSWITCH_DATABASE_URL", "RAILSWITCH_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return write_config(tmp_path, more=IN_FILE)


def test_the_file_is_the_last_resort(file: Path) -> None:
    assert resolved(file).config.redis.url == "redis://file:1/0"


def test_a_running_up_is_before_the_file(file: Path) -> None:
    running_up(file, os.getpid())
    found = resolved(file).config
    assert found.redis.url == "redis://up:1/0"
    assert found.control.database_url == "postgresql://up/x"


def test_an_up_that_has_died_does_not_count(file: Path) -> None:
    running_up(file, pid=2**22 + 1)  # above the highest process number
    assert resolved(file).config.redis.url == "redis://file:1/0"


def test_the_environment_is_before_both_and_a_flag_before_all(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_up(file, os.getpid())
    monkeypatch.setenv("RAILSWITCH_REDIS_URL", "redis://environment:1/0")
    assert resolved(file).config.redis.url == "redis://environment:1/0"
    assert resolved(file, "--redis-url", "redis://flag:1/0").config.redis.url == "redis://flag:1/0"
