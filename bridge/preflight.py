"""Step 0: is everything there that a flip or rollback will need? Looks, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec

from bridge.gate import Decision, Pass
from bridge.legacy_side import ENGINE, LEGACY
from bridge.limits import LAG_SHARE, WRITE_BACK_MOVE_S
from bridge.stage import InstrumentStage, Stage
from bridge.steps import OPERATING_FAULTS, Tools
from bridge.workers import silent_workers
from engine.types import Mode
from shadow.verdict import Evidence

_MODES = {
    Stage.OFF: Mode.CLOSED,
    Stage.SHADOW: Mode.SHADOW,
    Stage.LIVE: Mode.LIVE,
    Stage.RETIRED: Mode.LIVE,
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    seen: str
    reason: str = ""  # one sentence with the next step; "" when it is ok


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(finding.reason for finding in self.findings if not finding.ok)


async def before_flip(
    tools: Tools, stage: InstrumentStage, decision: Decision, evidence: Evidence | None
) -> Preflight:
    """Takes some ms; with old transactions in legacy, as long as those may last (FlipConfig)."""
    findings = await asyncio.gather(
        _asked("gate", _gate(decision)),
        _asked("shadow lag", _lag(tools, evidence)),
        _asked("engine", _engine(tools, stage)),
        _asked("trading", _trading(tools, stage)),
        _asked("fence", _fence(tools, stage)),
        _asked("legacy transactions", _writers(tools, stage)),
        _asked("write-back", _write_back(tools)),
        _asked("funds", _funds(tools)),
        _asked("proxies", _workers(tools)),
    )
    return Preflight(findings=tuple(findings))


async def before_rollback(tools: Tools, stage: InstrumentStage) -> Preflight:
    findings = await asyncio.gather(
        _asked("stage", _live(stage)),
        _asked("engine", _engine(tools, stage)),
        _asked("fence", _fence(tools, stage)),
        _asked("write-back", _write_back(tools)),
    )
    return Preflight(findings=tuple(findings))


async def _asked(name: str, question: Awaitable[tuple[str, str]]) -> Finding:
    """(what was seen, why it hinders); whoever doesn't answer hinders too."""
    try:
        seen, reason = await question
    except OPERATING_FAULTS as error:
        return Finding(name=name, ok=False, seen="no answer", reason=str(error) or name)
    return Finding(name=name, ok=not reason, seen=seen, reason=reason)


async def _gate(decision: Decision) -> tuple[str, str]:
    if isinstance(decision, Pass):
        return decision.statement, ""
    word = type(decision).__name__.lower()
    return word, f"the gate says {word}: {decision.reasons[0]}"


async def _lag(tools: Tools, evidence: Evidence | None) -> tuple[str, str]:
    most_ms = LAG_SHARE * tools.config.hold_ms_max
    if evidence is None or evidence.lag_ms is None:
        return "unknown", "the shadow's lag is unknown: see that `railswitch shadow` runs"
    seen = f"{evidence.lag_ms:.0f} ms"
    if evidence.lag_ms <= most_ms:
        return seen, ""
    return seen, (
        f"the shadow is {seen} behind, and a hold of {tools.config.hold_ms_max} ms leaves it "
        f"{most_ms:.0f} ms: wait for it to catch up"
    )


async def _engine(tools: Tools, stage: InstrumentStage) -> tuple[str, str]:
    """As the stage has it: another stage than the wanted one is a reason already."""
    wanted = _MODES[stage.stage]
    book = await tools.engine.book(stage.instrument)
    mode = Mode(book.mode)
    seen = f"{mode.name.lower()} at epoch {book.epoch}, {len(book.orders)} open orders"
    if mode is wanted and book.epoch <= stage.epoch:
        return seen, ""
    return seen, (
        f"the engine has {stage.symbol} {mode.name.lower()} at epoch {book.epoch}, not "
        f"{wanted.name.lower()} at {stage.epoch}: wait for the control process to set it right, "
        "or see that the engine runs on its own journal"
    )


async def _trading(tools: Tools, stage: InstrumentStage) -> tuple[str, str]:
    """A quiet instrument can be halted in shadow and nothing differ until it is live."""
    known = {one.instrument: one for one in (await tools.engine.status()).instruments}
    state = known.get(stage.instrument)
    if state is None:
        return "not defined", f"the engine does not know {stage.symbol}: put it into shadow first"
    if not state.halted:
        return "open", ""
    return "halted", (
        f"{stage.symbol} is halted in the engine: open it with "
        f"`railswitch limits {stage.symbol} --open --execute`"
    )


async def _fence(tools: Tools, stage: InstrumentStage) -> tuple[str, str]:
    wanted = ENGINE if stage.stage.answered_by_engine else LEGACY
    row = (await tools.legacy.fences()).get(stage.symbol)
    owner, epoch = (row.owner, row.epoch) if row is not None else (LEGACY, 0)
    seen = f"{owner} at epoch {epoch}"
    if owner == wanted and epoch <= stage.epoch:
        return seen, await tools.legacy.unguarded(stage.symbol)
    return seen, (
        f"the fence of {stage.symbol} is {owner}'s at epoch {epoch}, the stage table is at "
        f"{stage.epoch}: they disagree; see `railswitch status` before anything else"
    )


async def _writers(tools: Tools, stage: InstrumentStage) -> tuple[str, str]:
    wait_ms = tools.config.old_transaction_ms_max
    old = await tools.legacy.old_writers(stage.symbol, wait_s=wait_ms / 1000)
    if not old:
        return "none is old", ""
    return f"{len(old)} old", (
        f"write transactions of {stage.symbol} have been open for more than {wait_ms} ms: "
        f"{', '.join(old[:3])}; end them, they would hold the flip up"
    )


async def _write_back(tools: Tools) -> tuple[str, str]:
    write_back = tools.write_back
    if not write_back.running:
        return "stopped", f"the write-back does not run: {write_back.trouble}"
    head_seq = await tools.engine.head_seq()
    try:
        async with asyncio.timeout(2 * WRITE_BACK_MOVE_S):
            await write_back.drain(head_seq)
    except TimeoutError:
        seen = f"{head_seq - write_back.written_seq} commands behind"
        return seen, f"the write-back is {seen}: wait for it to catch up"
    return f"at {write_back.written_seq}", ""


async def _funds(tools: Tools) -> tuple[str, str]:
    """What is locked now, the engine's cancels and fills will have to free."""
    said = tools.legacy.funds
    if not said:
        return "not said", (
            'nobody has said what orders lock: set mapping.funds to "legacy" or "none"'
        )
    trouble = await tools.legacy.try_funds() if said == "legacy" else ""
    return said, trouble and f"{trouble}: correct mapping.accounts, or grant what is missing"


async def _workers(tools: Tools) -> tuple[str, str]:
    heard = tools.workers.heard()
    if tools.workers.trouble:
        return "not heard", f"the proxies can't be heard: {tools.workers.trouble}"
    if not heard:
        return "none", "no proxy worker has reported: start `railswitch proxy`"
    silent = silent_workers(heard, silence_s=tools.config.worker_silence_ms_max / 1000)
    if silent:
        return f"{len(silent)} of {len(heard)} silent", (
            f"proxy workers are silent: {', '.join(silent[:5])}; see that they run, or end them"
        )
    return f"{len(heard)} heard", ""


async def _live(stage: InstrumentStage) -> tuple[str, str]:
    if stage.stage is Stage.LIVE:
        return stage.stage, ""
    return stage.stage, f"{stage.symbol} is {stage.stage}, not live: there is nothing to take back"
