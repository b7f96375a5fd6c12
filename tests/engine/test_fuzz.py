"""Bytes that nobody meant: a short run of everything that is fuzzed.

`RAILSWITCH_FUZZ_S` seconds for each target; the hour's run is `make fuzz SECONDS=3600`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, seeds
from fuzzing import PYTHON, RUST, fuzz, unavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from market_driver import market_or_skip

SECONDS = int(os.environ.get("RAILSWITCH_FUZZ_S") or 2)


@pytest.fixture(scope="module", autouse=True)
def both_markets() -> None:
    market_or_skip("rust")


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_run_begins_with_does_no_harm(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_do_harm(target: str) -> None:
    @settings(max_examples=60)
    @given(data=st.binary(max_size=400))
    def harmless(data: bytes) -> None:
        TARGETS[target](data)

    harmless()


@pytest.mark.parametrize(
    ("language", "target"),
    [*(("rust", name) for name in RUST), *(("python", name) for name in PYTHON)],
)
def test_no_bytes_that_reach_new_code_do_harm(language: str, target: str, tmp_path: Path) -> None:
    if why := unavailable(language):
        pytest.skip(f"SKIPPED, not passed: {why}")
    fuzzed = fuzz(language, target, SECONDS, tmp_path)
    assert not fuzzed.failed, fuzzed.log.read_text(errors="replace")[-4_000:]
    assert fuzzed.runs > 0
    assert fuzzed.edges > 0


def test_every_target_has_its_share_of_a_run() -> None:
    assert set(PYTHON) == set(TARGETS)
