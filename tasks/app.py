"""The composition root of a worker: settings to the Celery app.

`celery -A tasks.app worker -Q api` works, and so does `gaia worker api`, which is the same app without Celery's
command line.
"""

import logging
import sys
from importlib import import_module
from typing import Any, Final

import redis
from celery import Celery, signals

from config.celery_options import celery_options
from config.monitor_options import bearer
from config.settings import Settings, SettingsError, load
from gaia import wire
from gaia.store import keys, nodes
from gaia.store.connection import connect
from gaia.store.directory import DirectoryArtifacts
from gaia.store.nodes import Nodes
from gaia.store.roster import Roster
from tasks import wiring
from tasks.api import tasks as api_tasks
from tasks.artifacts import keeping as artifacts_keeping
from tasks.artifacts.sweeper import Sweeper
from tasks.broker import holders, probe, transport
from tasks.broker.storing import Storer
from tasks.browser import preflight as browser_preflight
from tasks.browser import tasks as browser_tasks
from tasks.checkup import Checkup
from tasks.delivery.running import Running
from tasks.files import tasks as files_tasks
from tasks.network import tasks as network_tasks
from tasks.process import preflight as process_preflight
from tasks.process import tasks as process_tasks
from tasks.runtime import endpoint, logs, node, services, stopping
from tasks.runtime.setup import at_setup
from tasks.runtime.vitals import Vitals
from tasks.scope import Clock

SUBSYSTEMS = (api_tasks, files_tasks, browser_tasks, process_tasks, network_tasks)
"""Imported for their effect: each enters its handlers."""


BACKEND = "tasks.broker.backend:Backend"
EVENTS = "tasks.broker.events:Dispatcher"

log = logging.getLogger(__name__)

BODY_MARGIN_S: Final = 60
"""A result's large bodies are stored before it and outlive it."""


def build(settings: Settings) -> Celery:
    """Make the app. Nothing is dialled yet."""
    transport.install()
    found = Celery("gaia", set_as_current=False)
    found.conf.update(celery_options(settings))
    found.loader.override_backends = {"redis": BACKEND, "rediss": BACKEND}
    result_url = settings.result_url or settings.redis_url
    broker, results = connect(settings.redis_url), connect(result_url)
    found.events.dispatcher_cls = EVENTS
    running = Running(broker)
    holders.configure(
        deadline_s=settings.worker.deadline_s, delivery_cap=settings.worker.delivery_cap, on_lost=running.lose
    )
    keeping = artifacts_keeping.of(settings)
    wiring.install(
        found,
        wiring.Surroundings(
            artifacts=keeping.store(results, keep_s=wire.RESULT_TTL_S + BODY_MARGIN_S),
            keyed_artifacts=keeping.store(results, keep_s=keys.KEY_TTL_S + BODY_MARGIN_S),
            running=running,
            nodes=Nodes(broker, settings.redis_url),
            broker=broker,
            results=results,
            results_url=result_url,
            deadline_s=settings.worker.deadline_s,
            delivery_cap=settings.worker.delivery_cap,
        ),
    )
    signals.celeryd_init.connect(_require_fit, weak=False)
    # Under Celery's own command, too: beyond its slots a worker fetches nothing.
    at_setup(lambda instance, **_: holders.configure(slots=instance.concurrency))
    storer = _storer(settings)
    at_setup(_require_one_process)
    directory = keeping.shared()
    pages = _serve(settings, storer, directory)
    _require_machine(found, settings, directory)
    # Before the worker is a node, which would be sent calls about its roots.
    _claim_roots(found, Roster(broker, settings.redis_url))
    # Before the node goes, and with it the way to what lives here.
    signals.worker_shutting_down.connect(lambda **_: services.drain_services(), weak=False)
    node.install(
        found,
        connect(settings.redis_url, reply_timeout_s=nodes.REPLY_TIMEOUT_S),
        connect(result_url, reply_timeout_s=nodes.REPLY_TIMEOUT_S, retries=0),
        settings.files.local,
        lambda: pages.url,
    )
    _sweep(directory, broker)
    stopping.install(running, services.close_services, settings.worker.grace_s)
    signals.setup_logging.connect(lambda **_: logs.configure(settings.worker.log_level), weak=False)
    return found


def _storer(settings: Settings) -> Storer | None:
    """Have results stored by a thread of the worker, if they lie in another Redis than the queue."""
    if settings.result_url in {None, settings.redis_url}:
        return None
    url = str(settings.result_url)
    found = Storer(connect(url, reply_timeout_s=nodes.REPLY_TIMEOUT_S, retries=0), url)
    holders.configure(storer=found)
    signals.celeryd_init.connect(lambda **_: found.start(), weak=False)
    return found


def _require_fit(**_: Any) -> None:
    """Refuse to start a worker whose transport would fail under way."""
    try:
        probe.require_fit()
    except probe.Unfit as failure:
        sys.exit(f"gaia: {failure}")


def _require_one_process(instance: Any, **_: Any) -> None:
    """Refuse a pool of processes: they know nothing of the leases, and a result is stored by who has the lease."""
    if instance.pool_cls.__module__ == "celery.concurrency.prefork":
        sys.exit("gaia: a pool of processes cannot be used; start more workers, or use -P threads or -P solo")


def _serve(settings: Settings, storer: Storer | None, directory: DirectoryArtifacts | None) -> endpoint.Endpoint:
    """Let every worker of this process serve its pages."""
    own = settings.worker
    vitals = Vitals(hindered=list if storer is None else storer.trouble)
    checkup = Checkup(vitals.queues, vitals.unready, Clock(), lambda: _troubles(directory))
    pages = endpoint.Endpoint(vitals, checkup.report)
    endpoint.install(pages, vitals, own.host, own.port, bearer(settings, own.host, "GAIA_WORKER__HOST"))
    return pages


def _troubles(directory: DirectoryArtifacts | None) -> list[str]:
    """Say what is wrong with what every subsystem uses: large bodies cannot be stored, all else goes on."""
    reason = "" if directory is None else directory.trouble()
    return [reason] if reason else []


def _require_machine(app: Celery, settings: Settings, directory: DirectoryArtifacts | None) -> None:
    """Refuse to start a worker whose machine has not what the settings of its queues name; warn of what may come."""

    def on_setup(**_: Any) -> None:
        queues = app.amqp.queues.consume_from
        for each in set(wire.QUEUES) & set(queues):
            # What its service is made of is imported before the worker is ready, not by the first call.
            import_module(f"tasks.{each}.assembly")
        warnings = _troubles(directory)
        if "process" in queues:
            process_preflight.require(settings.process)
        if "browser" in queues:
            browser_preflight.require(settings.browser)
            warnings += filter(None, [browser_preflight.warning(settings.browser)])
        for each in warnings:
            log.warning("%s", each)

    at_setup(on_setup)


def _claim_roots(app: Celery, roster: Roster) -> None:
    """Refuse to start a worker of `files` whose roots are other directories than the cluster's; tidy them up."""

    def on_setup(**_: Any) -> None:
        if "files" in app.amqp.queues.consume_from:
            files_tasks.service().start(roster)

    at_setup(on_setup)


def _sweep(directory: DirectoryArtifacts | None, broker: redis.Redis) -> None:
    """Let this worker take its turns at removing expired bodies, if there is a directory."""
    if directory is not None:
        sweeper = Sweeper(directory, broker)
        signals.worker_ready.connect(lambda **_: sweeper.start(), weak=False)
        signals.worker_shutdown.connect(lambda **_: sweeper.close(), weak=False)


def _build() -> Celery:
    try:
        return build(load())
    except SettingsError as failure:
        sys.exit(f"gaia: {failure}")


app = _build()
