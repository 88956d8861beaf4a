"""A worker as a node of the cluster: its identity, its own queue, its heartbeat; hooked into Celery's signals."""

import os
import socket
import time
from importlib.metadata import version
from typing import Any, Final

import redis
from celery import Celery, signals
from kombu.entity import Exchange

from gaia.store import keys
from gaia.store.nodes import Node
from tasks.runtime import identity
from tasks.runtime.heartbeat import Heartbeat
from tasks.runtime.orphans import Orphans

DISTRIBUTION: Final = "gaia-workers"


def install(app: Celery, broker: redis.Redis, results: redis.Redis) -> None:
    """Make every worker of this app a node, however it is started; `broker` is for its heartbeat alone."""
    beating: list[Heartbeat] = []

    def on_setup(sender: str, **_: Any) -> None:
        identity.begin(sender)
        queue = app.amqp.queues.select_add(keys.own_queue(sender))
        # By the name of the list alone: a binding would stay in Redis for each node there ever was.
        queue.exchange = Exchange("")

    def on_ready(sender: Any, **_: Any) -> None:
        heartbeat = Heartbeat(broker, _node(app, sender), Orphans(broker, results).answer)
        beating.append(heartbeat)
        heartbeat.start()

    def on_stop(**_: Any) -> None:
        for each in beating:
            each.withdraw()

    def on_end(**_: Any) -> None:
        while beating:
            beating.pop().close()

    signals.celeryd_after_setup.connect(on_setup, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stop, weak=False)
    signals.worker_shutdown.connect(on_end, weak=False)


def _node(app: Celery, consumer: Any) -> Node:
    own = identity.own()
    shared = tuple(name for name in app.amqp.queues.consume_from if name != keys.own_queue(own.node))
    return Node(
        name=own.node,
        boot=own.boot,
        pid=os.getpid(),
        host=socket.gethostname(),
        queues=shared,
        concurrency=int(consumer.controller.concurrency),
        version=version(DISTRIBUTION),
        started_at=time.time(),
    )
