"""The demo's outcome: data (`demo-report.json`) and a self-contained page (`demo-report.html`)."""

from __future__ import annotations

import html
import math
import string
from collections.abc import Callable, Sequence
from importlib import resources

import msgspec

from shadow.verdict import Counts, OperationVerdict

_Axis = Callable[[float], float]


class StoryLine(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float  # since the demo began, monotonic clock
    text: str


class PhaseLatency(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument in one phase of the story: scheduled send to answer, at the client."""

    phase: str
    symbol: str
    answered_by: str  # "monolith" or "engine"
    count: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    curve: tuple[tuple[float, float], ...] = ()  # (percentile, microseconds), ascending


class FlipReport(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    direction: str  # "flip" or "rollback"
    state: str
    hold_ms: float
    epoch: int


class InstrumentReport(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    stage: str
    gate: str  # "pass", "fail" or "inconclusive"
    reasons: tuple[str, ...]
    counts: Counts
    roots: tuple[OperationVerdict, ...] = ()


class AuditCheck(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    detail: str


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    failures: tuple[str, ...]  # what did not hold; empty when ok
    seconds: float
    seed: int
    flow: str  # name of the order flow file; "" for generated orders
    orders_sent: int
    orders_answered: int
    orders_lost: int
    orders_duplicated: int
    requests_failed: dict[str, int]  # by reason; their outcome was never promised
    fills_compared: int
    instruments: tuple[InstrumentReport, ...]
    flips: tuple[FlipReport, ...]
    latency: tuple[PhaseLatency, ...]
    engine_away_ms: float  # from kill -9 to the first live answer after it; 0.0: not killed
    audit: tuple[AuditCheck, ...]
    story: tuple[StoryLine, ...]
    conditions: dict[str, str]


def render_html(report: DemoReport) -> str:
    page = resources.files("bridge.sandbox").joinpath("demo_report.html").read_text()
    return string.Template(page).substitute(
        verdict="everything held" if report.ok else "something did not hold",
        verdict_class="good" if report.ok else "bad",
        summary=_escape(
            f"{report.orders_sent:,} requests sent, {report.orders_answered:,} answered, "
            f"{report.orders_lost} lost, {report.orders_duplicated} duplicated, "
            f"{report.fills_compared:,} fills compared, in {report.seconds:.0f} s."
        ),
        failures="".join(f'<p class="bad">{_escape(text)}</p>' for text in report.failures),
        story=_table(("at", "what happened"), [(f"{s.at_s:.1f} s", s.text) for s in report.story]),
        latency=_latency_chart(report.latency) + _latency_table(report.latency),
        parity=_parity_table(report.instruments),
        flips=_table(
            ("instrument", "direction", "state", "epoch", "hold"),
            [
                (f.symbol, f.direction, f.state, f.epoch, f"{f.hold_ms:.1f} ms")
                for f in report.flips
            ],
        ),
        difference=_first_difference(report.instruments),
        audit=_audit_table(report.audit),
        conditions=_table(("what", "value"), sorted(report.conditions.items())),
    )


def _escape(value: object) -> str:
    return html.escape(str(value))


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{_escape(h)}</th>" for h in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _latency_table(phases: Sequence[PhaseLatency]) -> str:
    return _table(
        ("phase", "instrument", "answered by", "requests", "P50", "P99", "P99.9", "worst"),
        [
            (p.phase, p.symbol, p.answered_by, f"{p.count:,}", *map(duration, _points(p)))
            for p in phases
        ],
    )


def _points(phase: PhaseLatency) -> tuple[float, ...]:
    return (phase.p50_us, phase.p99_us, phase.p999_us, phase.max_us)


def duration(us: float) -> str:
    """Microseconds for a person: `850 µs`, `3.20 ms`, `1.50 s`."""
    if us < 1000:
        return f"{us:.0f}\u00a0µs"
    if us < 1_000_000:
        return f"{us / 1000:.2f}\u00a0ms"
    return f"{us / 1_000_000:.2f}\u00a0s"


def _parity_table(instruments: Sequence[InstrumentReport]) -> str:
    heads = ("instrument", "seen", "match", "known", "pending", "mismatch", "uncomparable")
    rows = []
    for i in instruments:
        c = i.counts
        numbers = (c.seen, c.matched, c.known, c.pending, c.mismatched, c.uncomparable)
        rows.append((i.symbol, *(f"{n:,}" for n in (*numbers, c.gaps, c.dark, c.fills))))
    gates = [(i.symbol, i.stage, i.gate, "; ".join(i.reasons)) for i in instruments]
    return _table(("instrument", "stage", "gate", "why"), gates) + _table(
        (*heads, "gaps", "dark", "fills"), rows
    )


def _first_difference(instruments: Sequence[InstrumentReport]) -> str:
    for instrument in instruments:
        for root in instrument.roots:
            sides = "".join(
                f"<div><h3>{side}</h3><pre>{_escape(_pretty(value))}</pre></div>"
                for side, value in (("monolith", root.legacy), ("engine", root.engine))
            )
            what = "".join(
                f"<li>{_escape(d.kind)}: {_escape(d.what)}</li>" for d in root.differences
            )
            title = f"{instrument.symbol}, {root.operation} of order {root.order_id}"
            return f"<p>{_escape(title)}</p><ul>{what}</ul><div class='sides'>{sides}</div>"
    return "<p>none</p>"


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _audit_table(checks: Sequence[AuditCheck]) -> str:
    rows = "".join(
        f'<tr><td class="{"good" if c.ok else "bad"}">{"held" if c.ok else "FAILED"}</td>'
        f"<td>{_escape(c.name)}</td><td>{_escape(c.detail)}</td></tr>"
        for c in checks
    )
    return f"<table><tr><th></th><th>check</th><th>detail</th></tr>{rows}</table>"


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 320, 70, 40, 16
_TICK_PERCENTILES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


def _latency_chart(phases: Sequence[PhaseLatency]) -> str:
    drawn = [p for p in phases if len(p.curve) > 1]
    if not drawn:
        return ""
    values = [us for p in drawn for _, us in p.curve if us > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    nines = max(-math.log10(1 - min(p, 99.999) / 100) for d in drawn for p, _ in d.curve)

    def x(percentile: float) -> float:
        n = -math.log10(1 - min(percentile, 99.999) / 100)
        return _LEFT + n / max(nines, 1e-9) * (_WIDTH - _LEFT - 130)

    def y(us: float) -> float:
        share = (math.log10(max(us, 10.0**low)) - low) / max(high - low, 1)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="client latency by percentile, before and after the flip">'
        + _chart_grid(low, high, nines, x, y)
        + "".join(_chart_line(phase, x, y) for phase in drawn)
        + "</svg>"
    )


def _chart_grid(low: int, high: int, nines: float, x: _Axis, y: _Axis) -> str:
    parts = []
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 130}" y1="{at:.1f}" y2="{at:.1f}" ')
        parts.append('stroke="var(--line)"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">')
        parts.append(f"{duration(10.0**power)}</text>")
    for percentile in _TICK_PERCENTILES:
        if -math.log10(1 - percentile / 100) <= nines + 0.01:
            parts.append(f'<text x="{x(percentile):.1f}" y="{_HEIGHT - 14}" text-anchor="middle">')
            parts.append(f"P{percentile:g}</text>")
    return "".join(parts)


def _chart_line(phase: PhaseLatency, x: _Axis, y: _Axis) -> str:
    colour = "var(--engine)" if phase.answered_by == "engine" else "var(--legacy)"
    points = " ".join(f"{x(p):.1f},{y(us):.1f}" for p, us in phase.curve)
    end_x, end_y = (f(v) for f, v in zip((x, y), phase.curve[-1], strict=True))
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{end_x + 6:.1f}" y="{end_y + 4:.1f}" style="fill:{colour}">'
        f"{_escape(phase.phase)}</text>"
    )
