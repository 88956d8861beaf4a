"""A worker as a node of the cluster: its identity, its own queue, its heartbeat; hooked into Celery's signals."""

import logging
import os
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import redis
from celery import Celery, signals
from celery.worker import state
from kombu.entity import Exchange
from redis.exceptions import RedisError

from gaia.store import keys
from gaia.store.nodes import Node
from tasks import metrics
from tasks.runtime import identity, process
from tasks.runtime.aside import Aside
from tasks.runtime.heartbeat import Heartbeat, NameTaken
from tasks.runtime.orphans import Orphans
from tasks.runtime.setup import at_setup

DISTRIBUTION: Final = "gaia-workers"

log = logging.getLogger(__name__)


def install(
    app: Celery,
    broker: redis.Redis,
    results: redis.Redis,
    local_roots: tuple[str, ...] = (),
    endpoint: Callable[[], str] = lambda: "",
) -> None:
    """Make every worker of this app a node, however it is started.

    The clients are for its heartbeat alone, which must not wait for long. `local_roots` are told of it if it serves the
    queue `files`; `endpoint` says where its own pages are.
    """
    beating: list[Heartbeat] = []

    def on_setup(sender: str, instance: Any, **_: Any) -> None:
        identity.begin(sender)
        queue = app.amqp.queues.select_add(keys.own_queue(sender))
        # By the name of the list alone: a binding would stay in Redis for each node there ever was.
        queue.exchange = Exchange("")
        answer = Orphans(broker, results).answer
        own = _node(app, instance, local_roots, endpoint())
        metrics.WORKER.labels(own.name, own.boot, own.version).set(1)
        metrics.SLOTS.set(own.concurrency)
        heartbeat = Heartbeat(broker, own, answer, taken=_end, look=Aside(broker, answer).look)
        _claim(heartbeat)
        beating.append(heartbeat)
        heartbeat.start()

    def on_stop(**_: Any) -> None:
        for each in beating:
            each.withdraw()

    def on_end(**_: Any) -> None:
        while beating:
            beating.pop().close()

    at_setup(on_setup)
    signals.worker_shutting_down.connect(on_stop, weak=False)
    signals.worker_shutdown.connect(on_end, weak=False)


def _claim(heartbeat: Heartbeat) -> None:
    """Take the node's name before anything is consumed under it; a name that is taken ends the worker."""
    try:
        heartbeat.claim(has_ended=process.has_ended)
    except NameTaken as failure:
        log.critical("%s (`gaia worker --name`, `celery worker -n`)", failure)
        raise SystemExit(1) from None
    except (RedisError, OSError) as failure:
        log.warning("the node's name could not be claimed yet: %s", type(failure).__name__)


def _end() -> None:
    """End this worker as SIGTERM does, but as a failure."""
    signals.worker_shutting_down.send(sender=identity.own().node, sig="lost name", how="Warm", exitcode=1)
    state.should_stop = 1


def _node(app: Celery, worker: Any, local_roots: tuple[str, ...], endpoint: str) -> Node:
    own = identity.own()
    shared = tuple(name for name in app.amqp.queues.consume_from if name != keys.own_queue(own.node))
    return Node(
        name=own.node,
        boot=own.boot,
        pid=os.getpid(),
        host=socket.gethostname(),
        queues=shared,
        concurrency=int(worker.concurrency),
        version=version(DISTRIBUTION),
        started_at=time.time(),
        machine=process.machine(),
        roots=local_roots if "files" in shared else (),
        endpoint=endpoint,
    )
