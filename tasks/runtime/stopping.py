"""The end of a worker: drain, then stop what runs, then go, each within a bound.

On SIGTERM Celery stops fetching and waits for what runs, for ever. Here a thread bounds that:

    0                   the signal: running calls may end
    grace, or the       every service is closed and every call's token set; what ends in an error from now on is
    second signal       handed back to the queue, what ends in a result is stored
    5 s later           the process exits, whatever still runs; its messages are restored to the queue by others
"""

import atexit
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from celery import signals

from tasks.broker import holder
from tasks.delivery.running import Running

LAST_WORDS_S: Final = 5.0
"""For calls that were stopped to store what they have, and for acknowledgements to be sent."""

log = logging.getLogger(__name__)


def install(running: Running, close_services: Callable[[], None], grace_s: float) -> None:
    """Hook into the worker's life. Celery keeps the hooks; they act on this process only."""
    ended, hurried = threading.Event(), threading.Event()
    drains: list[threading.Thread] = []

    def drain() -> None:
        hurried.wait(grace_s)
        if ended.is_set():
            return
        log.warning("the grace time of %g s is over, or cut short: stopping what runs", grace_s)
        running.stop()
        close_services()
        if not ended.wait(LAST_WORDS_S):
            log.error("calls are stuck; their messages go back to the queue when their leases lapse")
            os._exit(1)

    def on_stop(how: str = "", **_: Any) -> None:
        holder.leave()
        if how == "Cold":
            # SIGQUIT, or the second Ctrl-C.
            hurried.set()
        if not drains:
            drains.append(threading.Thread(target=drain, name="gaia-drain", daemon=True))
            drains[0].start()
            # Celery tells of no end after a cold one. By then the threads of the pool have ended.
            atexit.register(on_end)

    def on_end(**_: Any) -> None:
        ended.set()
        hurried.set()
        close_services()
        holder.close()
        running.close()

    signals.worker_shutting_down.connect(on_stop, weak=False)
    signals.worker_shutdown.connect(on_end, weak=False)
    signals.worker_process_shutdown.connect(on_end, weak=False)
