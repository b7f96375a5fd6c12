"""What the Rust plane is told at its start: the mapping's routes and answers, and all bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from bridge import limits
from bridge.proxy.plane.upstream import Address
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.paths import pattern_of


class PlaneLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`bridge.limits` explains each, under the same name."""

    clients_max: int
    clients_turned_away_max: int
    order_body_bytes_max: int
    answer_body_bytes_max: int
    client_head_s: float
    client_idle_s: float
    client_stall_s: float
    client_linger_s: float
    client_pace_bytes: int
    order_body_s: float
    upstream_connect_s: float
    upstream_head_s: float
    upstream_wait_s: float
    upstream_idle_s: float
    upstream_fresh_s: float
    answer_stall_s: float
    answer_silence_s: float
    upstream_connections_max: int
    upstream_waiting_max: int
    upstream_fall: int  # legacy.health.fall
    sweep_s: float
    tunnel_keepalive_s: int
    ahead_budget_s: float  # proxy.capture.ahead_budget_ms
    tee_captures_max: int
    tee_bytes_max: int
    orders_known_max: int


class PlaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    worker: str
    upstreams: tuple[tuple[str, int], ...]  # numeric address and port, or path and 0
    authority: bytes
    identity: bytes  # name of the field, in lower case with hyphens
    id_prefix: str
    placed_status: int
    placed_many_status: int
    placed_root: str
    placed_many_root: str
    placed_id: str
    placed_symbol: str
    ahead: bool
    special_orders: bool = False  # Python decides every order, from the first one on
    special_reads: bool = False  # and every read of one
    count_file: str
    routes: tuple[tuple[str, str, str, str], ...]  # method, path, action, pattern
    method_override: bool
    limits: PlaneLimits

    def at(self, addresses: Sequence[tuple[str, int]], special: tuple[bool, bool]) -> PlaneSettings:
        return msgspec.structs.replace(
            self,
            upstreams=tuple(addresses),
            special_orders=special[0],
            special_reads=special[1],
        )


def plane_settings(
    *,
    worker: str,
    addresses: Sequence[Address],
    mapping: LegacyMapping,
    count_file: str,
    bounds: Mapping[str, float],
) -> PlaneSettings:
    """`bounds` stand before those of `bridge.limits`; without an `ahead_budget_s` above 0 orders
    don't wait for the disk.
    """
    return PlaneSettings(
        worker=worker,
        upstreams=(),
        authority=addresses[0].authority,
        identity=mapping.identity_header.lower().replace("_", "-").encode(),
        id_prefix=os.urandom(8).hex(),
        placed_status=mapping.responses.placed_status,
        placed_many_status=mapping.responses.placed_many_status,
        placed_root=mapping.responses.root,
        placed_many_root=mapping.responses.many_root,
        placed_id=mapping.responses.key_of("id"),
        placed_symbol=mapping.responses.key_of("symbol"),
        ahead=bounds["ahead_budget_s"] > 0,
        count_file=count_file,
        routes=tuple(
            (one.method, one.path, one.action, pattern_of(one.path).pattern.decode())
            for one in mapping.routes
        ),
        method_override=mapping.method_override,
        limits=_limits(bounds),
    )


def _limits(bounds: Mapping[str, float]) -> PlaneLimits:
    names = set(PlaneLimits.__struct_fields__) - set(bounds)
    named = {name: getattr(limits, name.upper()) for name in names}
    return msgspec.convert({**named, **bounds}, PlaneLimits, strict=False)
