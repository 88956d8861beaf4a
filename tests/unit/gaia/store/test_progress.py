"""How far a call is."""

import json
import math

import pytest
import redis

from gaia.store import keys, progress
from gaia.store.progress import Progress


def test_the_latest_word_is_kept_for_a_while(client: redis.Redis) -> None:
    progress.store(client, "one", Progress(1, None, "begun", 5.0))
    progress.store(client, "one", Progress(2, 3, "", 6.0))
    assert progress.fetch(client, "one") == Progress(2, 3, "", 6.0)
    assert 0 < client.ttl(keys.progress("one")) <= keys.PROGRESS_TTL_S


def test_a_call_that_said_nothing_has_none(client: redis.Redis) -> None:
    assert progress.fetch(client, "silent") is None


def test_what_a_newer_worker_adds_is_ignored(client: redis.Redis) -> None:
    client.set(keys.progress("newer"), json.dumps({"done": 1, "total": 2, "note": "", "at": 5.0, "rate": 7}))
    assert progress.fetch(client, "newer") == Progress(1, 2, "", 5.0)


@pytest.mark.parametrize(
    "stored", ["", "{", "[]", "{}", '"x"', "null", '{"done": "1", "total": 2, "note": "", "at": 5}']
)
def test_what_cannot_be_read_is_none(client: redis.Redis, stored: str) -> None:
    client.set(keys.progress("odd"), stored)
    assert progress.fetch(client, "odd") is None


def test_a_progress_that_is_no_number_is_none(client: redis.Redis) -> None:
    progress.store(client, "nan", Progress(math.nan, None, "", 5.0))
    assert progress.fetch(client, "nan") is None
