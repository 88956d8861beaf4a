"""A steady load: scenes of every queue, one after the other, at a constant rate of calls."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from gaia import Gaia
from gaia.contracts.base import Call
from gaia.errors import GaiaError
from gaia.pending import Pending
from tests.support.waiting import until

R = TypeVar("R")
Scene = Callable[["Ask"], None]

BOUND_S = 60.0
"""For any call of a scene; they take tenths of a second."""

LEAVING_S = 10.0
"""For all scenes that are under way when a failure ends the load; a cluster that has gone answers none of them."""

SHOWN = 20


class Ask:
    """What scenes ask the cluster with: it waits for its turn, and counts."""

    def __init__(self, gaia: Gaia, queue: str, rate_per_s: float) -> None:
        self.gaia = gaia
        self.queue = queue
        self.calls = 0
        self.stopping = threading.Event()
        self.hurried = False
        self._pause_s = 1 / rate_per_s
        self._next = 0.0
        self._lock = threading.Lock()
        self._number = 0

    def number(self) -> int:
        """Give a number that nobody was given before."""
        with self._lock:
            self._number += 1
            return self._number

    def submit(self, call: Call[R], **options: Any) -> Pending[R]:
        """Queue a call when its turn has come."""
        with self._lock:
            now = time.monotonic()
            # Who is late does not hurry to catch up: the load is to be even.
            turn = max(self._next, now)
            self._next = turn + (0.0 if self.hurried else self._pause_s)
        self.stopping.wait(turn - now)
        pending = self.gaia.submit(call, **{"deadline": BOUND_S, **options})
        with self._lock:
            self.calls += 1
        return pending

    def result(self, call: Call[R], **options: Any) -> R:
        return self.submit(call, **options).get(BOUND_S)

    def ends_in(self, kinds: type[GaiaError] | tuple[type[GaiaError], ...], call: Call[Any], **options: Any) -> None:
        """Have it end in one of these errors."""
        self.fails(kinds, self.submit(call, **options))

    def fails(self, kinds: type[GaiaError] | tuple[type[GaiaError], ...], pending: Pending[Any]) -> None:
        try:
            found = pending.get(BOUND_S)
        except kinds:
            return
        raise AssertionError(f"no error, but {found}")


class Load:
    """The scenes of each queue, in threads of their own, from `with` to its end or `pause`."""

    def __init__(
        self, gaia: Gaia, decks: Mapping[str, Sequence[Scene]], rates_per_s: Mapping[str, float], at_once: int
    ) -> None:
        self._asks = {queue: Ask(gaia, queue, rates_per_s[queue]) for queue in decks}
        self._decks: dict[str, tuple[Iterator[Scene], Sequence[Scene]]] = {}
        self.choose(decks)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # One browser scene at a time: the one that kills the browsers would fail the others.
        self._at_once = dict.fromkeys(decks, at_once) | {"browser": 1}
        self.played: Counter[str] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        ends_at = time.monotonic() + LEAVING_S
        for each in self._threads:
            each.join(max(0.0, ends_at - time.monotonic()))

    @property
    def calls(self) -> dict[str, int]:
        """Give how many calls each queue was given."""
        return {queue: ask.calls for queue, ask in self._asks.items()}

    @property
    def decks(self) -> dict[str, Sequence[Scene]]:
        return {queue: scenes for queue, (_, scenes) in self._decks.items()}

    def choose(self, decks: Mapping[str, Sequence[Scene]]) -> None:
        """Play these scenes alone, from the next start on."""
        self._decks = {queue: _endless(deck) for queue, deck in decks.items()}

    def start(self, *, hurried: bool = False) -> None:
        """Begin, or go on after a pause; in a hurry with thrice as many scenes at once, as fast as they go."""
        for queue in self._decks:
            ask = self._asks[queue]
            ask.hurried = hurried
            ask.stopping.clear()
            many = self._at_once[queue] if queue == "browser" else self._at_once[queue] * (3 if hurried else 1)
            for number in range(many):
                name = f"soak-{queue}-{number}"
                thread = threading.Thread(target=self._play, args=(queue, ask), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def pause(self, within_s: float) -> None:
        """Let every scene come to its end, and begin none; fail if one does not."""
        self._stop()
        until(lambda: not any(each.is_alive() for each in self._threads), within_s, what="the end of every scene")
        self._threads.clear()

    def _stop(self) -> None:
        for ask in self._asks.values():
            ask.stopping.set()

    def rounds(self) -> dict[str, int]:
        """Give how often each queue's scenes were played: of each the one that was played least."""
        return {
            queue: min(self.played[f"{queue} {each.__name__}"] for each in scenes)
            for queue, scenes in self.decks.items()
        }

    def _play(self, queue: str, ask: Ask) -> None:
        drawn, _ = self._decks[queue]
        while not ask.stopping.is_set():
            with self._lock:
                scene = next(drawn)
            name = f"{queue} {scene.__name__}"
            try:
                scene(ask)
            except Exception as failure:  # noqa: BLE001 - whatever it is, it is shown
                with self._lock:
                    if len(self.failures) < SHOWN:
                        self.failures.append(f"{name}: {type(failure).__name__}: {failure}")
            with self._lock:
                self.played[name] += 1


def _endless(deck: Sequence[Scene]) -> tuple[Iterator[Scene], Sequence[Scene]]:
    """Give the scenes over and over, in a new order each time, and the scenes."""

    def draw() -> Iterator[Scene]:
        while True:
            yield from random.sample(deck, len(deck))

    return draw(), deck
