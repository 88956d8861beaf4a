"""The end of a worker: drain, then stop what runs, then go, each within a bound.

On a signal that asks for the end Celery stops fetching and waits for what runs, for ever. Here a thread bounds that:

    0                   the signal: running calls may end
    grace, or the       every service is closed and every call's token set; what ends in an error from now on is
    second signal       handed back to the queue, what ends in a result is stored
    5 s later           the process exits, whatever still runs; its messages are restored to the queue by others
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

from celery import signals
from celery.worker import state

from tasks.broker import holders
from tasks.delivery.running import Running

LAST_WORDS_S: Final = 5.0
"""For calls that were stopped to store what they have, and for acknowledgements to be sent."""

log = logging.getLogger(__name__)


def install(running: Running, close_services: Callable[[], None], grace_s: float) -> None:
    """Hook into the worker's life. Celery keeps the hooks; they act on this process only."""
    begun, hurried, ended = threading.Lock(), threading.Event(), threading.Event()
    hangup = signal.getsignal(signal.SIGHUP)
    stopped_at: list[float] = []

    def give_up() -> None:
        if not ended.wait(LAST_WORDS_S):
            log.error("calls or services are stuck: the process exits, its calls return when their leases lapse")
            os._exit(1)

    def drain() -> None:
        hurried.wait(grace_s)
        if ended.is_set():
            return
        log.warning("the grace time of %g s is over, or cut short: stopping what runs", grace_s)
        # A thread of its own: to stop calls and to close services waits for what may be stuck.
        threading.Thread(target=give_up, name="gaia-give-up", daemon=True).start()
        running.stop()
        close_services()

    def on_stop(**_: Any) -> None:
        if not begun.acquire(blocking=False):
            return
        stopped_at.append(time.monotonic())
        holders.leave()
        threading.Thread(target=drain, name="gaia-drain", daemon=True).start()

    def on_end(**_: Any) -> None:
        # Only behind all of it is the end no more bounded: a service that cannot be closed must not hold the process.
        holders.close(max(0.0, grace_s - (time.monotonic() - stopped_at[0])) if stopped_at else 0.0)
        close_services()
        running.close()
        ended.set()
        hurried.set()

    signals.worker_ready.connect(lambda sender, **_: _take_signals(sender.hostname, hangup, hurried.set), weak=False)
    signals.worker_shutting_down.connect(on_stop, weak=False)
    signals.worker_shutdown.connect(on_end, weak=False)
    signals.worker_process_shutdown.connect(on_end, weak=False)


_IMPATIENT: Final = {signal.SIGINT, signal.SIGQUIT}
"""A second signal that cuts the grace short; supervisors repeat SIGTERM out of habit."""

_asked: Final[list[int]] = []


def was_asked() -> bool:
    """Say whether a signal has asked this process for its end, even if nobody has heard of it yet."""
    return bool(_asked)


def _take_signals(hostname: str, hangup: Any, hurry: Callable[[], None]) -> None:
    """End alike at SIGTERM, SIGINT, SIGQUIT and SIGHUP; a hangup ignored from the start, as by nohup(1), stays ignored.

    Celery has other ends for some. One terminates what runs, which its pool of threads cannot, and then waits for
    ever; at SIGHUP it starts the worker anew without a bound on what runs, or, in a terminal, drops all of that.

    A handler interrupts the main thread anywhere, inside a lock too, or inside itself, and would wait for that lock for
    ever. So it takes none, and a thread does what Celery's handler does.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # a worker inside another program, whose signals are its own
    # Its `put` is reentrant: it was made for handlers.
    heard: SimpleQueue[int] = SimpleQueue()

    def take(signum: int, _: FrameType | None) -> None:
        _asked.append(signum)
        heard.put(signum)

    def obey() -> None:
        name = signal.Signals(heard.get()).name
        log.info("%s: the worker takes nothing more, and ends", name)
        signals.worker_shutting_down.send(sender=hostname, sig=name, how="Warm", exitcode=0)
        state.should_stop = 0
        while signal.Signals(heard.get()) not in _IMPATIENT:
            pass
        hurry()

    threading.Thread(target=obey, name="gaia-signals", daemon=True).start()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        ignored = signum == signal.SIGHUP and hangup is signal.SIG_IGN
        signal.signal(signum, signal.SIG_IGN if ignored else take)
