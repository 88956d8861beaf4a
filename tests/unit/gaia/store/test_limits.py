"""Limits that operators set: kept, merged, refused when they make no sense."""

import math
from typing import Any

import pytest
import redis

from gaia import Gaia
from gaia.errors import InvalidCall
from gaia.levels import level_of
from gaia.store import keys
from gaia.store.limits import Limit, read


@pytest.fixture
def g(fresh_url: str) -> Any:
    with Gaia(fresh_url) as found:
        yield found


def test_what_was_set_is_given_back(g: Gaia) -> None:
    g.limits.set("api.example.com", rate_per_s=50, burst=100, concurrency=20)
    assert g.limits.get("api.example.com") == Limit(rate_per_s=50.0, burst=100, concurrency=20)


def test_what_is_left_out_stays_as_it_was(g: Gaia) -> None:
    g.limits.set("global", rate_per_s=0.1)
    assert g.limits.set("global", shadow=True) == Limit(rate_per_s=0.1, shadow=True)
    assert g.limits.set("global", shadow=False, burst=3) == Limit(rate_per_s=0.1, burst=3)


def test_global_is_listed_first(g: Gaia) -> None:
    for name in ("b.example", "global", "key:acme", "::1"):
        g.limits.set(name, concurrency=1)
    assert list(g.limits.list()) == ["global", "::1", "b.example", "key:acme"]


def test_a_reset_name_has_nothing_set(g: Gaia) -> None:
    g.limits.set("a.example", burst=1)
    assert g.limits.reset("a.example")
    assert not g.limits.reset("a.example")
    assert g.limits.get("a.example") is None
    assert g.limits.list() == {}


def test_every_change_counts_up_the_revision_and_is_announced(g: Gaia, fresh_url: str) -> None:
    with redis.Redis.from_url(fresh_url) as client, client.pubsub(ignore_subscribe_messages=True) as news:
        news.subscribe(keys.LIMITS_CHANNEL)
        news.get_message(timeout=5)
        g.limits.set("a.example", burst=1)
        g.limits.reset("a.example")
        heard = [news.get_message(timeout=5) for _ in range(2)]
        assert [each["data"] for each in heard if each] == [keys.LIMIT_SETTINGS.encode()] * 2
        assert read(client) == (2, {})


def test_settings_do_not_expire(g: Gaia, fresh_url: str) -> None:
    g.limits.set("a.example", burst=1)
    with redis.Redis.from_url(fresh_url) as client:
        assert client.ttl(keys.LIMIT_SETTINGS) == -1


def test_a_record_that_nobody_can_read_is_left_out_and_can_be_replaced(g: Gaia, fresh_url: str) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        client.hset(keys.LIMIT_SETTINGS, "a.example", "{")
        client.hset(keys.LIMIT_SETTINGS, "b.example", '{"burst": -1}')
        client.hset(keys.LIMIT_SETTINGS, "c.example", '{"burst": 2, "of_a_newer_version": 1}')
    assert g.limits.list() == {"c.example": Limit(burst=2)}
    assert g.limits.set("a.example", burst=4) == Limit(burst=4)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "https://a.example",
        "a.example:80",
        "A.example",
        "a..example",
        "-a.example",
        "*.example",
        "a.example/",
        "key:",
        "key:a b",
        "tenant:x",
        "key:" + "x" * 201,
        "x" * 64,
        "127.1",
        "2130706433",
        "[::1]",
        "::0001",
        "#revision",
        "a\n",
    ],
)
def test_a_name_of_no_known_form_is_refused(g: Gaia, name: str) -> None:
    with pytest.raises(InvalidCall, match="name"):
        g.limits.set(name, burst=1)
    with pytest.raises(InvalidCall, match="name"):
        g.limits.get(name)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "5", None, 10**12])
def test_a_rate_that_is_none_is_refused(g: Gaia, value: Any) -> None:
    with pytest.raises(InvalidCall, match="rate_per_s"):
        g.limits.set("a.example", rate_per_s=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, True, "5"])
@pytest.mark.parametrize("field", ["burst", "concurrency", "burst_bytes", "failure_threshold", "success_threshold"])
def test_a_count_that_is_none_is_refused(g: Gaia, field: str, value: Any) -> None:
    with pytest.raises(InvalidCall, match=field):
        g.limits.set("a.example", **{field: value})  # type: ignore[misc]


def test_nothing_or_an_unknown_field_is_refused(g: Gaia) -> None:
    with pytest.raises(InvalidCall, match="must be given"):
        g.limits.set("a.example")
    with pytest.raises(InvalidCall, match="'rate' is unknown"):
        g.limits.set("a.example", rate=5)  # type: ignore[call-arg]


def test_a_name_tells_its_level() -> None:
    names = ["global", "a.example", "key:a", "job:b", "pool:c", "::1"]
    assert [level_of(each) for each in names] == ["global", "host", "key", "job", "pool", "host"]
