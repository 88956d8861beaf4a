"""The registry keeps Prometheus' rules of naming, and its series are bounded."""

import gc
import re
from importlib import import_module
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

import gaia.errors
from gaia import wire
from gaia.contracts.base import operations
from gaia.errors import GaiaError
from tasks import meters, metrics

for queue in wire.QUEUES:
    import_module(f"gaia.contracts.{queue}")

FOREIGN = ("process_", "python_")
"""Metrics of the process, named by prometheus_client."""

BUDGET_SERIES = 6000
"""Of a worker of one queue, if every operation of it ended in every error there is; most have some hundreds."""

SIZES = {
    "outcome": 16,
    "error": len(
        [each for each in vars(gaia.errors).values() if isinstance(each, type) and issubclass(each, GaiaError)]
    ),
    "limit": 3,
    "level": 5,
    "choice": 2,
    "state": 3,
    "answer": 3,
    "kind": 16,
    "step": 3,
    "event": 16,
    "reason": 16,
    "loop": 2,
    "generation": 3,
}
"""How many values a label has at most; of others, one a worker."""

FAMILIES = [family for family in metrics.REGISTRY.collect() if not family.name.startswith(FOREIGN)]


def labels_of(name: str) -> tuple[str, ...]:
    if name.startswith("gaia_operation") or name == "gaia_queue_wait_seconds":
        return ("operation", "outcome") if name == "gaia_operations" else ("operation",)
    for collector in metrics.REGISTRY._collector_to_names:
        if name in metrics.REGISTRY._collector_to_names[collector]:
            return tuple(getattr(collector, "_labelnames", None) or getattr(collector, "_labels", ()))
    raise AssertionError(name)


def series(family: Any, operations_: int) -> int:
    found = 1
    for label in labels_of(family.name):
        found *= operations_ if label == "operation" else SIZES.get(label, 1)
    buckets = {"gaia_queue_wait_seconds": meters.WAIT_BUCKETS}.get(family.name, meters.RUN_BUCKETS)
    return found * (len(buckets) + 3 if family.type == "histogram" else 1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda each: each.name)
def test_a_name_keeps_the_rules(family: Any) -> None:
    assert re.fullmatch(r"gaia_[a-z_]+", family.name)
    assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent|count|sum|bucket|total|s)$", family.name)
    assert family.documentation.endswith(".")
    if family.type == "histogram":
        assert family.name.endswith(("_seconds", "_bytes"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda each: each.name)
def test_a_label_is_of_the_vocabulary(family: Any) -> None:
    assert set(labels_of(family.name)) <= set(metrics.VOCABULARY)


@pytest.mark.parametrize("queue", wire.QUEUES)
def test_the_series_of_a_worker_keep_the_budget_whatever_happens(queue: str) -> None:
    assert sum(series(family, len(operations(queue))) for family in FAMILIES) <= BUDGET_SERIES


def test_the_exposition_is_read_by_prometheus_own_parser() -> None:
    found = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {"gaia_operations", "gaia_descendants", "process_resident_memory_bytes"} <= found
    assert not [name for name in found if name.endswith("_created")]


def test_a_worker_has_at_least_fifty() -> None:
    assert len(list(metrics.REGISTRY.collect())) >= 50


# --- readings


class Room:
    def __init__(self, figure: float) -> None:
        self.figure = figure

    def one(self) -> float:
        return self.figure

    def by_kind(self) -> dict[str, float]:
        return {"busy": self.figure, "idle": 1}


def value(name: str, /, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def test_a_reading_adds_up_its_sources_and_forgets_those_that_have_gone() -> None:
    figure = metrics.Readings("gaia_test_reading", "A test.")
    kinds = metrics.Readings("gaia_test_kinds", "A test.", label="kind", counts=True)
    try:
        assert value("gaia_test_reading") is None
        rooms = [Room(2), Room(3)]
        for each in rooms:
            figure.watch(each.one)
            kinds.watch(each.by_kind)
        assert value("gaia_test_reading") == 5
        assert value("gaia_test_kinds_total", kind="busy") == 5
        assert value("gaia_test_kinds_total", kind="idle") == 2
        del each
        rooms.pop()
        gc.collect()
        assert value("gaia_test_reading") == 2
    finally:
        for metric in (figure, kinds):
            metrics.REGISTRY.unregister(metric)


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.Readings("gaia_threads", "Again.")


def test_the_meters_of_an_operation_tell_its_runs() -> None:
    meters = metrics.meters("test.measured")
    for waited_s in (0.0, 0.005, 0.0051, 5000.0):
        meters.begin()
        meters.waited(waited_s)
    meters.end("ok", 0.02)
    meters.end("error", 7000.0)
    own = {"operation": "test.measured"}
    assert value("gaia_operations_running", **own) == 2
    assert value("gaia_operations_total", **own, outcome="ok") == 1
    assert [value("gaia_queue_wait_seconds_bucket", **own, le=le) for le in ("0.005", "0.01", "1800.0", "+Inf")] == [
        2,
        3,
        3,
        4,
    ]
    assert value("gaia_operation_seconds_bucket", **own, le="0.025") == 1
    assert value("gaia_operation_seconds_count", **own) == 2
    assert value("gaia_operation_seconds_sum", **own) == 7000.02


def test_the_meters_of_an_operation_tell_its_costs() -> None:
    meters = metrics.meters("test.costly")
    meters.begin(100)
    meters.moved(received_bytes=1000, sent_bytes=2000)
    meters.worked(0.5)
    meters.end("ok", 3.0, 0.25, 20)
    own = {"operation": "test.costly"}
    assert value("gaia_operation_cpu_seconds_total", **own) == 0.75
    assert value("gaia_operation_received_bytes_total", **own) == 1100
    assert value("gaia_operation_sent_bytes_total", **own) == 2020


def test_figures_by_label_are_read_alone() -> None:
    assert set(metrics.by_label(metrics.CIRCUITS, "state")) <= {"closed", "open", "half_open"}


@pytest.mark.parametrize("name", ["ERRORS", "RETRIES", "DEAD_LETTERS", "DUPLICATES", "LEASES_RENEWED"])
def test_what_the_delivery_promises_is_counted(name: str) -> None:
    assert isinstance(getattr(metrics, name), Counter | Gauge | Histogram)
