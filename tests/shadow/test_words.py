"""Words are never guessed."""

from __future__ import annotations

from shadow.legacy.mapping import Enumerated
from shadow.legacy.words import word_of


def test_an_empty_value_names_no_other_values() -> None:
    one = Enumerated(column="tif", map={"": "gtc", "ioc": "ioc"})
    assert word_of("", one) == "gtc"
    assert word_of("fok", one) == ""
