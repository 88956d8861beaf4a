"""The thread that keeps up what a process holds: it renews the leases and sweeps for those of the dead.

From the beginning of the worker's end, when no loop takes turns any more, it sends the commits, too.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from tasks import metrics
from tasks.broker.keeper import Keeper

if TYPE_CHECKING:
    from tasks.broker.holder import Holder

SWEEP_S: Final = 1.0
RENEW_EVERY: Final = 2
"""Sweeps from one renewal to the next: a third of a lease."""

LEAVING_S: Final = 0.05
"""How often the commits are sent while the worker ends."""

log = logging.getLogger(__name__)


class Upkeep:
    """The thread of one holder, over its keeper."""

    def __init__(self, holder: "Holder", keeper: Keeper, pause_s: float) -> None:
        """Sweep every `pause_s` seconds, once started."""
        self.keeper = keeper
        self._holder = holder
        self._pause_s = pause_s
        self._wakes = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="gaia-lease", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self) -> None:
        """Have the thread notice that something is to be given back, or that the worker begins to end."""
        self._wakes.set()

    def close(self) -> None:
        """End the thread, send the last commits and give back what is held, to be fetched next."""
        self._ended.set()
        self._wakes.set()
        self._thread.join(timeout=10)
        try:
            self._send_commits()
            self._holder.give_back(self._holder.held(), "next")
            self._return()
        except (RedisError, OSError) as failure:
            log.warning(
                "the broker is away or refuses (%s): what was held comes back when its leases lapse",
                type(failure).__name__,
            )
        finally:
            self.keeper.close()

    def _live(self) -> None:
        sweeps, due_at, is_refused = RENEW_EVERY, time.monotonic() + self._pause_s, False
        while True:
            rest_s = max(0.0, due_at - time.monotonic())
            # What was refused is not tried again before the next sweep, unless there is more to send.
            is_hurried = self._holder.is_leaving and not is_refused
            self._wakes.wait(min(rest_s, LEAVING_S) if is_hurried else rest_s)
            self._wakes.clear()
            if self._ended.is_set():
                return
            is_due = time.monotonic() >= due_at
            if is_due:
                sweeps, due_at = sweeps - 1, time.monotonic() + self._pause_s
                # First: a server that hangs has all that follows wait. One that failed is due again at once.
                if sweeps <= 0 and self._try(self._renew):
                    sweeps = RENEW_EVERY
            is_refused = not self._try(self._return)
            if self._holder.is_leaving:
                is_refused = not self._try(self._send_commits) or is_refused
            if is_due:
                self._try(self._sweep)

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (RedisError, OSError) as failure:
            metrics.BROKER_FAILURES.labels("upkeep").inc()
            log.warning("what is held could not be kept up: %s", type(failure).__name__)
        except Exception:
            # A thread that ended here would cost every lease of the process.
            log.exception("the thread of the leases failed")
        else:
            return True
        return False

    def _send_commits(self) -> None:
        while commits := self._holder.take_commits():
            try:
                refused = self.keeper.commit(commits, self._holder.fence())
            except BaseException:
                self._holder.put_back(commits)
                raise
            self._holder.arrived(commits)
            warn_of(refused)

    def _return(self) -> None:
        returning = self._holder.returning()
        for where in ("next", "last"):
            given = {tag: each for tag, each in returning.items() if each.where == where}
            if given:
                count = self.keeper.give_back([(tag, each.fence) for tag, each in given.items()], where)
                self._holder.returned(given)
                metrics.GIVEN_BACK.inc(count)
                log.info("%d calls went back to their queues, to be fetched %s", count, where)

    def _sweep(self) -> None:
        restored = self.keeper.sweep(self._holder.suspect_from)
        if restored:
            metrics.RESTORED.inc(restored)
            log.warning("%d messages of workers that died were given back to their queues", restored)

    def _renew(self) -> None:
        began_at, due = time.monotonic(), self._holder.due()
        if due:
            lost = self.keeper.renew(due)
            metrics.LEASES_RENEWED.inc(len(due) - len(lost))
            for tag, fence in lost:
                self._holder.lose(tag, fence)
            self._holder.renewed_at = began_at


def warn_of(refused: int) -> None:
    """Log commits that the server refused."""
    if refused:
        metrics.REFUSED.inc(refused)
        log.warning("%d results were refused: their leases had lapsed, others run those calls", refused)
