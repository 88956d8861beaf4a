"""The service of the `api` queue, of the settings; imported by workers of that queue alone."""

import gc
from typing import Final

from config.settings import load
from gaia.store.connection import connect
from tasks.api.service import ApiService
from tasks.artifacts import keeping
from tasks.egress.gateway import Gateway
from tasks.limits import cluster
from tasks.runtime import identity

YOUNG_OBJECTS: Final = 5000
"""A batch of a thousand requests makes tens of thousands of objects and hardly a cycle among them. Python's own
threshold of 700 has the collector look through them so often that it takes a tenth of the worker's CPU."""


def build() -> ApiService:
    """Build it."""
    gc.set_threshold(max(YOUNG_OBJECTS, gc.get_threshold()[0]))
    settings = load()
    return ApiService(
        settings=settings.api,
        gateway=Gateway.shared(settings),
        limits=cluster.limits(),
        artifacts=keeping.of(settings).store(connect(settings.result_url or settings.redis_url)),
        worker=identity.own().node,
    )
