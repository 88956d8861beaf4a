"""The service of the `files` queue, of the settings; imported by workers of that queue alone."""

from config.settings import load
from gaia.store.connection import connect
from gaia.store.nodes import Nodes
from gaia.store.roster import Roster
from tasks.artifacts import keeping
from tasks.files.pacing import paced
from tasks.files.service import FilesService
from tasks.files.whereabouts import holders
from tasks.limits import cluster
from tasks.roots.roots import Roots
from tasks.runtime import identity


def build() -> FilesService:
    """Build it."""
    settings = load()
    broker, results = connect(settings.redis_url), connect(settings.result_url or settings.redis_url)
    nodes, roster = Nodes(broker, settings.redis_url), Roster(broker, settings.redis_url)
    return FilesService(
        roots=Roots.from_settings(settings.files),
        artifacts=keeping.of(settings).store(results),
        pace=paced(cluster.limits()),
        max_operations=settings.files.max_operations,
        worker=lambda: identity.own().node,
        holders=lambda: holders(nodes.list(), roster.list()),
    )
