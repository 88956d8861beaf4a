"""Large bodies in Redis: what only that store has to hold. The rest is the conformance suite's."""

import hashlib

import pytest
import redis

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, BodyTooLarge
from gaia.store import keys
from gaia.store.artifacts import LIMIT_BYTES, Artifacts, RedisArtifacts


@pytest.fixture
def store(client: redis.Redis) -> Artifacts:
    return Artifacts(RedisArtifacts(client, ttl_s=100))


def test_a_body_s_key_expires(store: Artifacts, client: redis.Redis) -> None:
    assert 0 < client.ttl(keys.artifact(store.put(b"body").id)) <= 100


def test_a_body_over_the_limit_is_refused_and_not_stored(store: Artifacts, client: redis.Redis) -> None:
    before = client.dbsize()
    with pytest.raises(BodyTooLarge):
        store.put(b"x" * (LIMIT_BYTES + 1))
    assert client.dbsize() == before
    assert len(store.get(store.put(b"x" * LIMIT_BYTES))) == LIMIT_BYTES


@pytest.mark.parametrize(
    "forged",
    ["", "x", "*", "../x", "0" * 31, "0" * 33, "0" * 32 + "\n", "G" * 32, "A" * 32, "\u0660" * 32, "0" * 100_000],
)
def test_a_key_of_that_name_is_not_read_for_a_forged_id(store: Artifacts, client: redis.Redis, forged: str) -> None:
    client.set(keys.artifact(forged), b"body")
    with pytest.raises(ArtifactMissing) as caught:
        store.get(Artifact(forged, 4, hashlib.sha256(b"body").hexdigest()))
    assert len(caught.value.id) <= 64


def test_a_key_that_holds_no_string_is_no_body(store: Artifacts, client: redis.Redis) -> None:
    artifact = store.put(b"body")
    client.delete(keys.artifact(artifact.id))
    client.lpush(keys.artifact(artifact.id), b"body")
    with pytest.raises((ArtifactMissing, redis.ResponseError)):
        store.get(artifact)
