"""How this worker keeps large bodies, by its settings."""

from config.settings import Settings
from gaia.store.artifacts import Keeping
from gaia.store.directory import directory_of


def of(settings: Settings) -> Keeping:
    """Give how large bodies are kept."""
    given = settings.artifacts
    directory = None if given.url is None else directory_of(given.url)
    return Keeping(directory, given.ttl_s, given.quota_bytes, given.memory_bytes)
