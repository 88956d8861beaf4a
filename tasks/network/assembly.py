"""The service of the `network` queue, of the settings; imported by workers of that queue alone."""

import certifi

from config.settings import load
from tasks.egress.gateway import Gateway
from tasks.limits import cluster
from tasks.network.service import NetworkService
from tasks.runtime import identity


def build() -> NetworkService:
    """Build it."""
    settings = load()
    return NetworkService(
        gateway=Gateway.shared(settings),
        limits=cluster.limits(),
        ports=settings.network.probe_ports,
        ca_file=str(settings.api.ca_file or certifi.where()),
        worker=identity.own().node,
        capacity=settings.network.cache_entries,
    )
