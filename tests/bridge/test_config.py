"""The configuration file: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import config, config_rules
from bridge.errors import ConfigError

SANDBOX = Path("bridge/sandbox/railswitch.toml")
TEXT = (Path(__file__).parents[2] / SANDBOX).read_text()


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, source="railswitch.toml")
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def known_rule(*, kind: str = "price", expires: str = "2030-01-01", symbol: str = "BTC-USD") -> str:
    return f"""[[known]]
id = "r1"
owner = "desk"
reason = "old rounding"
symbols = ["{symbol}"]
kinds = ["{kind}"]
expires = "{expires}"
hits_max = 1"""


def test_sandbox_file_is_valid_and_fills_in_the_defaults() -> None:
    parsed = config.parse(TEXT, source="x")
    assert [one.symbol for one in parsed.instruments] == ["BTC-USD", "ETH-USD", "SOL-USD"]
    assert parsed.mapping.orders.priority == ("created_at", "id")
    assert parsed.gate == config.GateConfig()
    assert parsed.control.database_url == ""


def test_unknown_key_is_named_with_its_path_the_file_and_the_nearest_valid_key() -> None:
    said = refusal(changed("upstream =", "upsteam ="))
    assert said == (
        "railswitch.toml:7: unknown key `legacy.upsteam`: the nearest valid key there is `upstream`"
    )


def test_every_unknown_key_is_named_at_once_with_its_place_in_a_list() -> None:
    text = changed('symbol = "ETH-USD"', 'symbol = "ETH-USD"\nticks = "1"') + "\n[gates]\nx = 1\n"
    first, second = refusal(text).splitlines()
    assert "unknown key `instruments[1].ticks`: the nearest valid key there is `tick`" in first
    assert "unknown key `gates`: the nearest valid key there is `gate`" in second


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('symbol = "ETH-USD"\n', "", "`instruments[1]`: the key is missing: `symbol`"),
        ('tick = "0.001"', "tick = 0.001", "`instruments[2].tick`: Expected `str`, got `float`"),
        ('"cancel"\nm', '"cancl"\nm', "`mapping.routes[1].action`: Invalid enum value 'cancl'"),
        ("[legacy]", "[legacy", "is not valid TOML"),
        # one of the mapping's own rules: all of them are in tests/shadow/test_check_mapping.py
        ("id = 2\n", "id = 1\n", "id 1 is given 2 times"),
        ("postgresql://railswitch", "mysql://railswitch", "must begin with postgresql://"),
        ('"http://127', '"https://127', "`legacy.upstream`: 'https://127.0.0.1:3000' is neither"),
    ],
)
def test_what_can_not_be_used_is_refused_by_its_key(old: str, new: str, says: str) -> None:
    assert says in refusal(changed(old, new))


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("[legacy]", "[legacy", "[legacy"),
        ('tick = "0.001"', "tick = 0.001", "tick = 0.001"),
        ('symbol = "ETH-USD"\n', "", "[[instruments]]\nid = 2"),
        ('map = { "0" = "gtc"', 'map = { "0" = "day"', "tif = {"),
        (
            'path = "/api/v1/orders/batch"',
            'path = "orders"',
            '[[mapping.routes]]\naction = "cancel"',
        ),
        ('root = "order"', 'zone = "Paris"', 'zone = "Paris"'),
        ('state = "status"', 'state = "stat"', 'state = "stat"'),
        ('id = "id"\nmarket', 'id = "id:txt"\nmarket', 'id = "id:txt"'),
        (
            "[mapping.responses.fill]",
            "[mapping.errors.late]\nstatus = 1\nbody = '{'\n[mapping.responses.fill]",
            "[mapping.errors.late]",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, at: str) -> None:
    text = changed(old, new)
    line = text[: text.index(at)].count("\n") + 1
    assert refusal(text).startswith(f"railswitch.toml:{line}: ")


def test_an_unknown_key_of_a_table_that_has_any_name_is_named_with_its_line() -> None:
    said = refusal(f'{TEXT}\n[mapping.errors.not_open]\nstatsu = 409\nbody = ""\n')
    line = TEXT.count("\n") + 3
    assert said == (
        f"railswitch.toml:{line}: unknown key `mapping.errors.not_open.statsu`: the nearest valid "
        "key there is `status`"
    )


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('[proxy]\nlisten = "8300"', "`proxy.listen`: '8300' is not host:port"),
        ("[proxy]\nworkers = 0", "`proxy.workers`: at least 1"),
        ('[engine]\nimplementation = "go"', 'is not "python" or "rust"'),
        ('[engine]\norders = "some"', '`engine.orders`: "some" is not "plain" or "all"'),
        ('[[engine.keys]]\nrole = "root"\nkey = "0123456789abcdef"', '"root" is not one of trade'),
        ("[gate]\ncoverage_min = 1.5", "`gate.coverage_min`"),
        ("[gate]\noperations_min = 0", "no data never passes"),
        (known_rule(kind="colour"), 'kind "colour" is not one of'),
        (known_rule(expires="soon"), 'expires = "soon" is not a date'),
        (known_rule(symbol="LTC-USD"), 'symbol "LTC-USD" is no configured instrument'),
        (
            '[engine]\nlisten = "unix:engine.sock"',
            "`engine.listen`: 'unix:engine.sock' needs an abs",
        ),
        ('[engine]\nlisten = "unix:/' + "x" * 107 + '"', "107 bytes at most"),
        ('[proxy]\nlisten = "unix:/run/proxy.sock"', "`proxy.listen`: "),
        (
            '[engine]\nlisten = "unix:/run/e.sock"\n[engine.tls]\nenabled = true',
            "a Unix socket has no TLS",
        ),
        ('[engine.tls]\ncertificate = "e.pem"', "`engine.tls.certificate` and `engine.tls.key`"),
        ('[engine.tls]\nclient_key = "c.key"', "`engine.tls.client_certificate` and"),
    ],
)
def test_sections_that_break_a_rule_are_refused(section: str, says: str) -> None:
    assert says in refusal(f"{TEXT}\n{section}\n")


def test_data_dir_is_taken_from_the_directory_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(TEXT)
    assert config.load(file).data_dir == str(tmp_path / "railswitch-data")


def test_certificates_are_taken_from_the_directory_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "railswitch.toml"
    tls = (
        '[engine.tls]\nenabled = true\nserver_name = "e"\nca = "ca.pem"\nclient_ca = "/abs/ca.pem"'
    )
    file.write_text(f"{TEXT}\n{tls}\n")
    read = config.load(file).engine.tls
    assert (read.ca, read.client_ca) == (str(tmp_path / "ca.pem"), "/abs/ca.pem")
    assert (read.enabled, read.server_name, read.certificate) == (True, "e", "")


def test_file_is_found_by_flag_then_environment_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.toml", "b.toml", "railswitch.toml"):
        (tmp_path / name).write_text(TEXT)
    environ = {"RAILSWITCH_CONFIG": "b.toml"}
    assert config.find("a.toml", environ).name == "a.toml"
    assert config.find(None, environ).name == "b.toml"
    assert config.find(None, {}).name == "railswitch.toml"


def test_missing_file_says_why_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)RAILSWITCH_CONFIG.*--config FILE"):
        config.find(None, {"RAILSWITCH_CONFIG": str(tmp_path / "none.toml")})


def test_keys_lists_nested_and_repeated_keys() -> None:
    listed = list(config.keys())
    assert {"data_dir", "instruments[].tick", "mapping.orders.side.map", "gate.fills_min"} <= set(
        listed
    )
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('implementation = "go"', '`proxy.implementation`: "go" is not'),
        ('tls = { certificate = "a.pem" }', "`proxy.tls.certificate` and `proxy.tls.key`"),
        ('capture = { mode = "later" }', '`proxy.capture.mode`: "later" is not'),
        ("capture = { ahead_budget_ms = 0.0 }", "`proxy.capture.ahead_budget_ms`"),
        ("capture = { ahead_budget_ms = 5000.0 }", "`proxy.capture.ahead_budget_ms`"),
        ("capture = { spool_mb = -1 }", "`proxy.capture.spool_mb`"),
        ('capture = { mode = "ahead", spool_mb = 0 }', "`proxy.capture.spool_mb`"),
        ('capture = { redact = [""] }', "`proxy.capture.redact`"),
        ("capture = { sample = 0.1 }", "unknown key `proxy.capture.sample`"),
    ],
)
def test_what_a_proxy_can_not_do_is_refused_by_its_key(more: str, says: str) -> None:
    assert says in refusal(f"{TEXT}\n[proxy]\n{more}\n")


@pytest.mark.parametrize(
    ("upstream", "says"),
    [
        ("[]", "from 1 to 64 addresses"),
        ('"http://a:1/path"', "is neither http://host:port nor"),
        ('["http://a:1", "b:2"]', "'b:2' is neither"),
        ('"unix:relative"', "needs an absolute path"),
    ],
)
def test_an_upstream_that_is_none_is_refused(upstream: str, says: str) -> None:
    assert says in refusal(changed('"http://127.0.0.1:3000"', upstream))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('changes = "ask"', '"ask" is none of stream, poll'),
        ("poll_ms = 0", "`legacy.poll_ms`: from 1 to"),
        ("wal = { retained_mb_warn = -1 }", "no bound may be negative"),
        ("wal = { retained_mb_max = 100 }", "retained_mb_warn = 1024 is more than"),
    ],
)
def test_a_way_of_reading_changes_that_is_none_is_refused(lines: str, says: str) -> None:
    assert says in refusal(TEXT.replace("[legacy]", f"[legacy]\n{lines}", 1))


def test_several_upstreams_and_their_health() -> None:
    health = '[legacy.health]\npath = "/up"\n\n[[instruments]]'
    text = changed('"http://127.0.0.1:3000"', '["http://[::1]:3000", "unix:/run/puma.sock"]')
    legacy = config.parse(text.replace("[[instruments]]", health, 1), source="x").legacy
    assert [config_rules.upstream_address(one) for one in legacy.upstreams] == [
        ("::1", 3000),
        ("/run/puma.sock", 0),
    ]
    assert legacy.health.path == "/up"
    assert "`legacy.health.path`" in refusal(
        text.replace("[[instruments]]", health.replace("/up", "up"), 1)
    )


def test_the_files_of_the_proxy_s_tls_are_beside_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "railswitch.toml"
    file.write_text(f'{TEXT}\n[proxy.tls]\ncertificate = "a.pem"\nkey = "/b.pem"\n')
    tls = config.load(file).proxy.tls
    assert (tls.certificate, tls.key) == (str(tmp_path / "a.pem"), "/b.pem")
