"""The service of the `process` queue, of the settings; imported by workers of that queue alone."""

from typing import Final

from config.settings import load
from gaia import wire
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.nodes import REPLY_TIMEOUT_S
from tasks.artifacts import keeping
from tasks.limits import cluster
from tasks.process.quotas import Quotas
from tasks.process.registry import Registry
from tasks.process.service import ProcessService
from tasks.roots.roots import Roots
from tasks.runtime import identity
from tasks.runtime.entrusted import Entrusted

LASTING_S: Final = 60
"""Bodies outlive the results that name them, and calls that a worker answers at its end, that end."""


def build() -> ProcessService:
    """Build it."""
    settings = load()
    results_url = settings.result_url or settings.redis_url
    broker = connect(settings.redis_url, reply_timeout_s=REPLY_TIMEOUT_S, retries=0)
    results = connect(results_url, reply_timeout_s=REPLY_TIMEOUT_S, retries=0)
    bodies = keeping.of(settings)
    return ProcessService(
        settings=settings.process,
        roots=Roots.from_settings(settings.files),
        own=identity.own,
        registry=Registry(connect(settings.redis_url), settings.redis_url),
        quotas=Quotas(cluster.limits()),
        entrusted=Entrusted(
            broker,
            results,
            bodies.store(results, keep_s=wire.RESULT_TTL_S + LASTING_S),
            bodies.store(results, keep_s=keys.KEY_TTL_S + LASTING_S),
            keep_s=settings.worker.grace_s + LASTING_S,
        ),
    )
