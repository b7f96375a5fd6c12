"""`railswitch.toml`: its shape, its defaults, and the only code that reads it."""

from __future__ import annotations

import msgspec

from shadow.legacy.mapping import InstrumentConfig, Mapping


class LegacyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    database_url: (
        str  # role `railswitch`: reads, replicates, and is the writer that the fence recognises
    )
    install_url: str = (
        ""  # a role that owns the legacy tables; only `railswitch legacy install|uninstall` uses it
    )
    upstream: str  # http://host:port of the monolith
    slot: str = "railswitch"
    publication: str = "railswitch"


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    database_url: str = ""  # "": `railswitch up` starts its own
    listen: str = "127.0.0.1:8310"


class RedisConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str = ""  # "": `railswitch up` starts its own


class EngineKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: str  # trade, shadow, admin, read-only
    key: str


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8320"
    implementation: str = ""  # "python", "rust"; "": RAILSWITCH_ENGINE, else rust
    shard: int = 1
    keys: tuple[
        EngineKey, ...
    ] = ()  # (): `railswitch up` makes them and keeps them in the data directory


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:8300"
    workers: int = 1


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
    proxy: ProxyConfig = ProxyConfig()
    gate: GateConfig = GateConfig()
    flip: FlipConfig = FlipConfig()
    rollback: RollbackConfig = RollbackConfig()
    known: tuple[KnownDifference, ...] = ()
