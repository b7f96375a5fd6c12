"""The adapter that a configuration names is found, made once, and refused with its reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import bridge.sandbox
from bridge import config
from bridge.adapting import adapted, placed
from bridge.errors import ConfigError
from bridge.proxy.desk.dialect import Dialect
from engine.types import Command, OrderType, Side, TimeInForce
from shadow.answer import OrderView
from shadow.legacy.adapter import PLAIN
from shadow.legacy.convert import scales
from shadow.normalise import Fields, Refusal, place_command, request_fields
from shadow.operation import Status

TEXT = (Path(bridge.sandbox.__file__).parent / "railswitch.toml").read_text()
PAGE = Path(__file__).parents[2] / "docs/reference/adapter.md"


def written(directory: Path, module: str, adapter: str = "my_adapter:Adapter") -> Path:
    file = directory / "railswitch.toml"
    file.write_text(TEXT.replace("[mapping]\n", f'[mapping]\nadapter = "{adapter}"\n', 1))
    (directory / "my_adapter.py").write_text(module)
    return file


def test_the_example_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    read = config.load(written(tmp_path, example))
    mapping, grid = read.mapping, scales(read.instruments)
    adapter = adapted(mapping.adapter)

    assert adapter.order_row({"note": "monitoring"}) is None
    assert adapter.order_row({"note": None}) == {"note": None}
    assert adapter.order_columns == ("note",)

    body = b'{"order":{"market":"BTC-USD","side":"buy","price":23647,"quantity":"2"}}'
    fields = request_fields(mapping.routes[0], {}, "", "application/json", body)
    assert isinstance(fields, Fields)
    command = place_command(adapter.fields(fields), 7, 1, grid["BTC-USD"], mapping.words)
    assert isinstance(command, Command)
    assert command.price_ticks == 23647

    view = OrderView(
        order_id=7,
        symbol="BTC-USD",
        side=Side.BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=1,
        qty_lots=2,
        leaves_lots=2,
        status=Status.OPEN,
        created_at_us=0,
        updated_at_us=0,
    )
    plain = Dialect(mapping.responses, mapping.words, grid)
    other = Dialect(mapping.responses, mapping.words, grid, adapter=adapter)
    status, text = plain.render_placed(view)
    links = b',"links":{"self":"/api/v1/orders/7"}}}'
    assert other.render_placed(view) == (status, text.removesuffix(b"}}") + links)
    refusal = Refusal(status=422, errors=(("price", "is odd"),), reasons=("invalid_price",))
    assert other.render_refusal(refusal) == plain.render_refusal(refusal)


def test_a_module_beside_the_file_is_found_from_everywhere(tmp_path: Path) -> None:
    module = "class Adapter:\n    def answer(self, action, body):\n        return [action, body]\n"
    named = config.load(written(tmp_path, module)).mapping.adapter
    assert named == f"{tmp_path / 'my_adapter.py'}:Adapter"
    assert adapted(named).answer("place", 1) == ["place", 1]


def test_a_module_that_is_installed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "an_installed_adapter.py").write_text(
        "class Adapter:\n    def fill_row(self, row):\n        return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    named = placed("an_installed_adapter:Adapter", tmp_path / "elsewhere")
    assert named == "an_installed_adapter:Adapter"
    assert adapted(named).fill_row({"id": "1"}) is None
    del sys.modules["an_installed_adapter"]


def test_without_one_there_is_none() -> None:
    assert config.parse(TEXT, source="x").mapping.adapter == ""
    assert adapted("") is PLAIN


@pytest.mark.parametrize(
    ("module", "adapter", "says"),
    [
        ("", "my_adapter:Adapter", "AttributeError: .*has no attribute 'Adapter'"),
        ("raise ValueError('oh')", "my_adapter:Adapter", "ValueError: oh"),
        ("class Adapter:\n    pass", "my_adapter:Adapter", "none of the methods order_row"),
        ("class Adapter:\n    def __init__(self, x): pass", "my_adapter:Adapter", "TypeError"),
        ("", "no_such_module_anywhere:Adapter", "ModuleNotFoundError"),
    ],
)
def test_one_that_can_not_be_made_is_refused_with_the_reason(
    tmp_path: Path, module: str, adapter: str, says: str
) -> None:
    named = config.load(written(tmp_path, module, adapter)).mapping.adapter
    with pytest.raises(ConfigError, match=f"(?s)`mapping.adapter`: .*{says}"):
        adapted(named)
