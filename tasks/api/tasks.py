"""The `api` queue's door: contracts to service methods."""

from config.settings import load
from gaia.contracts import api
from tasks.api.service import ApiService
from tasks.egress.gateway import Gateway
from tasks.scope import Scope
from tasks.wiring import handles, once


@once
def service() -> ApiService:
    """Build the service of this process."""
    settings = load()
    return ApiService(settings=settings.api, gateway=Gateway.shared(settings))


@handles(api.Request)
def request(call: api.Request, scope: Scope) -> api.Response:
    """Send one HTTP request."""
    return service().request(call, scope)
