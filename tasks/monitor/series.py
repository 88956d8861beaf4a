"""Metrics as text that is kept ready: of a scrape only what has changed since the last one is written anew.

prometheus_client writes every line at every scrape, which takes a tenth of a second for fifty workers. Here each series
keeps its own lines. The text is Prometheus' format 0.0.4.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MOST_VALUES: Final = 1000
"""Values of one label that are told apart; whatever comes later is `OTHER`."""

OTHER: Final = "other"


class Figure:
    """A counter or gauge."""

    __slots__ = ("_head", "_text", "value")

    def __init__(self, name: str, labels: str) -> None:
        """Start at zero."""
        self._head = f"{name}{{{labels}}} " if labels else f"{name} "
        self._text = ""
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count."""
        self.value += amount
        self._text = ""

    def set(self, value: float) -> None:
        """Be so much from now on."""
        if value != self.value:
            self.value, self._text = value, ""

    def text(self) -> str:
        """Give its line."""
        if not self._text:
            self._text = f"{self._head}{_number(self.value)}\n"
        return self._text


class Spread:
    """A histogram."""

    __slots__ = ("_bounds", "_counts", "_form", "_text", "total")

    def __init__(self, name: str, labels: str, bounds: Sequence[float]) -> None:
        """Start at nothing; `bounds` are in order and without infinity."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        labels = labels.replace("%", "%%")
        inner = f"{labels}," if labels else ""
        own = f"{{{labels}}}" if labels else ""
        ends = [*map(str, map(float, bounds)), "+Inf"]
        buckets = "".join(f'{name}_bucket{{{inner}le="{each}"}} %d\n' for each in ends)
        self._form = f"{buckets}{name}_sum{own} %s\n{name}_count{own} %d\n"
        self._text = ""

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value
        self._text = ""

    def text(self) -> str:
        """Give its lines."""
        if not self._text:
            below = tuple(accumulate(self._counts))
            self._text = self._form % (*below, _number(self.total), below[-1])
        return self._text


S = TypeVar("S", Figure, Spread)


class Family(Generic[S]):
    """The series of one name."""

    def __init__(self, name: str, text: str, kind: str, labels: Sequence[str], make: Callable[[str], S]) -> None:
        """Start with none; a family without labels has its one series at once."""
        self.name, self.labels = name, tuple(labels)
        self._head = f"# HELP {name} {_escaped(text)}\n# TYPE {name} {kind}\n"
        self._make: Callable[[str], S] = make
        self._known: tuple[set[str], ...] = tuple(set() for _ in labels)
        self._series: dict[tuple[str, ...], S] = {}
        if not labels:
            self.of()

    def of(self, *values: str) -> S:
        """Give the series of these label values."""
        found = self._series.get(values)
        if found is None:
            kept = tuple(map(_admitted, self._known, values))
            found = self._series.get(kept)
            if found is None:
                pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(self.labels, kept, strict=True))
                found = self._series[kept] = self._make(",".join(pairs))
        return found

    def drop(self, label: str, gone: Collection[str]) -> None:
        """Forget the series in which a label has one of some values."""
        if label in self.labels:
            at = self.labels.index(label)
            self._series = {values: each for values, each in self._series.items() if values[at] not in gone}
            self._forget()

    def _forget(self) -> None:
        """Know only the values that series have: others make room for new ones."""
        self._known = tuple({values[at] for values in self._series} - {OTHER} for at in range(len(self.labels)))

    def text(self) -> str:
        """Give all of it; nothing if there is no series."""
        return "".join([self._head, *[each.text() for each in self._series.values()]]) if self._series else ""


class Figures(Family[Figure]):
    """The counters or gauges of one name."""

    def __init__(self, name: str, text: str, kind: str, labels: Sequence[str]) -> None:
        """Start with none, as `Family`."""
        super().__init__(name, text, kind, labels, lambda own: Figure(name, own))

    def keep(self, figures: Mapping[tuple[str, ...], float]) -> None:
        """Have exactly these series, of these values."""
        if gone := self._series.keys() - figures.keys():
            for values in gone:
                del self._series[values]
            self._forget()
        for values, figure in figures.items():
            self.of(*values).set(figure)


class Book:
    """All families of a process. Whoever changes a series or reads the text holds `lock`."""

    def __init__(self) -> None:
        """Start with none."""
        self.lock = threading.Lock()
        self.families: list[Figures | Family[Spread]] = []

    def counter(self, name: str, text: str, *labels: str) -> Figures:
        """Add a counter; `name` ends in `_total`."""
        return self._figures(name, text, "counter", labels)

    def gauge(self, name: str, text: str, *labels: str) -> Figures:
        """Add a gauge."""
        return self._figures(name, text, "gauge", labels)

    def histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> Family[Spread]:
        """Add a histogram."""
        found = Family(name, text, "histogram", labels, lambda own: Spread(name, own, bounds))
        self.families.append(found)
        return found

    def _figures(self, name: str, text: str, kind: str, labels: Sequence[str]) -> Figures:
        found = Figures(name, text, kind, labels)
        self.families.append(found)
        return found

    def text(self) -> bytes:
        """Give what Prometheus reads."""
        with self.lock:
            return "".join([each.text() for each in self.families]).encode()


def _admitted(known: set[str], value: str) -> str:
    if value not in known:
        if len(known) >= MOST_VALUES:
            return OTHER
        known.add(value)
    return value


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)  # noqa: PLR2004 - exact floats
