"""The page with the figures: what is measured is written, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.bench.page import BEGIN, END, rewritten
from bridge.errors import ConfigError

ORDER = ["core", "other", "pipeline"]
PAGE = f"# Title\n\nWords | before.\n\n{BEGIN}\n{END}\n\nWords after.\n"


def result(figure: Any) -> dict[str, Any]:
    told = {"cores": 2, "load_average_before": [0.1, 0.2, 0.3]}
    return {"name": "a part", "conditions": told, "figure": figure}


def around(page: str) -> tuple[str, str]:
    return page.partition(BEGIN)[0], page.partition(END)[2]


def test_figures_stand_between_the_marks_and_the_rest_is_as_it_was() -> None:
    page = rewritten(PAGE, {"other": result(12_345)}, ORDER)
    assert around(page) == around(PAGE)
    between = page.partition(BEGIN)[2].partition(END)[0]
    assert "### other" in between
    assert "| figure | 12,345 |" in between
    assert "| cores | 2 |" in between


def test_a_part_measured_again_replaces_its_own_figures_only() -> None:
    page = rewritten(PAGE, {"pipeline": result(111), "other": result(222)}, ORDER)
    page = rewritten(page, {"other": result(333)}, ORDER)
    assert "| figure | 111 |" in page
    assert "| figure | 222 |" not in page
    assert page.index("### other") < page.index("| figure | 333 |") < page.index("### pipeline")
    assert around(page) == around(PAGE)


def test_writing_the_same_twice_changes_nothing() -> None:
    once = rewritten(PAGE, {"other": result(5), "pipeline": result(6)}, ORDER)
    assert rewritten(once, {"other": result(5)}, ORDER) == once
    assert rewritten(once, {}, ORDER) == once


def test_a_bar_in_a_figure_does_not_break_the_table() -> None:
    assert "| figure | a \\| b |" in rewritten(PAGE, {"other": result("a | b")}, ORDER)


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}\n{BEGIN}"])
def test_a_page_without_both_marks_is_refused(page: str) -> None:
    with pytest.raises(ConfigError, match="no place for the figures"):
        rewritten(page, {}, ORDER)
