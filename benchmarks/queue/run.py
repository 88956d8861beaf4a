"""Measure the queue beside its peers: `.venv/bin/python benchmarks/queue/run.py`, see benchmarks/README.md."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import environment
import report
from contenders import CONTENDERS, Contender
from measure import Bench, Figures, MeasurementError

THROUGHPUT = ("empty", "incr", "result", "events")
ROWS = (*THROUGHPUT, "submit", "submit_many", "latency", "idle", "recovery")
SUBMITS = 5_000
MANY_SUBMITS = 50_000
SAMPLES = 300


def main() -> None:
    """Run what the command line asks for, print the tables and write the JSON."""
    options = _options()
    environment.venvs("", "-redis5")
    samples: report.Samples = {}
    logs = Path(tempfile.mkdtemp(prefix="gaia-bench-"))
    failed = False
    with environment.server(logs) as url:
        bench = Bench(url, logs)
        for number, (row, contender, measure) in enumerate(_plan(bench, options), 1):
            print(f"{number:3d}  {row:12} {contender.name} ...", end=" ", flush=True)
            try:
                found = measure()
            except MeasurementError as failure:
                failed = True
                print(f"FAILED: {failure}", flush=True)
                continue
            samples.setdefault(row, {}).setdefault(contender.name, []).append(found)
            print(report.line(found), flush=True)
    print(report.tables(samples))
    if options.json:
        document = {"machine": environment.machine(), "versions": environment.versions(), "rows": samples}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"some runs failed; their logs are in {logs}")
    shutil.rmtree(logs)


def _plan(bench: Bench, options: argparse.Namespace) -> Iterator[tuple[str, Contender, Callable[[], Figures]]]:
    """Give the measurements in their order: contenders alternate within a round, so that all see the same machine."""
    for _ in range(options.rounds):
        for row in options.rows:
            for contender in CONTENDERS:
                named = not options.only or any(each.lower() in contender.name.lower() for each in options.only)
                measure = _measurement(bench, contender, row, options)
                if named and measure is not None:
                    yield row, contender, measure


def _measurement(
    bench: Bench, contender: Contender, row: str, options: argparse.Namespace
) -> Callable[[], Figures] | None:
    """Give the measurement of a row, None where it does not apply."""
    many = 10 if options.short else 1
    celery_like = contender.script in {"with_celery", "with_gaia"}
    gaia = contender.script == "with_gaia"
    found: dict[str, tuple[bool, Callable[[], Figures]]] = {
        "events": (celery_like, lambda: bench.throughput(contender, "events", options.tasks, options.warm_up)),
        "submit": (not contender.environ, lambda: bench.submitting(contender, "empty", SUBMITS // many)),
        "submit_many": (gaia, lambda: bench.submitting(contender, "submit_many", MANY_SUBMITS // many)),
        "latency": (True, lambda: bench.latency(contender, SAMPLES // many)),
        "idle": (True, lambda: bench.idle(contender)),
        "recovery": (gaia, lambda: bench.recovery(contender)),
    }
    applies, measure = found.get(row, (True, lambda: bench.throughput(contender, row, options.tasks, options.warm_up)))
    return measure if applies else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the queue beside its peers.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (default 3)")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of a throughput row (default 20000)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose name contains one of these")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--short", action="store_true", help="one round of a tenth: shows that it works, no figures")
    parser.add_argument("--json", type=Path, help="write every sample there")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.tasks = 1, min(options.tasks, 2_000)
    options.warm_up = max(options.tasks // 10, 100)
    return options


if __name__ == "__main__":
    main()
