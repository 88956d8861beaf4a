"""Large bodies, weighed: what goes beside a message or a result counts with the operation's other bytes."""

from typing import Final, Self

from gaia import codec
from gaia.codec import Artifact
from tasks import metrics


class Weighed:
    """A store whose sessions count what is fetched and stored for an operation."""

    def __init__(self, blobs: codec.Blobs, operation: str) -> None:
        """Use a store."""
        self._blobs: Final = blobs
        self._operation: Final = operation

    def session(self) -> codec.Session:
        """Give the bodies of one message."""
        return _Session(self._blobs.session(), self._operation)


class _Session:
    __slots__ = ("_operation", "_seen", "_session")

    def __init__(self, session: codec.Session, operation: str) -> None:
        self._session = session
        self._operation = operation
        self._seen: set[str] = set()

    def session(self) -> Self:
        return self

    def put(self, body: bytes) -> Artifact:
        found = self._session.put(body)
        metrics.meters(self._operation).moved(sent_bytes=found.size_bytes)
        return found

    def refer(self, artifact: Artifact) -> Artifact:
        return self._session.refer(artifact)

    def get(self, artifact: Artifact) -> bytes:
        found = self._session.get(artifact)
        if artifact.id not in self._seen:  # a session fetches it once
            self._seen.add(artifact.id)
            metrics.meters(self._operation).moved(received_bytes=len(found))
        return found

    def discard(self) -> None:
        self._session.discard()
