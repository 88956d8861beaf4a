"""Marks of cancelled calls."""

import redis

from gaia.store import cancel, keys
from tests.support.waiting import until


def test_a_request_leaves_a_mark_that_expires(client: redis.Redis) -> None:
    cancel.request(client, "one")
    cancel.request(client, "one")
    assert cancel.requested(client, ["one", "two", "one"]) == [True, False, True]
    assert 0 < client.ttl(keys.cancel("one")) <= keys.CANCEL_TTL_S


def test_nobody_asked_for_is_nobody_marked(client: redis.Redis) -> None:
    assert cancel.requested(client, []) == []


def test_a_request_is_announced(client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]  # redis-py
        pubsub.subscribe(keys.CANCEL_CHANNEL)
        until(lambda: client.pubsub_numsub(keys.CANCEL_CHANNEL)[0][1])
        cancel.request(client, "three")
        assert until(lambda: pubsub.get_message(timeout=1))["data"] == b"three"
