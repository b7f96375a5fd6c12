"""Collects what the three witnesses hold, from the running processes, and has it audited."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bridge.app import engine_endpoint
from bridge.sandbox.audit import AuditResult, audit
from bridge.sandbox.audit_rows import read_legacy
from bridge.sandbox.demo_report import AuditCheck
from bridge.sandbox.demo_world import World
from bridge.sandbox.told import LoadResult
from engine.client import EngineClient
from engine.types import Event
from engine.wire import decode_events
from shadow.legacy.convert import scales
from shadow.store import Store
from shadow.verdict import OperationVerdict


class DemoAudit(msgspec.Struct, frozen=True, kw_only=True):
    result: AuditResult
    checks: tuple[AuditCheck, ...]
    failures: tuple[str, ...]


async def collect_audit(world: World, results: Sequence[LoadResult]) -> DemoAudit:
    """When the write-back has caught up. The journal is read through the engine, from its start."""
    events = await journal_events(world)
    legacy = read_legacy(world.config.legacy.database_url)
    result = audit(results, legacy, events, scales(world.config.instruments))
    checks = tuple(AuditCheck(name=c.name, ok=c.ok, detail=c.detail) for c in result.checks)
    failures = tuple(f"audit: {c.name}: {c.detail}" for c in result.checks if not c.ok)
    return DemoAudit(result=result, checks=checks, failures=failures)


async def journal_events(world: World) -> list[Event]:
    key = next(one.key for one in world.data.engine_keys() if one.role == "read-only")
    client = EngineClient.at(engine_endpoint(world.config), name="audit", key=key)
    await client.start()
    try:
        head_seq = (await client.status()).seq
        events: list[Event] = []
        async for batch in client.tail(1):
            events.extend(decode_events(batch.events))
            if batch.last_seq >= head_seq:
                break
        return events
    finally:
        await client.close()


async def first_differences(world: World, symbol: str) -> tuple[OperationVerdict, ...]:
    """The first operations of the instrument that differ, both sides, as the shadow saw them."""
    run = world.data.running()
    assert run is not None, "the world runs"
    store = Store(run.database_url)
    try:
        evidence = await store.read_evidence(symbol)
    finally:
        await store.close()
    return evidence.mismatches if evidence is not None else ()
