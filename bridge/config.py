"""`railswitch.toml`: its shape, its defaults, and the only code that reads it.

`docs/reference/config.md` explains each key; a test holds the two together.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections import abc
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from bridge import adapting, config_rules
from bridge.config_lines import Lines
from bridge.errors import ConfigError
from bridge.undecided import open_decisions
from shadow.legacy.mapping import InstrumentConfig, Mapping
from shadow.legacy.shorthand import expanded

DEFAULT_FILE = "railswitch.toml"
FILE_VARIABLE = "RAILSWITCH_CONFIG"
_TOML_LINE = re.compile(r"\(at line (\d+), ")


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How each upstream is asked whether it can answer, from every worker."""

    path: str = ""  # GET of it must be answered below 500; "": only connecting counts
    interval_ms: int = 2000
    timeout_ms: int = 1000
    fall: int = 3  # so many failures in a row: no new requests
    rise: int = 2  # so many good answers in a row: requests again


class WalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the monolith's server keeps for the shadow until it is read: its log, or our table."""

    retained_mb_warn: int = 1024  # more than this: status and log say it; 0: never
    retained_mb_max: int = 0  # more than this: the shadow gives its slot up; 0: never


class LegacyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    database_url: (
        str  # role `railswitch`: reads, replicates, and is the writer that the fence recognises
    )
    install_url: str = (
        ""  # a role that owns the legacy tables; only `railswitch legacy install|uninstall` uses it
    )
    upstream: str | tuple[str, ...]  # http://host:port or unix:/path of the monolith; or several
    health: HealthConfig = HealthConfig()
    slot: str = "railswitch"
    publication: str = "railswitch"
    changes: str = "stream"  # from the replication slot; "poll": from a table that triggers fill
    poll_ms: int = 50  # of "poll": from one question to the next
    wal: WalConfig = WalConfig()

    @property
    def upstreams(self) -> tuple[str, ...]:
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    database_url: str = ""  # "": `railswitch up` starts its own
    listen: str = "127.0.0.1:8310"


class RedisConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str = ""  # "": `railswitch up` starts its own


class EngineKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: str  # trade, shadow, admin, read-only
    key: str


class EngineTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files in PEM; relative ones are taken from the directory of this file."""

    enabled: bool = False
    certificate: str = ""  # the engine's, with its chain; needed where the engine runs
    key: str = ""
    ca: str = ""  # authorities that the engine's certificate may come from; "": the machine's
    server_name: str = ""  # that it must be for; "": the host of engine.listen
    client_ca: str = ""  # set: the engine lets in only who shows a certificate that these signed
    client_certificate: str = ""  # that our own processes show
    client_key: str = ""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8320"  # or unix:/path/of/a/socket
    implementation: str = ""  # "python", "rust"; "": RAILSWITCH_ENGINE, else rust
    shard: int = 1
    orders: str = "plain"  # those that the monolith's tables can show; or "all"
    tls: EngineTls = EngineTls()
    keys: tuple[
        EngineKey, ...
    ] = ()  # (): `railswitch up` makes them and keeps them in the data directory


class MarketDataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool = True  # wherever there is a Redis
    interval_ms: int = 50  # from one batch to the next, at least
    levels: int = 20  # prices a side
    orders: int = 0  # orders a side; 0: no depth by order
    stream_length: int = 10_000  # entries of trades kept for each instrument, about


class ProxyTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Between clients and the proxy. Files in PEM; relative ones are taken from the directory of
    this file. Both empty: plain HTTP.
    """

    certificate: str = ""  # with its chain
    key: str = ""


class CaptureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: str = "async"  # never waits; "ahead": an order waits until its request is on the disk
    ahead_budget_ms: float = 5.0  # and no longer than this
    spool_mb: int = 1024  # of a worker, on disk, for captures while Redis is away; 0: none
    redact: tuple[str, ...] = ()  # fields of bodies and queries whose values are never captured


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8300"
    workers: int = 1
    implementation: str = ""  # "python", "rust"; "": RAILSWITCH_PROXY, else rust where it is built
    tls: ProxyTls = ProxyTls()
    capture: CaptureConfig = CaptureConfig()
    name: str = "proxy"  # each `railswitch proxy` of one engine needs its own; 16 bytes at most


class GateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operations_min: int = 10_000
    fills_min: int = 1_000
    shadow_s_min: float = 3600.0
    coverage_min: float = 1.0  # (matched + known) / (seen - pending)
    dark_max: int = 0
    pending_max: int = 200
    lag_ms_max: float = 1000.0
    engine_p99_us_max: float = 10_000.0
    engine_p999_us_max: float = 50_000.0
    evidence_age_s_max: float = 10.0
    book_age_s_max: float = 60.0


class FlipConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hold_ms_max: int = 1000  # budget from the announcement of the hold to the commit
    worker_silence_ms_max: int = 3000  # a worker that has not reported for so long counts as gone
    old_transaction_ms_max: int = (
        2000  # preflight refuses while legacy has an older open write transaction
    )


class RollbackConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Breaches that take a live instrument back without asking; 0 switches a check off."""

    write_back_lag_ms_max: float = 5000.0
    engine_silence_ms_max: float = 10_000.0


class KnownDifference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    owner: str
    reason: str
    symbols: tuple[str, ...] = ()  # (): all
    kinds: tuple[str, ...]  # shadow.verdict.Kind values
    expires: str  # date, YYYY-MM-DD
    hits_max: int


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    legacy: LegacyConfig
    mapping: Mapping
    instruments: tuple[InstrumentConfig, ...]
    data_dir: str = "railswitch-data"
    control: ControlConfig = ControlConfig()
    redis: RedisConfig = RedisConfig()
    engine: EngineConfig = EngineConfig()
    market_data: MarketDataConfig = MarketDataConfig()
    proxy: ProxyConfig = ProxyConfig()
    gate: GateConfig = GateConfig()
    flip: FlipConfig = FlipConfig()
    rollback: RollbackConfig = RollbackConfig()
    known: tuple[KnownDifference, ...] = ()


_Tls = TypeVar("_Tls", EngineTls, ProxyTls)


def find(path: str | None = None, environ: abc.Mapping[str, str] = os.environ) -> Path:
    """The file named, else RAILSWITCH_CONFIG, else railswitch.toml here; one that exists."""
    named = path or environ.get(FILE_VARIABLE) or ""
    found = Path(named or DEFAULT_FILE).absolute()
    if not found.is_file():
        told_by = "--config" if path else FILE_VARIABLE if named else "the current directory"
        raise ConfigError(
            f"no configuration: {found} does not exist (looked for it because of {told_by}). "
            f"Name one with --config FILE; `railswitch sandbox` writes one to try things with"
        )
    return found


def load(path: Path) -> Config:
    """Reads and checks the file. Relative paths are taken from the directory of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    config = parse(text, source=str(path))
    adapter = adapting.placed(config.mapping.adapter, path.parent)
    mapping = msgspec.structs.replace(config.mapping, adapter=adapter)
    engine = msgspec.structs.replace(config.engine, tls=_placed(config.engine.tls, path.parent))
    proxy = msgspec.structs.replace(config.proxy, tls=_placed(config.proxy.tls, path.parent))
    data_dir = str(path.parent / config.data_dir)
    return msgspec.structs.replace(
        config, mapping=mapping, data_dir=data_dir, engine=engine, proxy=proxy
    )


def _placed(tls: _Tls, directory: Path) -> _Tls:
    """Its relative paths, taken from this directory."""
    files = {
        name: str(directory / value)
        for name, value in msgspec.structs.asdict(tls).items()
        if name not in ("enabled", "server_name") and value
    }
    return msgspec.structs.replace(tls, **files)


def parse(text: str, *, source: str) -> Config:
    """Pure. Raises ConfigError with every unknown key, or every broken rule, at once, each with its
    line.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = _TOML_LINE.search(str(error))
        where = f"{source}:{line[1]}" if line is not None else source
        raise ConfigError(f"{where}: this is not valid TOML: {error}") from error
    _refuse(open_decisions(data), text, source)
    if "mapping" in data:
        data["mapping"] = expanded(data["mapping"])
    _refuse(_unknown_keys(data, inspect.type_info(Config), ""), text, source)
    try:
        config = msgspec.convert(data, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(Lines(text).told(source, _reworded(str(error)))) from error
    _refuse(config_rules.broken_rules(config), text, source)
    return config


def _refuse(sentences: abc.Iterable[str], text: str, source: str) -> None:
    wrong = list(sentences)
    if wrong:
        lines = Lines(text)
        raise ConfigError("\n".join(lines.told(source, one) for one in wrong))


def keys(kind: inspect.Type | None = None, path: str = "") -> abc.Iterator[str]:
    """Every key that may stand in the file, as a dotted path (`instruments[].tick`); NAME stands
    for one that is chosen freely.
    """
    kind = kind or inspect.type_info(Config)
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from keys(
                field.type, f"{path}.{field.encode_name}" if path else field.encode_name
            )
    elif isinstance(kind, inspect.VarTupleType) and isinstance(kind.item_type, inspect.StructType):
        yield from keys(kind.item_type, f"{path}[]")
    elif isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StructType):
        yield from keys(kind.value_type, f"{path}.NAME")
    else:
        yield path


def _unknown_keys(data: Any, kind: inspect.Type, path: str) -> abc.Iterator[str]:
    if isinstance(kind, inspect.StructType) and isinstance(data, dict):
        known = {field.encode_name: field.type for field in kind.fields}
        for key, value in data.items():
            where = f"{path}.{key}" if path else key
            if key in known:
                yield from _unknown_keys(value, known[key], where)
                continue
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            yield f"unknown key `{where}`: the nearest valid key there is `{near}`"
    elif isinstance(kind, inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            yield from _unknown_keys(value, kind.value_type, f"{path}.{key}")
    elif isinstance(kind, inspect.VarTupleType) and isinstance(data, list):
        for n, value in enumerate(data):
            yield from _unknown_keys(value, kind.item_type, f"{path}[{n}]")


def _reworded(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.proxy.workers`", with the key first."""
    found = re.fullmatch(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", message, re.DOTALL)
    assert found is not None
    where, what = found["where"], found["what"].replace("Object missing required", "lacks the")
    what = what.replace("lacks the field", "the key is missing:")
    return f"`{where}`: {what}" if where else what
