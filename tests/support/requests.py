"""Services that send requests, made for the sites of one test."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from config.settings import Api
from gaia.contracts import api
from tasks.api.service import ApiService
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tasks.scope import Scope

Make = Callable[..., ApiService]


class HasPort(Protocol):
    """Whatever listens on a port of 127.0.0.1."""

    @property
    def port(self) -> int:
        """Give the port."""


class Maker:
    """Makes services that reach the given sites and nothing else."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *sites: HasPort, settings: Api | None = None) -> ApiService:
        judge = Judge([f"127.0.0.1/32:{each.port}" for each in sites])
        service = ApiService(settings=settings or Api(), gateway=Gateway(judge, Resolver(hosts=Path("/dev/null"))))
        self._stack.callback(service.close)
        return service


def send(service: ApiService, url: str, **fields: object) -> api.Response:
    """Send one request, with half a minute at most."""
    return service.request(api.Request(url=url, **fields), Scope.lasting(30))  # type: ignore[arg-type]  # any field
