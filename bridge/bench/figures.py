"""What a benchmark found, as tables: the same for the console and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Found = dict[str, Any]


class Table(NamedTuple):
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(part: str, found: Found) -> list[Table]:
    """The figures of a part, then the conditions that they were measured under."""
    return [*_TABLES.get(part, _any)(found), _conditions(found)]


def micros(value_us: float | None) -> str:
    """
    >>> micros(340), micros(1250), micros(123456), micros(None)
    ('340 us', '1.25 ms', '123 ms', '-')
    """
    if value_us is None:
        return "-"
    if value_us < 1_000:
        return f"{value_us:.0f} us" if value_us >= 10 else f"{value_us:.1f} us"
    return f"{value_us / 1_000:.2f} ms" if value_us < 100_000 else f"{value_us / 1_000:.0f} ms"


def rate(per_s: float) -> str:
    """
    >>> rate(12_345_678), rate(999_961), rate(250_000), rate(1_231)
    ('12.35 M/s', '1.00 M/s', '250 k/s', '1,231/s')
    """
    if per_s >= 999_500:
        return f"{per_s / 1e6:.2f} M/s"
    return f"{per_s / 1e3:.0f} k/s" if per_s >= 10_000 else f"{per_s:,.0f}/s"


# --- the parts


def _core(found: Found) -> list[Table]:
    rounds = found["rounds"]
    flows = [
        (
            name,
            rate(one["commands_per_s"]["median"]),
            f"{rate(one['commands_per_s']['lowest'])} to {rate(one['commands_per_s']['highest'])}",
            f"{one['ns_per_command']:g} ns",
            *(micros(one["batch_us"][at]) for at in ("p50", "p99", "max")),
        )
        for name, one in found["workloads"].items()
    ]
    worst = [
        (
            one["what"],
            f"{one['operations']:,}",
            f"{one['events_of_one']:,}",
            *(micros(one[at]) for at in ("p50_us", "worst_us", "worst_seen_us")),
        )
        for one in found["worst_operations"]
    ]
    return [
        Table(
            f"commands/s through the batch call, median of {rounds} rounds",
            ("workload", "rate", "lowest to highest", "a command", *_BATCH_COLUMNS),
            flows,
        ),
        Table(
            f"the worst single operations; the worst by its median over {rounds} rounds",
            ("operation", "timed", "events", "P50", "worst", "worst seen"),
            worst,
        ),
        _mixes({name: one["mix"] for name, one in found["workloads"].items()}),
    ]


def _engine(found: Found) -> list[Table]:
    alone, journal = found["one_order_alone"], found["journal"]
    made = [
        Table(
            f"open loop for {found['seconds']:g} s after {found['warm_up_s']:g} s of warming up",
            ("offered", "answered", *_LATENCY_COLUMNS, "sent late, P99"),
            [_run_row(found)],
        ),
        Table(
            "one order alone",
            ("orders", *_LATENCY_COLUMNS),
            [(f"{alone['orders']:,}", *_latency_cells(alone))],
        ),
        Table(
            "its journal",
            ("syncs", "commands in each", "written"),
            [
                (
                    rate(journal["syncs_per_s"]),
                    f"{journal['commands_per_sync']:g}",
                    f"{journal['bytes_per_s'] / 1e6:.1f} MB/s",
                )
            ],
        ),
    ]
    if found["ladder"]:
        made.append(_ladder(found["ladder"]))
    return [*made, _mixes({found["workload"]: found["mix"]})]


def _ladder(rungs: list[Found]) -> Table:
    columns = ("offered", "answered", *_LATENCY_COLUMNS, "sent late, P99")
    rows = [
        (
            *_run_row(rung),
            rate(rung["journal"]["syncs_per_s"]),
            _cpu(rung["conditions"]),
            "yes" if rung["holds"] else "no",
        )
        for rung in rungs
    ]
    return Table(
        f"the ladder: rungs of {rungs[0]['seconds']:g} s, until it gives way",
        (*columns, "syncs", "processor time", "holds"),
        rows,
    )


def _recovery(found: Found) -> list[Table]:
    rows = []
    for name, what in (
        ("replay", "the whole journal, recovered"),
        ("replay_cold", "the same, read from the disk"),
        ("verify", "checksums and chain alone"),
    ):
        one = found[name]
        spread = one["commands_per_s"]
        between = f"{rate(spread['lowest'])} to {rate(spread['highest'])}"
        rows.append((what, f"{one['seconds']:.2f} s", rate(spread["median"]), between))
    tail = f"snapshot and a tail of {found['snapshot']['tail_commands']:,} commands"
    rows.append((tail, f"{found['snapshot']['seconds']:.2f} s", "-", "-"))
    made = found["snapshot_made"]
    took = f"making that snapshot ({made['bytes'] / 1e6:.1f} MB)"
    rows.append((took, f"{made['seconds']:.2f} s", "-", "-"))
    same = "the same" if found["same_state_hash"] else "DIFFERENT"
    return [
        Table(
            f"{found['commands']:,} commands in {found['journal_bytes'] / 1e6:,.0f} MB, "
            f"median of {found['rounds']}; state hash {same} in all",
            ("what", "time", "commands/s", "lowest to highest"),
            rows,
        ),
        _mixes({found["workload"]: found["mix"]}),
    ]


def _proxy(found: Found) -> list[Table]:
    closed, alone = found["closed"], found["one_connection_alone"]
    speeds = [
        (
            way,
            rate(one["requests_per_s"]),
            _between([rate(some) for some in _ends(one["requests_per_s_by_turn"])]),
            "-" if one["of_nginx"] is None else f"{one['of_nginx']:.2f}",
            f"{one['cpu_us_per_request']:.1f} us" if one["cpu_us_per_request"] else "-",
            *(micros(one["latency_us"][at]) for at in _FEW),
        )
        for way, one in closed.items()
    ]
    added = [
        (way, *(micros(one["latency_us"][at]) for at in _FEW), micros(one["added_p50_us"]))
        for way, one in alone.items()
    ]
    waits = [
        (
            one["way"],
            one["shadow"] or "-",
            rate(one["answered_per_s"]),
            *(micros(one["latency_from_schedule_us"][at]) for at in _FEW),
            "-" if one["p99_of_fast"] is None else f"{one['p99_of_fast']:.2f}",
            micros(one["sent_late_us"]["p99"]),
        )
        for one in found["open"]
    ]
    turns = f"{found['rounds']} turns of {found['seconds_each_turn']:g} s each, interleaved"
    few = ("P50", "P99", "P99.9")
    return [
        Table(
            f"closed loop, {found['connections']} connections; {turns}",
            ("way", "requests/s", "lowest to highest", "of nginx", "CPU a request", *few),
            speeds,
        ),
        Table("one connection alone", ("way", *few, "added to P50"), added),
        Table(
            f"open loop, {rate(found['rate_offered'])} offered; {turns}",
            ("way", "shadow side", "answered", *few, "P99 to fast", "sent late, P99"),
            waits,
        ),
        Table(
            "captures, where the shadow side was fast",
            ("orders sent", "captures on the stream"),
            [(f"{found['captured']['sent']:,}", f"{found['captured']['on_the_stream']:,}")],
        ),
    ]


def _soak(found: Found) -> list[Table]:
    samples = found["samples"]
    step = max(1, -(-len(samples) // _SOAK_ROWS))
    rows = [
        (
            f"{one['at_s']:.0f} s",
            *(f"{one[who] / 1e6:.1f} MB" for who in ("worker_bytes", "redis_bytes")),
            rate(one["requests_per_s"]),
            micros(one["p99_us"]),
            f"{one['spooled_bytes'] / 1e6:.1f} MB",
            *(f"{one[count]:,}" for count in ("captured", "shipped", "dropped", "failed")),
        )
        for one in samples[step - 1 :: step]
    ]
    curve = [one["worker_bytes"] for one in samples]
    flat = {True: "flat", False: "NOT flat", None: "too short to tell"}[found["is_flat"]]
    share = found["last_third_of_middle"]
    return [
        Table(
            f"{rate(found['rate_offered'])} for {found['seconds']:g} s, a shadow side that takes "
            f"1/{found['shadow_too_slow_by']} of it",
            ("time", "worker", "Redis", "answered", "P99", "spooled", *_SOAK_COUNTS),
            rows,
        ),
        Table(
            "resident memory of the worker",
            ("curve", "lowest to highest", "last third to middle third", ""),
            [
                (
                    sparkline(curve),
                    _between([f"{one / 1e6:.1f} MB" for one in _ends(curve)]),
                    "-" if share is None else f"{share:.3f}",
                    flat,
                )
            ],
        ),
    ]


def sparkline(values: Sequence[float]) -> str:
    """At most so many bars, from zero; each the highest of its stretch.

    >>> sparkline([1, 4, 8, 8]), sparkline([])
    ('▁▄██', '')
    """
    step = max(1, -(-len(values) // _BARS))
    highest = [max(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(highest, default=0) or 1
    return "".join("▁▂▃▄▅▆▇█"[max(0, -int(-8 * one // top) - 1)] for one in highest)


def _any(found: Found) -> list[Table]:
    """A part without tables of its own: every figure in a line."""
    figures = {name: one for name, one in found.items() if name != "conditions"}
    return [Table("", ("figure", "value"), _flat(figures))]


_TABLES: dict[str, Callable[[Found], list[Table]]] = {
    "core": _core,
    "engine": _engine,
    "recovery": _recovery,
    "proxy": _proxy,
    "soak": _soak,
}

# --- what they share

# Figures that are conditions rather than results.
_ALSO = (
    *("implementation", "transport", "sessions", "tick_us", "cycle"),
    *("seed", "batch_commands", "commands_per_frame"),
)

_BATCH_COLUMNS = ("batch, P50", "P99", "worst")
_FEW = ("p50", "p99", "p99_9")
_SOAK_ROWS = 12
_SOAK_COUNTS = ("captured", "shipped", "dropped", "failed requests")
_BARS = 60
_LATENCY_COLUMNS = ("P50", "P90", "P99", "P99.9", "worst")


def _latency_cells(latency: Found) -> tuple[str, ...]:
    return tuple(micros(latency[at]) for at in ("p50", "p90", "p99", "p99_9", "max"))


def _ends(values: Sequence[Any]) -> tuple[Any, ...]:
    return (min(values), max(values)) if values else ()


def _between(ends: Sequence[str]) -> str:
    return " to ".join(ends) or "-"


def _run_row(found: Found) -> tuple[str, ...]:
    share = 100 * found["answered"] / max(found["offered"], 1)
    answered = "all" if found["all_answered"] else f"{min(share, 99.99):.2f} %"
    return (
        f"{rate(found['rate_offered'])}",
        f"{answered}, {rate(found['rate_answered'])}",
        *_latency_cells(found["latency_from_schedule_us"]),
        micros(found["sent_late_us"]["p99"]),
    )


def _mixes(mixes: dict[str, Found]) -> Table:
    shares = ("gtc", "ioc", "fok", "cancel", "reduce", "replace", "trading")
    counts = ("resting", "levels", "accounts")
    rows = [
        (
            name,
            *(f"{100 * mix[share]:.1f} %" for share in shares),
            *(f"{mix[count]:,}" for count in counts),
        )
        for name, mix in mixes.items()
    ]
    heads = ("GTC", "IOC", "FOK", "cancel", "reduce", "replace", "trades")
    return Table("what was sent", ("workload", *heads, "orders", "prices", "accounts"), rows)


def _conditions(found: Found) -> Table:
    told = dict(found["conditions"])
    told["load_average_before"] = ", ".join(f"{one:g}" for one in told["load_average_before"])
    if "cpu_percent" in told:
        told["processor time"] = f"{_cpu(told)} (100 % is one core)"
        del told["cpu_percent"]
    told |= {name: found[name] for name in _ALSO if name in found}
    rows = [(name.replace("_", " "), str(value)) for name, value in told.items()]
    return Table("conditions", ("condition", ""), rows)


def _cpu(told: Found) -> str:
    return ", ".join(f"{who} {share} %" for who, share in told["cpu_percent"].items())


def _flat(value: Any, path: str = "") -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [
            pair
            for key, one in value.items()
            for pair in _flat(one, f"{path}.{key}" if path else str(key))
        ]
    return [(path, f"{value:,}" if isinstance(value, int) else str(value))]
