"""Service levels: what is promised, and how fast the budgets burn."""

from config.grafana.panels import Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import or_zero, share, total

ERRORS = 0.001
"""Of the calls may fail by the cluster's own fault."""

LATE = 0.01
"""Of the calls may start later than ten seconds after submit."""

WINDOWS = ("5m", "30m", "1h", "6h", "3d")

_FAST = ((1.0, "orange"), (14.4, "red"))
_LEFT = ((0.0, "orange"), (0.25, "green"))
_IN_RANGE = "[$__range]"


def _within(queue: str, bound: str) -> str:
    """Give the share of a subsystem's runs within a bound, which has to be one of the buckets' own."""
    name, own = "gaia_operation_seconds", f'operation=~"{queue}[.].+"'
    return share(
        total(f'rate({name}_bucket{{{own}, le="{bound}"}}[$__rate_interval])'),
        total(f"rate({name}_count{{{own}}}[$__rate_interval])"),
    )


def _answered(queue: str) -> str:
    name = f'gaia_operations_total{{operation=~"{queue}[.].+"'
    return share(
        total(f'increase({name}, outcome="ok"}}{_IN_RANGE})'),
        total(f'increase({name}, outcome=~"ok|error"}}{_IN_RANGE})'),
    )


def _shown(part: str, whole: str) -> str:
    """Give a share of the calls of the time that is shown: a busy hour of it weighs more than a quiet one."""
    return share(f"sum_over_time({part}:rate5m{_IN_RANGE})", f"sum_over_time({whole}:rate5m{_IN_RANGE})")


_FAILED = _shown("gaia:slo_errors", "gaia:slo_operations")
_STARTED_LATE = _shown("gaia:slo_late", "gaia:slo_started")

_NOW: list[Builder] = [
    figure(
        "Available",
        "Share of the calls that did not fail by the cluster's own fault, within the time that is shown. "
        "The objective is 99.9 %.",
        "percentunit",
        f"1 - {_FAILED}",
        steps=((1 - ERRORS, "green"),),
        below="red",
        width=6,
    ),
    figure(
        "Error budget left",
        "What is left of 0.1 % for the time that is shown; below 0 the objective is missed.",
        "percentunit",
        f"1 - {_FAILED} / {ERRORS}",
        steps=_LEFT,
        below="red",
        width=6,
    ),
    figure(
        "In time",
        "Share of the calls that started within ten seconds, within the time that is shown. The objective is 99 %.",
        "percentunit",
        f"1 - {_STARTED_LATE}",
        steps=((1 - LATE, "green"),),
        below="red",
        width=6,
    ),
    figure(
        "Wait budget left",
        "What is left of 1 % for the time that is shown; below 0 the objective is missed.",
        "percentunit",
        f"1 - {_STARTED_LATE} / {LATE}",
        steps=_LEFT,
        below="red",
        width=6,
    ),
]

_BURN: list[Builder] = [
    graph(
        "Burn rate of the error budget",
        "How many times as fast as allowed, over several windows. Alerts: 14.4 over 1h and 5m, 6 over 6h and 30m, "
        "1 over 3d and 6h.",
        "x",
        *(Query(f"gaia:slo_errors:ratio_rate{each} / {ERRORS}", each) for each in WINDOWS),
        steps=_FAST,
        width=12,
    ),
    graph(
        "Burn rate of the wait budget",
        "How many times as fast as allowed calls start late, over several windows.",
        "x",
        *(Query(f"gaia:slo_wait:ratio_rate{each} / {LATE}", each) for each in WINDOWS[:-1]),
        steps=_FAST,
        width=12,
    ),
    graph(
        "Errors that are the cluster's own",
        "Share of the calls, over five minutes; the line is the objective.",
        "percentunit",
        Query("gaia:slo_errors:ratio_rate5m", "own errors"),
        steps=((ERRORS, "red"),),
    ),
    graph(
        "Calls that start late",
        "Share of the calls that wait more than ten seconds, over five minutes; the line is the objective.",
        "percentunit",
        Query("gaia:slo_wait:ratio_rate5m", "late"),
        steps=((LATE, "red"),),
    ),
    graph(
        "Throughput",
        "Runs that end each second: a level of service means little where nothing is done.",
        "ops",
        Query("sum(queue:gaia_operations:rate5m)", "runs"),
    ),
]

_LEVELS: list[Builder] = [
    bars(
        "Answered by subsystem",
        "Share of the runs with a result, within the time that is shown. Errors that are the caller's own count as "
        "errors here.",
        "percentunit",
        " or ".join(
            f'label_replace({_answered(each)}, "queue", "{each}", "", "")'
            for each in ("api", "files", "browser", "process", "network")
        ),
        "{{queue}}",
    ),
    graph(
        "API within 100 ms",
        "Share of the runs of api.* that take no longer than 100 ms.",
        "percentunit",
        Query(_within("api", "0.1"), "within 100 ms"),
        most=1,
    ),
    graph(
        "Files within 500 ms",
        "Share of the runs of files.* that take no longer than 500 ms.",
        "percentunit",
        Query(_within("files", "0.5"), "within 500 ms"),
        most=1,
    ),
    graph(
        "p95 run time",
        "By subsystem, over five minutes.",
        "s",
        Query("queue:gaia_operation_seconds:p95_5m", "{{queue}}"),
    ),
    graph(
        "Memory of workers",
        "Resident memory of the largest worker; the line is what is alerted on.",
        "bytes",
        Query('max(process_resident_memory_bytes{job="gaia-workers"})', "largest worker"),
        steps=((2e9, "red"),),
    ),
    graph(
        "Workers ready",
        "Share of the workers that say that they consume.",
        "percentunit",
        Query("avg(gaia_node_ready)", "ready"),
        most=1,
    ),
    bars(
        "Alerts that fire",
        "Now, by name; the runbook is docs/monitoring.md.",
        "short",
        or_zero('count by (alertname) (ALERTS{alertstate="firing"})'),
        "{{alertname}}",
        steps=((1, "red"),),
        width=24,
    ),
]

BOARD = Board(
    "gaia-slo",
    "Gaia / Service levels",
    "99.9 % of the calls end without an error of the cluster's own, 99 % start within ten seconds: how it stands.",
    (Row("Within the time that is shown", _NOW), Row("Budgets", _BURN), Row("Levels", _LEVELS)),
    choices=(),
)
