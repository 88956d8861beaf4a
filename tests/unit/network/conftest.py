"""A name server, sites, and services that reach them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import certifi
import pytest

from config.settings import Limits as Defaults
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy
from tasks.network.service import NetworkService
from tasks.scope import Clock
from tests.support.dns import NameServer

Make = Callable[..., NetworkService]


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a service: what it may reach, whom it asks, which ports it may probe, and what limits it."""
    with ExitStack() as stack:

        def made(
            server: NameServer | None = None,
            *,
            cidrs: tuple[str, ...] = (),
            ports: tuple[str, ...] = ("1-65535",),
            limits: Limits | None = None,
            ca_file: Path | None = None,
            clock: Clock | None = None,
        ) -> NetworkService:
            resolver = Resolver(
                [] if server is None else [server.address], clock=clock, resolv_conf=Path("/nonexistent")
            )
            service = NetworkService(
                gateway=Gateway(Judge(cidrs), resolver, 5.0),
                limits=limits or Limits.in_memory(Policy(Defaults(), {})),
                ports=ports,
                ca_file=str(ca_file or certifi.where()),
                worker="here",
                capacity=1000,
            )
            stack.callback(service.close)
            return service

        yield made
