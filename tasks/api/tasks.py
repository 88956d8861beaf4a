"""The `api` queue's door: contracts to service methods."""

import gc
from typing import Final

from config.settings import load
from gaia.contracts import api
from gaia.store.connection import connect
from tasks.api.service import ApiService
from tasks.artifacts import keeping
from tasks.egress.gateway import Gateway
from tasks.limits import cluster
from tasks.runtime import identity
from tasks.runtime.services import once
from tasks.scope import Scope
from tasks.wiring import handles

limits = once(cluster.limits)

YOUNG_OBJECTS: Final = 5000
"""A batch of a thousand requests makes tens of thousands of objects and hardly a cycle among them. Python's own
threshold of 700 has the collector look through them so often that it takes a tenth of the worker's CPU."""


@once
def service() -> ApiService:
    """Build the service of this process."""
    gc.set_threshold(max(YOUNG_OBJECTS, gc.get_threshold()[0]))
    settings = load()
    return ApiService(
        settings=settings.api,
        gateway=Gateway.shared(settings),
        limits=limits(),
        artifacts=keeping.of(settings).store(connect(settings.result_url or settings.redis_url)),
        worker=identity.own().node,
    )


@handles(api.Request)
def request(call: api.Request, scope: Scope) -> api.Response:
    """Send one HTTP request."""
    return service().request(call, scope)


@handles(api.RequestMany)
def request_many(call: api.RequestMany, scope: Scope) -> api.Outcomes:
    """Send many HTTP requests."""
    return service().request_many(call, scope)


@handles(api.Download)
def download(call: api.Download, scope: Scope) -> api.Downloaded:
    """Store what a GET brings."""
    return service().download(call, scope)


@handles(api.Stats)
def stats(call: api.Stats, scope: Scope) -> api.ApiStats:
    """Give the worker's counters and gauges."""
    return service().stats(call, scope)


@handles(api.Health)
def health(call: api.Health, scope: Scope) -> api.ApiHealth:
    """Say how the worker is."""
    return service().health(call, scope)
