"""What the tests of the comparison share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "legacies"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, shorter."""
    for name, seconds in {
        "marks.MARK_S": 0.1,
        "books.BOOK_CHECK_S": 0.3,
        "books.RESYNC_AFTER_S": 0.3,
        "books.RESYNC_S": 0.3,
        "settle.CAPTURE_GRACE_S": 0.3,
        "settle.CAPTURES_STUCK_S": 1.0,
        "pipeline.STAGES_S": 0.05,
        "pipeline.ANSWERED_UNWRITTEN_S": 0.3,
        "pipeline.CLOCKS_APART_S": 0.0,
        "gaps.GAP_CLAIM_S": 1.0,
        "recorder.FLUSH_S": 0.05,
        "recorder.HEARTBEAT_S": 0.2,
        "recorder.STORE_RETRY_S": 0.05,
        "feed.FEED_RETRY_S": 0.05,
        "intake.RECONNECT_BACKOFF_S_MAX": 0.1,
        "pipeline.UNANSWERED_S": 0.1,
    }.items():
        monkeypatch.setattr(f"shadow.{name}", seconds)
