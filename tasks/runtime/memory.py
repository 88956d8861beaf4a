"""The memory bound of a worker: past it, the process is renewed in place.

    watching -> retiring -> draining -> re-executed

Retiring, it takes nothing from the shared queues, while things it holds may reach their end, within the grace. Draining
is the end of a worker as upon SIGTERM, with a grace of its own. Re-executed, it is the same process with the same name,
arguments and environment, and a new boot. A signal that ends the worker meanwhile wins.
"""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import psutil
from celery import signals
from celery.worker import state

from config.settings import SettingsError
from gaia.store import keys
from tasks import metrics
from tasks.runtime import identity, stopping

SAMPLE_S: Final = 5.0
HELD_POLL_S: Final = 0.2
DESCRIPTORS: Final = Path("/dev/fd")
"""This process's open descriptors, on Linux and macOS."""

APART_S: Final = 60.0
"""Between two renewals: a worker that needs more than its bound shall do some work in between, and say so."""

RENEWED_AT: Final = "_GAIA_RENEWED_AT"
"""The variable that tells the new process image when it was renewed, in the monotonic time of this machine."""

RENEWALS: Final = "_GAIA_RENEWALS"
"""The variable that carries the count of renewals on."""

RENEWAL: Final = "renewal"
"""In place of a signal's name, where Celery tells why a worker stops."""

log = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Give the resident set of this process."""
    return int(psutil.Process().memory_info().rss)


class MemoryBound:
    """Watches one worker; `due` says whether the process is to be renewed when the worker has ended."""

    def __init__(
        self,
        worker: Any,
        limit_bytes: int,
        grace_s: float,
        *,
        used_bytes: Callable[[], int] = resident_bytes,
        sample_s: float = SAMPLE_S,
    ) -> None:
        """Watch Celery's `worker` from its readiness on.

        Raises:
            SettingsError: if the bound is passed already: the worker would be renewed for ever.
        """
        used = used_bytes()
        if used >= limit_bytes:
            raise SettingsError(
                f"GAIA_WORKER__MEMORY_BYTES: {limit_bytes} is less than the {used} of a worker before its first call"
            )
        self._worker = worker
        self._limit_bytes = limit_bytes
        self._grace_s = grace_s
        self._used_bytes = used_bytes
        self._sample_s = sample_s
        self._stopping = threading.Event()
        renewed_at = os.environ.pop(RENEWED_AT, None)
        self._not_before = -math.inf if renewed_at is None else float(renewed_at) + APART_S
        metrics.RENEWALS.inc(int(os.environ.get(RENEWALS, "0")))
        self.due = False

    def install(self) -> None:
        """Hook into the worker's life."""
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_stop, weak=False)

    def _on_ready(self, **_: Any) -> None:
        threading.Thread(target=self._watch, name="gaia-memory", daemon=True).start()

    def _on_stop(self, sig: str, **_: Any) -> None:
        if sig != RENEWAL:
            self.due = False
        self._stopping.set()

    def _watch(self) -> None:
        told = False
        while not self._stopping.wait(self._sample_s):
            used = self._used_bytes()
            if used <= self._limit_bytes:
                continue
            if time.monotonic() >= self._not_before:
                log.warning("%d bytes are resident, the bound is %d: the worker is renewed", used, self._limit_bytes)
                self._retire()
                return
            if not told:
                told = True
                log.error(
                    "%d bytes are resident again, soon after a renewal: GAIA_WORKER__MEMORY_BYTES, %d, may be less "
                    "than the work needs; the next renewal is a minute after the last",
                    used,
                    self._limit_bytes,
                )

    def _retire(self) -> None:
        self.due = True
        self._leave_shared_queues()
        gives_up_at = time.monotonic() + self._grace_s
        while identity.own().holds_any and time.monotonic() < gives_up_at and not self._stopping.wait(HELD_POLL_S):
            pass
        if not self._stopping.is_set():
            # What Celery's handler of SIGTERM does; a signal to ourselves could not be told from one of others.
            signals.worker_shutting_down.send(sender=self._worker.hostname, sig=RENEWAL, how="Warm", exitcode=0)
            state.should_stop = 0

    def _leave_shared_queues(self) -> None:
        """Consume the own queue alone; the loop does it, since channels belong to its thread."""
        consumer = self._worker.consumer
        own_queue = keys.own_queue(identity.own().node)
        shared = [name for name in self._worker.app.amqp.queues.consume_from if name != own_queue]

        def leave() -> None:
            for name in shared:
                consumer.cancel_task_queue(name)

        if consumer.hub is not None:
            consumer.hub.call_soon(leave)


def reexecute_if_due(bound: MemoryBound) -> None:
    """Execute this process anew if the bound asks for it; it returns if a signal has asked for the end instead.

    The worker's handlers would take a signal that comes now to nobody. One that is pending reaches them in the loop; a
    later one ends the process.
    """
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    if bound.due and not stopping.was_asked():
        reexecute()


def reexecute() -> NoReturn:
    """Become a new process image with the same arguments and environment; nothing but 0, 1 and 2 stays open."""
    os.environ[RENEWED_AT] = str(time.monotonic())
    os.environ[RENEWALS] = str(int(os.environ.get(RENEWALS, "0")) + 1)
    for descriptor in (int(each.name) for each in DESCRIPTORS.iterdir()):
        if descriptor > 2:  # noqa: PLR2004 - standard input, output and error
            with suppress(OSError):
                os.set_inheritable(descriptor, False)  # noqa: FBT003 - its signature
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter by its full path: it finds its environment by that.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves, without a shell
