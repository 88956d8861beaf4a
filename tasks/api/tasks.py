"""The `api` queue's door: contracts to service methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaia.contracts import api
from tasks.runtime.services import assembled
from tasks.scope import Scope
from tasks.wiring import handles

if TYPE_CHECKING:
    from tasks.api.service import ApiService

service: "Callable[[], ApiService]" = assembled("tasks.api.assembly")


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
