"""The composition root of a worker: settings to the Celery app.

`celery -A tasks.app worker -Q api` works, and so does `gaia worker api`, which is the same app without Celery's
command line.
"""

import sys

from celery import Celery, signals

from config.celery_options import celery_options
from config.settings import Settings, SettingsError, load
from gaia.store.artifacts import RedisArtifacts
from gaia.store.connection import connect
from tasks import wiring
from tasks.api import tasks as api_tasks
from tasks.broker import transport
from tasks.browser import tasks as browser_tasks
from tasks.delivery.running import Running
from tasks.files import tasks as files_tasks
from tasks.network import tasks as network_tasks
from tasks.process import tasks as process_tasks
from tasks.runtime import logs, stopping

SUBSYSTEMS = (api_tasks, files_tasks, browser_tasks, process_tasks, network_tasks)
"""Imported for their effect: each enters its handlers."""


BACKEND = "tasks.broker.backend:Backend"


def build(settings: Settings) -> Celery:
    """Make the app. Nothing is dialled yet."""
    transport.install()
    found = Celery("gaia", set_as_current=False)
    found.conf.update(celery_options(settings))
    if settings.result_url in {None, settings.redis_url}:
        found.loader.override_backends = {"redis": BACKEND, "rediss": BACKEND}
    result_url = settings.result_url or settings.redis_url
    results = connect(result_url)
    running = Running(connect(settings.redis_url))
    wiring.install(
        found,
        wiring.Surroundings(
            artifacts=RedisArtifacts(results, ttl_s=settings.artifacts.ttl_s),
            running=running,
            results=results,
            results_url=result_url,
            deadline_s=settings.worker.deadline_s,
            delivery_cap=settings.worker.delivery_cap,
        ),
    )
    stopping.install(running, wiring.close_services, settings.worker.grace_s)
    signals.setup_logging.connect(lambda **_: logs.configure(settings.worker.log_level), weak=False)
    return found


def _load() -> Settings:
    try:
        return load()
    except SettingsError as failure:
        sys.exit(f"gaia: {failure}")


app = build(_load())
