"""Settings to how large bodies are kept."""

from config.settings import Settings
from gaia.store.artifacts import Keeping
from gaia.store.directory import directory_of


def keeping(settings: Settings) -> Keeping:
    """Say where and how long this worker keeps large bodies."""
    given = settings.artifacts
    directory = None if given.url is None else directory_of(given.url)
    return Keeping(directory, given.ttl_s, given.quota_bytes, given.memory_bytes)
