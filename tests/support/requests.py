"""Services that send requests, made for the sites of one test."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from config import settings
from gaia.contracts import api
from gaia.store.artifacts import Artifacts
from gaia.store.limits import Limit
from tasks.api.service import ApiService
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy
from tasks.scope import Scope


class Sends(Protocol):
    """Either engine, seen as one that sends a single request."""

    def request(self, call: api.Request, scope: Scope) -> api.Response:
        """Send it."""

    def close(self) -> None:
        """Close what is open."""


class Bulk:
    """The bulk engine, seen so."""

    def __init__(self, service: ApiService) -> None:
        self._service = service

    def request(self, call: api.Request, scope: Scope) -> api.Response:
        """Send a batch of one."""
        return self._service.request_many(api.RequestMany((call,)), scope).items[0].unwrap()

    def close(self) -> None:
        """Close what is open."""
        self._service.close()


Make = Callable[..., Sends]


class HasPort(Protocol):
    """Whatever listens on a port of 127.0.0.1."""

    @property
    def port(self) -> int:
        """Give the port."""


def limits(**given: Limit) -> Limits:
    """Give limits of one process, by host."""
    return Limits.in_memory(Policy(settings.Limits(rate_per_s=1_000_000, burst=1_000_000), given))


class Maker:
    """Makes services that reach the given sites and nothing else."""

    def __init__(self, stack: ExitStack, *, bulk: bool = False) -> None:
        self._stack = stack
        self._bulk = bulk

    def service(
        self,
        *sites: HasPort,
        settings: settings.Api | None = None,
        limited: Limits | None = None,
        artifacts: Artifacts | None = None,
    ) -> ApiService:
        """Make a service itself."""
        judge = Judge([f"127.0.0.1/32:{each.port}" for each in sites])
        found = limited or limits()
        service = ApiService(
            settings=settings or DEFAULTS,
            gateway=Gateway(judge, Resolver(hosts=Path("/dev/null"))),
            limits=found,
            artifacts=artifacts,
            worker="w",
        )
        self._stack.callback(found.close)
        self._stack.callback(service.close)
        return service

    def __call__(self, *sites: HasPort, settings: settings.Api | None = None) -> Sends:
        """Make one behind the engine that is tested."""
        made = self.service(*sites, settings=settings)
        return Bulk(made) if self._bulk else made


DEFAULTS = settings.Api()

ONCE = api.Retry(attempts=1)


def send(service: Sends, url: str, **fields: object) -> api.Response:
    """Send one request once, with half a minute at most."""
    return service.request(api.Request(url=url, **{"retry": ONCE, **fields}), Scope.lasting(30))  # type: ignore[arg-type]  # any field
