"""Large bodies, kept in Redis for a while: the claim check of messages and results.

A reference holds 128 random bits, the size and the SHA-256. It is resolved only beneath this store's own key prefix:
no path and no URL is ever taken from a message.
"""

import hashlib
import re
import secrets
from typing import Final

import redis

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, BodyTooLarge
from gaia.store import keys

LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Redis holds bodies in memory, and a reply this long already blocks it for milliseconds."""

DEFAULT_TTL_S: Final = 3600

_ID = re.compile(r"[0-9a-f]{32}")


class RedisArtifacts:
    """Bodies as Redis strings with an expiry."""

    def __init__(self, client: redis.Redis, *, ttl_s: int = DEFAULT_TTL_S) -> None:
        """Use a client; `ttl_s` is how long a body is kept."""
        self._client = client
        self._ttl_s = ttl_s

    def put(self, body: bytes) -> Artifact:
        """Store a body.

        Raises:
            BodyTooLarge: over 8 MiB.
        """
        if len(body) > LIMIT_BYTES:
            raise BodyTooLarge("the artifact store", LIMIT_BYTES)
        found = Artifact(secrets.token_hex(16), len(body), hashlib.sha256(body).hexdigest())
        self._client.set(keys.artifact(found.id), body, ex=self._ttl_s)
        return found

    def get(self, artifact: Artifact) -> bytes:
        """Fetch a body.

        Raises:
            ArtifactMissing: if it is not there, or is not what the reference says.
        """
        if not _ID.fullmatch(artifact.id):
            raise ArtifactMissing(artifact.id[:64], "is no artifact id")
        body = self._client.get(keys.artifact(artifact.id))
        if not isinstance(body, bytes):
            raise ArtifactMissing(artifact.id, "is not stored, or has expired")
        if hashlib.sha256(body).hexdigest() != artifact.sha256:
            raise ArtifactMissing(artifact.id, "does not match its checksum")
        return body
