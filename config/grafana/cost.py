"""What each operation costs: CPU, bytes, slots, and wait."""

from config.grafana.panels import WORKERS, Board, Builder, Choice, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, rate, share, total

_OWN = (WORKER, 'operation=~"$operation"')
_NAMED = "{{operation}}"
_CPU = rate("gaia_operation_cpu_seconds_total", *_OWN)
_RECEIVED = rate("gaia_operation_received_bytes_total", *_OWN)
_SENT = rate("gaia_operation_sent_bytes_total", *_OWN)
_RUNS = rate("gaia_operations_total", *_OWN)
_SLOTS = rate("gaia_operation_seconds_sum", *_OWN)


def _each(cost: str) -> str:
    return share(total(cost, "operation"), total(_RUNS, "operation"))


_NOW: list[Builder] = [
    figure("CPU", "Cores that the threads of calls use in the workers.", "short", total(_CPU)),
    figure("CPU a run", "CPU time of a run, on average.", "s", share(total(_CPU), total(_RUNS))),
    figure("Received", "Bytes of messages and of large arguments each second.", "Bps", total(_RECEIVED)),
    figure("Sent", "Bytes of results each second.", "Bps", total(_SENT)),
    figure("Slots", "Slots that runs take up, on average over the interval.", "short", total(_SLOTS)),
    figure(
        "CPU of a slot",
        "Share of the time of a run in which its thread computes; the rest waits, or other processes work.",
        "percentunit",
        share(total(_CPU), total(_SLOTS)),
    ),
]

_OPERATIONS: list[Builder] = [
    graph(
        "CPU by operation",
        "Cores that the threads of calls use.",
        "short",
        Query(total(_CPU, "operation"), _NAMED),
        stacked=True,
    ),
    graph(
        "Slots by operation", "Slots that are taken.", "short", Query(total(_SLOTS, "operation"), _NAMED), stacked=True
    ),
    graph(
        "Wait by operation",
        "Seconds that calls have waited when they start, each second: how many stand in line, on average.",
        "short",
        Query(total(rate("gaia_queue_wait_seconds_sum", *_OWN), "operation"), _NAMED),
        stacked=True,
    ),
    graph(
        "Received by operation",
        "Bytes of messages and large arguments each second.",
        "Bps",
        Query(total(_RECEIVED, "operation"), _NAMED),
        stacked=True,
    ),
    graph(
        "Sent by operation",
        "Bytes of results each second.",
        "Bps",
        Query(total(_SENT, "operation"), _NAMED),
        stacked=True,
    ),
    bars(
        "Most CPU",
        "CPU seconds within the time that is shown, the ten operations that used most.",
        "s",
        f"topk(10, {total(increase('gaia_operation_cpu_seconds_total', *_OWN), 'operation')})",
        _NAMED,
    ),
]

_RUN: list[Builder] = [
    bars("CPU of one run", "CPU time of a run, on average.", "s", _each(_CPU), _NAMED),
    bars("Received for one run", "Bytes of its message and its large arguments.", "bytes", _each(_RECEIVED), _NAMED),
    bars("Sent by one run", "Bytes of its result.", "bytes", _each(_SENT), _NAMED),
]

BOARD = Board(
    "gaia-cost",
    "Gaia / Cost",
    "What each operation costs. docs/monitoring.md says what counts: not the CPU of programs and of Chromium.",
    (Row("Now", _NOW), Row("By operation", _OPERATIONS), Row("A run", _RUN)),
    choices=(WORKERS, Choice("operation", "gaia_operations_total", "Operation")),
)
