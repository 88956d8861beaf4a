"""The process subsystem: programs, and the trees of processes below them."""

from config.grafana.calls import body, choice, head
from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, mean, or_zero, quantile, rate, series, share, total

_OF_PROGRAMS = 'queues=~"(.*,)?process(,.*)?"'
_ENDED = f"({total(rate('gaia_process_completed_total', WORKER))} + {total(rate('gaia_process_failed_total', WORKER))})"

_PROGRAMS: list[Builder] = [
    figure(
        "Programs running", "Programs that run now.", "short", total(series("gaia_process_active", WORKER)), width=6
    ),
    figure(
        "Ended otherwise",
        "Share of the programs that end otherwise than with exit code 0.",
        "percentunit",
        share(total(rate("gaia_process_failed_total", WORKER)), _ENDED),
        steps=((0.2, "orange"),),
        width=6,
    ),
    figure(
        "Memory",
        "Memory of the trees of all programs.",
        "bytes",
        total(series("gaia_process_memory_bytes", WORKER)),
        width=6,
    ),
    figure(
        "CPU a program",
        "CPU seconds of a program, on average of those that ended.",
        "s",
        share(total(rate("gaia_process_cpu_seconds_total", WORKER)), _ENDED),
        width=6,
    ),
    graph(
        "Started and ended",
        "Programs each second. Refused ones were not started: not allowed, or no room.",
        "ops",
        Query(total(rate("gaia_process_started_total", WORKER)), "started"),
        Query(total(rate("gaia_process_completed_total", WORKER)), "completed"),
        Query(total(rate("gaia_process_failed_total", WORKER)), "failed"),
        Query(total(rate("gaia_process_refused_total", WORKER)), "refused"),
    ),
    bars(
        "Ends by reason",
        "Why programs ended within the time that is shown: by themselves, or stopped for a limit.",
        "short",
        total(increase("gaia_process_ended_total", WORKER), "reason"),
        "{{reason}}",
    ),
    graph(
        "Stopped for a limit",
        "Programs each second that were stopped for time, memory, CPU, number of processes or output.",
        "ops",
        Query(
            or_zero(
                total(
                    rate("gaia_process_ended_total", WORKER, 'reason=~"timeout|memory|cpu|processes|output"'), "reason"
                )
            ),
            "{{reason}}",
        ),
        stacked=True,
    ),
]

_TREES: list[Builder] = [
    graph(
        "Peak memory of a program",
        "Quantiles of the most memory that the tree of a program had.",
        "bytes",
        *(
            Query(quantile(each, "gaia_process_peak_memory_bytes", WORKER), name)
            for each, name in ((0.5, "p50"), (0.95, "p95"))
        ),
        Query(mean("gaia_process_peak_memory_bytes", WORKER), "mean"),
    ),
    graph(
        "CPU of programs",
        "Cores that programs used; they count when they end.",
        "short",
        Query(total(rate("gaia_process_cpu_seconds_total", WORKER), "worker"), "{{worker}}"),
        stacked=True,
    ),
    graph(
        "Output",
        "Bytes that programs wrote, each second; they count when the program ends.",
        "Bps",
        Query(total(rate("gaia_process_output_bytes_total", WORKER), "worker"), "{{worker}}"),
    ),
    graph(
        "Processes below the workers",
        "Launcher, keepers, programs, and what these started.",
        "short",
        Query(series("gaia_descendants", WORKER, _OF_PROGRAMS), "{{worker}}"),
        width=12,
    ),
    graph(
        "Their resident memory",
        "Added up by worker; pages that several share count for each.",
        "bytes",
        Query(series("gaia_descendants_resident_bytes", WORKER, _OF_PROGRAMS), "{{worker}}"),
        steps=((4e9, "red"),),
        width=12,
    ),
]

BOARD = Board(
    "gaia-process",
    "Gaia / Process",
    "Programs: how they go, why they end, what their trees use.",
    (head("process", 30), body("process"), Row("Programs", _PROGRAMS), Row("Trees", _TREES)),
    choices=(WORKERS, choice("process")),
)
