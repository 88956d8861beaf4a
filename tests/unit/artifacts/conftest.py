"""A directory of bodies whose time the test holds."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from gaia.codec import Artifact
from gaia.store.directory import DirectoryArtifacts

TTL_S = 1000.0


@dataclass
class Shelf:
    """A directory, its store, and the time it takes for now."""

    path: Path
    moment: float = 1_700_000_000.0

    def store(self, *, ttl_s: float = TTL_S, quota_bytes: int = 1 << 40) -> DirectoryArtifacts:
        return DirectoryArtifacts(self.path, ttl_s=ttl_s, quota_bytes=quota_bytes, now=lambda: self.moment)

    def put(self, body: bytes = b"x", *, ttl_s: float = TTL_S, quota_bytes: int = 1 << 40) -> Artifact:
        store = self.store(ttl_s=ttl_s, quota_bytes=quota_bytes)
        return store.write([body], size_bytes=len(body), media_type="a/b")

    def file(self, artifact: Artifact) -> Path:
        return self.path / artifact.id[0] / artifact.id[1] / artifact.id

    def drafts(self) -> list[Path]:
        return sorted(self.path.glob("incoming/*"))

    def files(self) -> list[Path]:
        return sorted(self.path.glob("?/?/*"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    path = tmp_path / "artifacts"
    path.mkdir()
    return Shelf(path)
