"""The files subsystem."""

from config.grafana.calls import body, choice, head
from config.grafana.panels import WORKERS, Board, Builder, Query, Row, figure, graph
from config.grafana.promql import WORKER, rate, series, share, total

_RUNS = total(rate("gaia_operations_total", WORKER, 'operation=~"files[.].+"'))
_READ = total(rate("gaia_files_read_bytes_total", WORKER))
_WRITTEN = total(rate("gaia_files_written_bytes_total", WORKER))

_BYTES: list[Builder] = [
    figure("Read", "Bytes read for callers each second.", "Bps", _READ, width=6),
    figure("Written", "Bytes written for callers each second.", "Bps", _WRITTEN, width=6),
    figure(
        "Bytes a run",
        "Bytes read and written for each run, of those that end.",
        "bytes",
        share(f"({_READ} + {_WRITTEN})", _RUNS),
        width=6,
    ),
    figure(
        "Gate in use",
        "Share of the operations that the gate lets through at once.",
        "percentunit",
        share(total(series("gaia_files_active", WORKER)), total(series("gaia_files_limit", WORKER))),
        steps=((0.7, "orange"), (0.9, "red")),
        width=6,
    ),
    graph(
        "Bytes",
        "Bytes each second, by worker.",
        "Bps",
        Query(total(rate("gaia_files_read_bytes_total", WORKER), "worker"), "{{worker}} read"),
        Query(total(rate("gaia_files_written_bytes_total", WORKER), "worker"), "{{worker}} written"),
    ),
    graph(
        "At the gate",
        "Operations past the gate, those that wait at it, and how many it lets through. Parts of batches count.",
        "short",
        Query(total(series("gaia_files_active", WORKER)), "active"),
        Query(total(series("gaia_files_waiting", WORKER)), "waiting"),
        Query(total(series("gaia_files_limit", WORKER)), "limit"),
    ),
    graph(
        "Most at once",
        "The most operations that were past the gate of a worker at once, since it began.",
        "short",
        Query(series("gaia_files_active_peak", WORKER), "{{worker}}"),
    ),
]

BOARD = Board(
    "gaia-files",
    "Gaia / Files",
    "Reading, writing, walking, parsing, packing: how it goes, and how many bytes move.",
    (head("files", 2.5), body("files"), Row("Bytes and the gate", _BYTES)),
    choices=(WORKERS, choice("files")),
)
