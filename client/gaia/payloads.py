"""Tells whether two calls under one idempotency key are the same."""

import hashlib
import json
from typing import Any

from gaia.codec import Artifact
from gaia.contracts.base import Call


def digest(call: Call[Any]) -> str:
    """Identify a payload. Large bodies count by their content, not by where they are kept."""
    payload = json.dumps([call.OPERATION, call.fields_json(_Sums())], sort_keys=True)
    return hashlib.sha256(payload.encode()).hexdigest()


class _Sums:
    """In place of a store of large bodies: references without ids."""

    def session(self) -> "_Sums":
        return self

    def put(self, body: bytes) -> Artifact:
        return Artifact("", len(body), hashlib.sha256(body).hexdigest())

    def refer(self, artifact: Artifact) -> Artifact:
        return Artifact("", artifact.size_bytes, artifact.sha256)

    def get(self, artifact: Artifact) -> bytes:
        raise NotImplementedError

    def discard(self) -> None:
        pass
