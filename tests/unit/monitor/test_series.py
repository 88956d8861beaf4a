"""Text that is kept ready is what prometheus_client would have written."""

import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import tasks.metrics  # noqa: F401 - for its effect: no series that tells when another was made
from tasks.monitor import series
from tasks.monitor.series import OTHER, Book


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


AWKWARD = ["plain", 'with "quotes"', "with \\ and\nnewline", "ünï", "100 %d %s %%", ""]


def test_it_reads_as_what_prometheus_client_writes() -> None:
    book, registry = Book(), CollectorRegistry()
    ours: Any = (
        book.counter("a_total", 'A "text"\\.', "x", "y"),
        book.gauge("b", "B."),
        book.histogram("c", "C.", (0.1, 1.0), "x"),
    )
    theirs = (
        Counter("a", 'A "text"\\.', ["x", "y"], registry=registry),
        Gauge("b", "B.", registry=registry),
        Histogram("c", "C.", ["x"], buckets=(0.1, 1.0), registry=registry),
    )
    for round_ in range(2):
        for number, word in enumerate(AWKWARD):
            ours[0].of(word, "1").add(number)
            theirs[0].labels(word, "1").inc(number)
            for value in (0.1, 0.10001, 5.0, 0.0)[: number + round_]:
                ours[2].of(word).observe(value)
                theirs[2].labels(word).observe(value)
            if number + round_ == 0:
                theirs[2].labels(word)
                ours[2].of(word)
        ours[1].of().set(1.5 + round_)
        theirs[1].set(1.5 + round_)
        assert parsed(book.text()) == parsed(generate_latest(registry))


def test_of_a_family_without_series_nothing_is_said() -> None:
    book = Book()
    book.counter("a_total", "A.", "x")
    assert book.text() == b""


def test_values_of_a_label_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST_VALUES", 3)
    book = Book()
    family = book.counter("a_total", "A.", "x", "y")
    for number in range(10):
        family.of(str(number), "same").add()
    assert parsed(book.text())[("a_total", (("x", OTHER), ("y", "same")))] == 7
    assert len(parsed(book.text())) == 4


def test_what_is_kept_replaces_what_was() -> None:
    book = Book()
    family = book.gauge("a", "A.", "x")
    family.keep({("1",): 1, ("2",): 2})
    family.keep({("2",): 3})
    assert parsed(book.text()) == {("a", (("x", "2"),)): 3}


def test_what_is_dropped_is_gone_and_may_come_back() -> None:
    book = Book()
    family = book.counter("a_total", "A.", "worker", "x")
    family.of("w", "1").add(5)
    family.of("v", "1").add()
    family.drop("worker", {"w", "u"})
    family.drop("none", {"v"})
    assert parsed(book.text()) == {("a_total", (("worker", "v"), ("x", "1"))): 1}
    family.of("w", "1").add()
    assert parsed(book.text())[("a_total", (("worker", "w"), ("x", "1")))] == 1


def test_what_has_gone_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST_VALUES", 2)
    book = Book()
    counted, kept = book.counter("a_total", "A.", "worker", "host"), book.gauge("b", "B.", "worker")
    for number in range(6):
        counted.of(f"w{number}", f"h{number}").add()
        counted.drop("worker", {f"w{number}"})
        kept.keep({(f"w{number}",): 1})
        assert list(parsed(book.text())) == [("b", (("worker", f"w{number}"),))]


def test_no_number_is_written_as_such() -> None:
    book = Book()
    book.gauge("a", "A.").of().set(math.nan)
    assert math.isnan(parsed(book.text())[("a", ())])


@pytest.mark.parametrize("value", [0.0, 1e20, 0.1, -3.0, math.inf, -math.inf, 123456789.25])
def test_a_number_is_read_as_what_it_was(value: float) -> None:
    book = Book()
    book.gauge("a", "A.").of().set(value)
    assert parsed(book.text())[("a", ())] == value
