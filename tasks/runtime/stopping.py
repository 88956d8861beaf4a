"""The end of a worker: drain, then stop what runs, then go, each within a bound.

On SIGTERM Celery stops fetching and waits for what runs, for ever. Here a thread bounds that:

    0                   the signal: running calls may end
    grace               every service is closed and every call's token set; what ends in an error from now on is
                        handed back to the queue, what ends in a result is stored
    grace + 5 s         the process exits, whatever still runs; its messages are restored to the queue by others
"""

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
    ended = threading.Event()

    def give_up() -> None:
        if not ended.wait(LAST_WORDS_S):
            log.error("calls or services are stuck: the process exits, its calls return when their leases lapse")
            os._exit(1)

    def drain() -> None:
        if ended.wait(grace_s):
            return
        log.warning("the grace time of %g s is over: stopping what runs", grace_s)
        # A thread of its own: to stop calls and to close services waits for what may be stuck.
        threading.Thread(target=give_up, name="gaia-give-up", daemon=True).start()
        running.stop()
        close_services()

    def on_stop(**_: Any) -> None:
        holder.stopping()
        threading.Thread(target=drain, name="gaia-drain", daemon=True).start()

    def on_end(**_: Any) -> None:
        # Only then is the end no more bounded: a service that cannot be closed must not hold the process.
        close_services()
        running.close()
        ended.set()

    signals.worker_shutting_down.connect(on_stop, weak=False)
    signals.worker_shutdown.connect(on_end, weak=False)
    signals.worker_process_shutdown.connect(on_end, weak=False)
