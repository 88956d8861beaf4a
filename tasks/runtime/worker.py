"""One worker process in the foreground: Celery's worker, without its command line."""

import os
import socket
import warnings
from collections.abc import Sequence
from typing import Final

from celery import Celery
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.platforms import SecurityWarning

from tasks.broker import holders
from tasks.runtime.memory import MemoryBound, reexecute_if_due
from tasks.runtime.pool import Pool

CONCURRENCY: Final = {"process": 208, "browser": 4}
UNHURRIED: Final = frozenset({"browser", "process"})
DEFAULT_CONCURRENCY: Final = 10
"""Threads of a worker whose queues have no number above; of several queues the largest counts."""


def node_name(queues: Sequence[str], name: str | None) -> str:
    """Give the worker's node name; without a name of its own it holds the pid, so that two workers never share one."""
    own = name or f"{'-'.join(queues)}-{os.getpid()}"
    return f"{own}@{socket.gethostname()}"


def concurrency(queues: Sequence[str], setting: int | None) -> int:
    """Give the number of calls at once."""
    return setting or max(CONCURRENCY.get(each, DEFAULT_CONCURRENCY) for each in queues)


def run(
    app: Celery,
    queues: Sequence[str],
    *,
    calls_at_once: int,
    name: str,
    log_level: str,
    memory_bytes: int | None = None,
    grace_s: float = 0.0,
) -> int | str:
    """Work until a signal ends it; give the exit code, or why the worker could not start, as `sys.exit` takes them.

    Past `memory_bytes` the process drains, within `grace_s`, and executes itself anew: then this does not return.

    Raises:
        SettingsError: if the worker has more memory than that already.
    """
    # Celery warns of root whatever it may be sent; here it is JSON alone. What pages and programs may do as root is
    # bounded where they are started.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # A call of a browser or a program is long: it waits on the queue, where another worker may take it.
    ahead = not UNHURRIED & set(queues)
    app.conf.worker_prefetch_multiplier = 2 if ahead else 1
    holders.configure(slots=calls_at_once)
    worker = app.Worker(
        quiet=True,
        hostname=name,
        queues=list(queues),
        concurrency=calls_at_once,
        pool=Pool,
        loglevel=log_level,
        without_gossip=True,
        without_mingle=True,
        send_events=app.conf.worker_send_task_events,
    )
    bound = None if memory_bytes is None else MemoryBound(worker, memory_bytes, grace_s)
    if bound is not None:
        bound.install()
    try:
        worker.start()
    except (WorkerShutdown, WorkerTerminate) as end:
        return end.code or 0
    if bound is not None and bound.due and not worker.exitcode:
        reexecute_if_due(bound)
    code: int | str | None = worker.exitcode
    return code or 0
