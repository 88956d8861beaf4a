"""The service of the `browser` queue, of the settings; imported by workers of that queue alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from config.settings import Settings, load
from gaia import wire
from gaia.errors import GaiaError
from gaia.store.connection import connect
from tasks.artifacts import keeping
from tasks.browser.service import BrowserService
from tasks.egress.gateway import Gateway
from tasks.limits import cluster
from tasks.limits.policy import levels
from tasks.limits.protocols import Away
from tasks.limits.throttle import Throttle
from tasks.runtime import identity
from tasks.scope import Scope


def build() -> BrowserService:
    """Build it."""
    settings = load()
    return BrowserService(
        settings=settings.browser,
        dialler=Gateway.shared(settings),
        holder=identity.own(),
        slot=_slot,
        keep=_keep(settings),
        bandwidth=_bandwidth,
    )


def _slot(scope: Scope, tenant: str | None) -> AbstractContextManager[object]:
    # Open: a worker bounds its tabs itself, and pages are not to stop with Redis' limits.
    return cluster.limits().holding(scope, levels(key=tenant, within="pool:browser"), if_away=Away.FAIL_OPEN)


def _bandwidth(host: str) -> Throttle:
    return Throttle(cluster.limits(), levels(host=host), if_away=Away.FAIL_OPEN)


def _keep(settings: Settings) -> Callable[[bytes], str]:
    store = keeping.of(settings).store(connect(settings.result_url or settings.redis_url), keep_s=wire.RESULT_TTL_S)

    def keep(picture: bytes) -> str:
        try:
            found = store.session().put(picture)
        except GaiaError:
            return ""  # the error itself matters more
        return f"{found.id}:{found.size_bytes}:{found.sha256}"

    return keep
