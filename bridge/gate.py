"""May this instrument be flipped? Reads what was recorded, and nothing else (DESIGN.md section 7).

Each check says what it saw and what it wanted. One that found something wrong fails the gate; one
that has too little to go on leaves it inconclusive; and only when every check has what it wants
does the gate pass. No data never passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from bridge.config import GateConfig
from bridge.limits import GATE_LATENCY_SAMPLES_MIN
from bridge.stage import InstrumentStage, Stage
from shadow.verdict import Evidence, LatencySummary
from shadow.writers import told

# With no mismatch in n orders, the rate of mismatches is below RULE_OF_THREE / n with 95 %
# confidence.
RULE_OF_THREE = 3.0

_ANEW = "stage it off, then shadow"


class Outcome(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    TOO_LITTLE = "too-little"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question that the gate asked."""

    name: str
    outcome: Outcome
    seen: str
    wanted: str
    reason: str = ""  # one sentence with the next step; "" when the outcome is ok


class Pass(msgspec.Struct, frozen=True, kw_only=True, tag="pass", tag_field="decision"):
    symbol: str
    compared: int  # operations that agreed
    bound: float  # the rate of mismatches is below this, with 95 % confidence
    statement: str
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        return ()


class Fail(msgspec.Struct, frozen=True, kw_only=True, tag="fail", tag_field="decision"):
    symbol: str
    reasons: tuple[str, ...]  # what is wrong first, then what is missing
    checks: tuple[Check, ...]


class Inconclusive(
    msgspec.Struct, frozen=True, kw_only=True, tag="inconclusive", tag_field="decision"
):
    symbol: str
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


Decision = Pass | Fail | Inconclusive


def decide(
    stage: InstrumentStage,
    evidence: Evidence | None,
    config: GateConfig,
    *,
    funds: str,
    accounts_seen: str = "",
) -> Decision:
    """`evidence` is None when the shadow has never reported on the instrument. `funds` is what the
    mapping says of them, `accounts_seen` what speaks for orders that change accounts.
    """
    checks = (*_checks(stage, evidence, config), _funds(funds, accounts_seen))
    wrong = tuple(_reasons(checks, Outcome.WRONG))
    lacking = tuple(_reasons(checks, Outcome.TOO_LITTLE))
    if wrong:
        return Fail(symbol=stage.symbol, reasons=wrong + lacking, checks=checks)
    if lacking or evidence is None:
        return Inconclusive(symbol=stage.symbol, reasons=lacking, checks=checks)
    compared = _agreed(evidence)
    bound = mismatch_bound(compared)
    statement = (
        f"no mismatch in {compared} operations: fewer than {bound:.2g} of all operations "
        "differ, with 95 % confidence"
    )
    return Pass(
        symbol=stage.symbol, compared=compared, bound=bound, statement=statement, checks=checks
    )


def mismatch_bound(compared: int) -> float:
    """The rate of mismatches that `compared` operations without one rule out (95 %).

    >>> mismatch_bound(3000)
    0.001
    """
    return min(1.0, RULE_OF_THREE / compared) if compared > 0 else 1.0


def coverage(evidence: Evidence) -> float | None:
    """The share of what was seen that agreed; None while nothing is settled."""
    settled = evidence.counts.seen - evidence.counts.pending
    return _agreed(evidence) / settled if settled > 0 else None


def _agreed(evidence: Evidence) -> int:
    return evidence.counts.matched + evidence.counts.known


def _reasons(checks: Iterable[Check], outcome: Outcome) -> Iterator[str]:
    return (check.reason for check in checks if check.outcome is outcome)


def _checks(
    stage: InstrumentStage, evidence: Evidence | None, config: GateConfig
) -> Iterator[Check]:
    yield _stage_check(stage)
    if evidence is None or evidence.run == 0:
        yield _check(
            "evidence",
            Outcome.TOO_LITTLE,
            "none",
            "a loaded shadow",
            f"the shadow has recorded nothing of {stage.symbol}: start `railswitch shadow` and "
            "let it load the instrument",
        )
        return
    yield _freshness(evidence, config)
    yield _same_epoch(stage, evidence)
    yield _mismatches(evidence)
    yield _taint(evidence)
    yield _book(evidence, config)
    yield _dark(evidence, config)
    yield _closing(evidence)
    yield _coverage(evidence, config)
    yield _amount("operations", _agreed(evidence), config.operations_min, "let more orders through")
    yield _amount("fills", evidence.counts.fills, config.fills_min, "let more trades happen")
    yield _time_in_shadow(evidence, config)
    yield _pending(evidence, config)
    yield _lag(evidence, config)
    engine = evidence.engine_latency
    yield _latency("engine P99", engine, engine.p99_us, config.engine_p99_us_max, 100)
    yield _latency("engine P99.9", engine, engine.p999_us, config.engine_p999_us_max, 1000)


def _check(name: str, outcome: Outcome, seen: str, wanted: str, reason: str) -> Check:
    return Check(
        name=name,
        outcome=outcome,
        seen=seen,
        wanted=wanted,
        reason="" if outcome is Outcome.OK else reason,
    )


def _stage_check(stage: InstrumentStage) -> Check:
    reasons = {
        Stage.OFF: f"{stage.symbol} is off: put it into shadow first",
        Stage.LIVE: f"{stage.symbol} is live already",
        Stage.RETIRED: f"{stage.symbol} is retired: the engine answers for it already",
    }
    ok = stage.stage is Stage.SHADOW
    outcome = Outcome.OK if ok else Outcome.WRONG
    return _check("stage", outcome, stage.stage, Stage.SHADOW, reasons.get(stage.stage, ""))


def _funds(funds: str, accounts_seen: str) -> Check:
    """Nobody but the operator can know it: what is not said is not guessed."""
    said = f"{accounts_seen}: say" if accounts_seen else "nobody has said what orders lock: say"
    reason = (
        f'{said} mapping.funds = "legacy" with the statements of mapping.accounts where orders '
        'lock money in a table of accounts, "none" where they lock none'
    )
    outcome = Outcome.OK if funds else Outcome.WRONG
    return _check("funds", outcome, funds or accounts_seen or "not said", "legacy or none", reason)


def _freshness(evidence: Evidence, config: GateConfig) -> Check:
    age_s = evidence.now_s - evidence.updated_at_s
    outcome = Outcome.OK if age_s <= config.evidence_age_s_max else Outcome.TOO_LITTLE
    reason = (
        f"the shadow's last report is {age_s:.1f} s old, over {config.evidence_age_s_max:g} s: "
        "see that `railswitch shadow` runs"
    )
    return _check(
        "evidence age", outcome, f"{age_s:.1f} s", f"<= {config.evidence_age_s_max:g} s", reason
    )


def _same_epoch(stage: InstrumentStage, evidence: Evidence) -> Check:
    outcome = Outcome.OK if evidence.epoch == stage.epoch else Outcome.TOO_LITTLE
    reason = (
        f"the evidence is of epoch {evidence.epoch}, the instrument is at {stage.epoch}: "
        "wait for the shadow to follow"
    )
    return _check("epoch", outcome, str(evidence.epoch), str(stage.epoch), reason)


def _mismatches(evidence: Evidence) -> Check:
    count = max(evidence.counts.mismatched, len(evidence.mismatches))
    reason = f"{count} operations differ"
    if evidence.mismatches:
        first = evidence.mismatches[0]
        what = first.differences[0].what if first.differences else first.reason or "no detail"
        reason += f"; the first is {first.operation} of order {first.order_id}: {what}"
    outcome = Outcome.OK if count == 0 else Outcome.WRONG
    return _check("mismatches", outcome, str(count), "0", f"{reason}; explain it, then {_ANEW}")


def _taint(evidence: Evidence) -> Check:
    outcome = Outcome.TOO_LITTLE if evidence.taint else Outcome.OK
    reason = f"the comparison can't be trusted: {evidence.taint}; the shadow loads it again"
    return _check("taint", outcome, evidence.taint or "none", "none", reason)


def _book(evidence: Evidence, config: GateConfig) -> Check:
    wanted = f"equal, at most {config.book_age_s_max:g} s ago"
    if evidence.book_equal is None:
        reason = "the books have never been compared: wait for the shadow to do it"
        return _check("book", Outcome.TOO_LITTLE, "never compared", wanted, reason)
    age_s = evidence.now_s - evidence.book_checked_at_s
    if not evidence.book_equal:
        reason = f"the books differed when last compared, {age_s:.0f} s ago: see the parity report"
        return _check("book", Outcome.WRONG, f"different, {age_s:.0f} s ago", wanted, reason)
    outcome = Outcome.OK if age_s <= config.book_age_s_max else Outcome.TOO_LITTLE
    reason = f"the books were last compared {age_s:.0f} s ago: see that `railswitch shadow` runs"
    return _check("book", outcome, f"equal, {age_s:.0f} s ago", wanted, reason)


def _dark(evidence: Evidence, config: GateConfig) -> Check:
    count = evidence.counts.dark
    outcome = Outcome.OK if count <= config.dark_max else Outcome.WRONG
    reason = (
        f"{count} operations never passed a proxy ({told(count, evidence.dark_writers)}): route "
        "who writes them (jobs, console, admin pages) through the proxy, or raise gate.dark_max"
    )
    return _check("dark traffic", outcome, str(count), f"<= {config.dark_max}", reason)


def _closing(evidence: Evidence) -> Check:
    counts = evidence.counts
    outcome = Outcome.OK if counts.closes() else Outcome.WRONG
    parts = (
        f"{counts.matched} + {counts.known} + {counts.pending} + {counts.mismatched} + "
        f"{counts.uncomparable} + {counts.gaps}"
    )
    reason = f"the counts don't close: {counts.seen} seen, {parts} accounted for; {_ANEW}"
    return _check("completeness", outcome, f"{counts.seen} = {parts}", "closes", reason)


def _coverage(evidence: Evidence, config: GateConfig) -> Check:
    share = coverage(evidence)
    wanted = f">= {config.coverage_min:.2%}"
    if share is None:
        reason = "nothing has been compared yet: let orders through"
        return _check("coverage", Outcome.TOO_LITTLE, "nothing settled", wanted, reason)
    outcome = Outcome.OK if share >= config.coverage_min else Outcome.WRONG
    reason = (
        f"coverage is {share:.4%}, under {config.coverage_min:.2%}: "
        f"{evidence.counts.mismatched} different, {evidence.counts.gaps} gaps, "
        f"{evidence.counts.uncomparable} uncomparable; see the parity report, then {_ANEW}"
    )
    return _check("coverage", outcome, f"{share:.4%}", wanted, reason)


def _amount(name: str, seen: int, wanted: int, step: str) -> Check:
    outcome = Outcome.OK if seen >= max(wanted, 1) else Outcome.TOO_LITTLE
    reason = f"{seen} {name} compared, {wanted} wanted: {step}"
    return _check(name, outcome, str(seen), f">= {wanted}", reason)


def _time_in_shadow(evidence: Evidence, config: GateConfig) -> Check:
    elapsed_s = evidence.now_s - evidence.loaded_at_s
    outcome = Outcome.OK if elapsed_s >= config.shadow_s_min else Outcome.TOO_LITTLE
    reason = (
        f"in shadow for {elapsed_s:.0f} s since the last load, {config.shadow_s_min:g} s wanted: "
        "wait"
    )
    return _check(
        "time in shadow", outcome, f"{elapsed_s:.0f} s", f">= {config.shadow_s_min:g} s", reason
    )


def _pending(evidence: Evidence, config: GateConfig) -> Check:
    count = evidence.counts.pending
    outcome = Outcome.OK if count <= config.pending_max else Outcome.TOO_LITTLE
    reason = f"{count} operations wait for their other side, over {config.pending_max}: wait"
    return _check("pending", outcome, str(count), f"<= {config.pending_max}", reason)


def _lag(evidence: Evidence, config: GateConfig) -> Check:
    wanted = f"<= {config.lag_ms_max:g} ms"
    if evidence.lag_ms is None:
        reason = "the shadow's lag is unknown: see that `railswitch shadow` runs"
        return _check("lag", Outcome.TOO_LITTLE, "unknown", wanted, reason)
    outcome = Outcome.OK if evidence.lag_ms <= config.lag_ms_max else Outcome.TOO_LITTLE
    reason = (
        f"the shadow is {evidence.lag_ms:.0f} ms behind, over {config.lag_ms_max:g} ms: wait for "
        "it to catch up"
    )
    return _check("lag", outcome, f"{evidence.lag_ms:.0f} ms", wanted, reason)


def _latency(
    name: str, summary: LatencySummary, quantile_us: float, limit_us: float, resolves_at: int
) -> Check:
    """With fewer than `resolves_at` samples the maximum stands in for the quantile."""
    resolved = summary.count >= resolves_at
    value_us = quantile_us if resolved else summary.max_us
    what = "" if resolved else " (the maximum: too few samples for the quantile)"
    seen = f"{value_us:.0f} us of {summary.count}{what}"
    wanted = f"<= {limit_us:g} us"
    if summary.count < GATE_LATENCY_SAMPLES_MIN:
        reason = f"{name}: {summary.count} samples, {GATE_LATENCY_SAMPLES_MIN} wanted: wait"
        return _check(name, Outcome.TOO_LITTLE, seen, wanted, reason)
    if value_us <= limit_us:
        return _check(name, Outcome.OK, seen, wanted, "")
    outcome = Outcome.WRONG if resolved else Outcome.TOO_LITTLE
    reason = f"{name} is {seen}, over {limit_us:g} us: give the engine faster disks or cores"
    return _check(name, outcome, seen, wanted, reason)
