"""What an operator, or a breach, may ask for: a look, a change of stage, a flip, a rollback. And
what needs finishing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Literal

from bridge import flip as flipping
from bridge import rollback as rolling_back
from bridge.config import GateConfig
from bridge.control.messages import (
    ActOutcome,
    ActRequest,
    DryRun,
    GateReport,
    StageRequest,
    next_step,
)
from bridge.errors import NotNow
from bridge.gate import Decision, Pass, decide
from bridge.ledger_rows import Direction, FlipRow
from bridge.preflight import Finding, before_flip, before_rollback
from bridge.recover import carry_out, recover
from bridge.stage import InstrumentStage, Stage, may_change
from bridge.steps import OPERATING_FAULTS, Report, Tools, silent
from engine.snapshot import InstrumentState
from engine.types import Mode
from shadow.legacy.convert import Scale
from shadow.verdict import Evidence

_log = logging.getLogger(__name__)


class Switch:
    """Every driver of this process goes through here, so that no flip is driven twice at once."""

    def __init__(self, tools: Tools, gate: GateConfig, scales: Mapping[str, Scale]) -> None:
        self._tools = tools
        self._gate_config = gate
        self._scales = scales
        self._begin = asyncio.Lock()
        self._driven: set[int] = set()  # flip ids
        self.troubles: dict[str, str] = {}  # what could not be set right, and why: shown in status

    # Looking

    async def gate(self, symbol: str) -> GateReport:
        """Raises UnknownInstrument, StoreUnreachable."""
        stage = await self._tools.ledger.stage(symbol)
        decision = await self._decide(stage)
        return GateReport(
            symbol=symbol,
            stage=stage.stage,
            epoch=stage.epoch,
            decision=decision,
            statement=told(decision),
        )

    async def look(self, symbol: str, action: Direction) -> DryRun:
        """What a flip or rollback would do, and what stands in its way."""
        stage = await self._tools.ledger.stage(symbol)
        hold_ms_max = self._tools.config.hold_ms_max
        decision: Decision | None = None
        if action == "flip":
            evidence = await self._tools.evidence(symbol)
            decision = await self._decided(stage, evidence)
            preflight = await before_flip(self._tools, stage, decision, evidence)
            plan = flipping.plan(symbol, stage.epoch, hold_ms_max)
        else:
            preflight = await before_rollback(self._tools, stage)
            plan = rolling_back.plan(symbol, stage.epoch, hold_ms_max)
        ready = not preflight.reasons
        return DryRun(
            symbol=symbol,
            action=action,
            stage=stage.stage,
            epoch=stage.epoch,
            ready=ready,
            gate=decision,
            findings=preflight.findings,
            reasons=preflight.reasons,
            plan=plan,
            next=f"`railswitch {action} {symbol} --execute` does it"
            if ready
            else preflight.reasons[0],
        )

    async def look_at_stage(self, symbol: str, wanted: Stage) -> DryRun:
        stage = await self._tools.ledger.stage(symbol)
        reasons = _why_not(stage, wanted)
        steps = {
            Stage.SHADOW: (
                f"the engine defines {symbol} and takes the shadow's orders for it",
                f"{symbol} is in shadow at epoch {stage.epoch + 1}; legacy goes on answering",
                "the shadow loads legacy's open orders and follows from there",
            ),
            Stage.OFF: (
                f"{symbol} is off at epoch {stage.epoch + 1}; legacy goes on answering",
                f"the engine closes {symbol}; what was compared stays in the control store",
            ),
        }
        return DryRun(
            symbol=symbol,
            action="stage",
            stage=stage.stage,
            epoch=stage.epoch,
            ready=not reasons,
            gate=None,
            findings=tuple(
                Finding(name="stage", ok=False, seen=stage.stage, reason=reason)
                for reason in reasons
            ),
            reasons=reasons,
            plan=() if reasons else steps[wanted],
            next=reasons[0]
            if reasons
            else f"`railswitch stage {symbol} {wanted} --execute` does it",
        )

    # Acting

    async def begin(self, symbol: str, action: Direction, request: ActRequest) -> FlipRow:
        """A flip or rollback that must now be carried out. Raises NotNow with the reasons,
        FlipRunning, StageConflict; nothing was done then.
        """
        await self._tools.ledger.refuse_unfinished(symbol)
        stage = await self._tools.ledger.stage(symbol)
        look = await self.look(symbol, action)
        if not look.ready:
            raise NotNow(f"{symbol} can't be {_DONE[action]} now: {look.reasons[0]}", *look.reasons)
        evidence = {"gate": look.gate, "findings": look.findings}
        return await self._begun(
            stage, action, actor=request.actor, reason=request.reason, evidence=evidence
        )

    async def begin_unattended(self, symbol: str, reason: str) -> FlipRow:
        """A rollback that a breach asks for."""
        stage = await self._tools.ledger.stage(symbol)
        if stage.stage is not Stage.LIVE:
            raise NotNow(f"{symbol} is {stage.stage}, not live: {next_step(stage)}")
        return await self._begun(
            stage, "rollback", actor="railswitch", reason=reason, evidence={"breach": reason}
        )

    async def carry(
        self, flip: FlipRow, report: Report = silent, *, unattended: bool = False
    ) -> ActOutcome:
        """To its end, whichever it is. `flip` is what `begin` gave."""
        try:
            ended, reasons = await carry_out(self._tools, flip, report, unattended=unattended)
        finally:
            self._driven.discard(flip.id)
        stage = await self._tools.ledger.stage(flip.symbol)
        finished = ended.ended_at_s is not None
        undone: Literal["aborted", "unfinished"] = "aborted" if finished else "unfinished"
        return ActOutcome(
            symbol=flip.symbol,
            action=flip.direction,
            outcome="done" if ended.state == "done" else undone,
            stage=stage.stage,
            epoch=stage.epoch,
            flip_id=flip.id,
            hold_ms=ended.hold_ms,
            reasons=tuple(reasons),
            next=_after(ended, stage),
        )

    async def change_stage(self, symbol: str, request: StageRequest) -> ActOutcome:
        """Between off and shadow. Raises NotNow, StageConflict, FlipRunning, StepFailed."""
        tools = self._tools
        await tools.ledger.refuse_unfinished(symbol)
        stage = await tools.ledger.stage(symbol)
        reasons = _why_not(stage, request.stage)
        if reasons:
            raise NotNow(reasons[0], *reasons)
        epoch = stage.epoch + 1
        if request.stage is Stage.SHADOW:
            # The engine first: the shadow loads as soon as the stage row says so.
            await tools.engine.define([self._scales[symbol]])
            await tools.engine.set_mode(stage.instrument, Mode.SHADOW, epoch)
        changed = await tools.ledger.change_stage(
            stage, request.stage, actor=request.actor, reason=request.reason
        )
        if request.stage is Stage.OFF:
            try:
                await tools.engine.set_mode(stage.instrument, Mode.CLOSED, epoch)
            except OPERATING_FAULTS as error:
                _log.warning("the engine will be told later that %s is off: %s", symbol, error)
        try:
            await tools.announcer.stages()
        except OPERATING_FAULTS as error:
            _log.warning("%s", error)
        return ActOutcome(
            symbol=symbol,
            action="stage",
            outcome="done",
            stage=changed.stage,
            epoch=changed.epoch,
            next=next_step(changed),
        )

    # Setting right

    async def finish_unfinished(self) -> None:
        """Flips and rollbacks that no task of this process drives. What can't be finished yet is
        told in `troubles`, and tried again at the next call. Raises StoreUnreachable.
        """
        async with self._begin:
            unfinished = [
                flip
                for flip in await self._tools.ledger.unfinished()
                if flip.id not in self._driven
            ]
            self._driven.update(flip.id for flip in unfinished)
        for flip in unfinished:
            name = f"{flip.direction} {flip.id} of {flip.symbol}"
            async with self._trying(name):
                ended = await recover(self._tools, flip)
                _log.warning("%s, left half-done, is %s: %s", name, ended.state, ended.reason)
            self._driven.discard(flip.id)

    async def reconcile(self) -> None:
        """The engine's modes follow the stage table wherever no order depends on them. Raises
        EngineError.
        """
        tools = self._tools
        modes = {one.instrument: one for one in (await tools.engine.status()).instruments}
        undefined = [one for one in self._scales.values() if one.instrument not in modes]
        async with self._trying("the engine's instruments"):
            await tools.engine.define(undefined)
        busy = {flip.symbol for flip in await tools.ledger.unfinished()}
        for stage in (await tools.ledger.snapshot()).instruments.values():
            if stage.symbol not in busy and stage.symbol in self._scales:
                async with self._trying(f"the engine's mode of {stage.symbol}"):
                    await self._follow(stage, modes.get(stage.instrument))

    async def _follow(self, stage: InstrumentStage, state: InstrumentState | None) -> None:
        wanted = _MODES[stage.stage]
        mode, epoch = (Mode.CLOSED, 0) if state is None else (Mode(state.mode), state.epoch)
        if stage.stage.answered_by_engine:
            if (mode, epoch) != (wanted, stage.epoch):
                raise NotNow(
                    f"{stage.symbol} is {stage.stage} at epoch {stage.epoch}, and the engine has "
                    f"it {mode.name.lower()} at {epoch}: it answers nobody; see that the engine "
                    "runs on its own journal"
                )
            return
        behind = mode is not wanted or (mode is Mode.SHADOW and epoch < stage.epoch)
        if behind and epoch <= stage.epoch:
            await self._tools.engine.set_mode(stage.instrument, wanted, stage.epoch)

    # Parts

    @asynccontextmanager
    async def _trying(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except (*OPERATING_FAULTS, NotNow) as error:
            if self.troubles.get(what) != str(error):
                _log.error("%s: %s", what, error)
            self.troubles[what] = str(error)
        else:
            self.troubles.pop(what, None)

    async def _decide(self, stage: InstrumentStage) -> Decision:
        return await self._decided(stage, await self._tools.evidence(stage.symbol))

    async def _decided(self, stage: InstrumentStage, evidence: Evidence | None) -> Decision:
        legacy = self._tools.legacy
        accounts_seen = ""
        if not legacy.funds:
            with suppress(*OPERATING_FAULTS):
                accounts_seen = await legacy.accounts_seen()
        return decide(
            stage, evidence, self._gate_config, funds=legacy.funds, accounts_seen=accounts_seen
        )

    async def _begun(
        self,
        stage: InstrumentStage,
        action: Direction,
        *,
        actor: str,
        reason: str,
        evidence: object,
    ) -> FlipRow:
        async with self._begin:  # finish_unfinished must not find it before it is known as driven
            flip = await self._tools.ledger.begin(
                stage, action, actor=actor, reason=reason, evidence=evidence
            )
            self._driven.add(flip.id)
            return flip


_DONE = {"flip": "flipped", "rollback": "rolled back"}
_MODES = {
    Stage.OFF: Mode.CLOSED,
    Stage.SHADOW: Mode.SHADOW,
    Stage.LIVE: Mode.LIVE,
    Stage.RETIRED: Mode.LIVE,
}


def told(decision: Decision) -> str:
    """In one line: the first reason, or what a pass proves."""
    return decision.statement if isinstance(decision, Pass) else decision.reasons[0]


def _why_not(stage: InstrumentStage, wanted: Stage) -> tuple[str, ...]:
    if wanted in (Stage.LIVE, Stage.RETIRED):
        instead = "flip it" if wanted is Stage.LIVE else "it stays live, with a way back"
        return (f"{stage.symbol} does not become {wanted} by a change of stage: {instead}",)
    if stage.stage is wanted:
        return (f"{stage.symbol} is {wanted} already, at epoch {stage.epoch}",)
    if not may_change(stage.stage, wanted) or stage.stage is Stage.LIVE:
        return (f"{stage.symbol} is {stage.stage}: {next_step(stage)}",)
    return ()


def _after(ended: FlipRow, stage: InstrumentStage) -> str:
    if ended.ended_at_s is None:
        return "the control process goes on finishing it: `railswitch status` shows how far it is"
    if ended.state == "aborted":
        who = "the engine" if stage.stage.answered_by_engine else "legacy"
        return f"{who} answers for {stage.symbol} as before; remove the reasons, then try again"
    return next_step(stage)
