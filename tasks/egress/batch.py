"""Names that one thread asks for at once, and what became of each."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from gaia.errors import ResolverFailed
from tasks.egress.bulk import Outcome
from tasks.egress.cache import Kept, Key
from tasks.egress.flight import Flight
from tasks.egress.wire import Found
from tasks.scope import CancelToken

CANCEL_LOOK_S: Final = 0.1
"""A cancel is seen after so long while another thread's flight is waited for."""

Land = Callable[[Key, Flight, Outcome | BaseException, int], Kept | None]


class Batch:
    """Filled by the threads of a `Bulk`, waited for by one caller."""

    def __init__(self, flights: Mapping[Key, Flight], land: Land, generation: int) -> None:
        """Take the flights that are ours to fly."""
        self._flights = flights
        self._land = land
        self._generation = generation
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.became: dict[Key, Kept | ResolverFailed] = {}
        self.fresh: dict[Key, tuple[Found, float]] = {}
        """What servers said, and when by monotonic time."""
        self._left = len(flights)
        if not flights:
            self._over.set()

    def landed(self, key: Key, outcome: Outcome | BaseException) -> None:
        """End a flight."""
        kept = self._land(key, self._flights[key], outcome, self._generation)
        with self._lock:
            self._left -= 1
            if kept is not None:
                self.became[key] = kept
            elif isinstance(outcome, ResolverFailed):
                self.became[key] = outcome
            if not self._left:
                self._over.set()

    def answered(self, key: Key, outcome: Outcome) -> None:
        """End a flight by what servers said, which may be shared."""
        if isinstance(outcome, Found):
            self.fresh[key] = outcome, time.monotonic()
        self.landed(key, outcome)

    def wait(self, others: Mapping[Key, Flight], ends_at: float, cancelled: CancelToken) -> None:
        """Wait for ours and for those that other threads fly, until then at most, or until the call is cancelled."""
        with cancelled.calling(self._over.set):
            self._over.wait(max(0.0, ends_at - time.monotonic()))
            for key, flight in others.items():
                found = _landed(key, flight, ends_at, cancelled)
                if found is not None:
                    with self._lock:
                        self.became[key] = found

    def so_far(self, max_ttl_s: float) -> tuple[dict[Key, Kept | ResolverFailed], dict[Key, Found]]:
        """Give what became of each by now, and what servers said, with what is left of its time, at most of that."""
        with self._lock:
            became, fresh = dict(self.became), dict(self.fresh)
        now = time.monotonic()
        left = {
            key: Found(found.records, min(found.ttl_s, max_ttl_s) - (now - at)) for key, (found, at) in fresh.items()
        }
        return became, left


def _landed(key: Key, flight: Flight, ends_at: float, cancelled: CancelToken) -> Kept | ResolverFailed | None:
    """Give what another thread's flight brought by then, None for nothing."""
    try:
        while not flight.wait(min(CANCEL_LOOK_S, max(0.0, ends_at - time.monotonic()))):
            if cancelled.is_set() or time.monotonic() >= ends_at:
                return None
        return flight.result(0.0)
    except TimeoutError:
        return None
    except ResolverFailed as failure:
        return failure
    except BaseException as failure:  # noqa: BLE001 - of another thread's call, not of ours
        return ResolverFailed(key[0], type(failure).__name__)
