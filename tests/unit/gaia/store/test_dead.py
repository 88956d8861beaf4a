"""What a replay makes of a letter."""

import json
import time

import redis

from gaia import Gaia, api, wire
from gaia.store import dead


def test_a_replayed_call_waits_since_its_replay(fresh_url: str) -> None:
    with Gaia(fresh_url) as g, redis.Redis.from_url(fresh_url) as client:
        call = g.submit(api.Request("http://127.0.0.1/"))
        text = client.rpop("api")
    assert isinstance(text, bytes)
    message = json.loads(text)
    header = message["headers"]["gaia"]
    message["headers"]["gaia"] = wire.waiting_again(header, header["at"] + 5)
    assert wire.waits_since(message["headers"]["gaia"]) is None
    fresh = dead._fresh(call.id, {b"message": json.dumps(message).encode(), b"list": b"api"})
    anew = json.loads(fresh.message)["headers"]["gaia"]
    since = wire.waits_since(anew)
    assert since is not None
    assert since > time.time() - 60
    assert wire.submitted_at(anew) == header["at"]
