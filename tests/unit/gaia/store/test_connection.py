"""The Redis client."""

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from gaia.errors import InvalidSetting, Unreachable
from gaia.store.connection import connect, connect_async, is_url, reaching, require_url, show_url


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is taken and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://h/", "redis://h:6379/0", "rediss://h:6380/15", "redis://:pw@h:1", "redis://me:p%2Fw@h",
        "redis://[::1]:6379/0", "rediss://h/0?ssl_cert_reqs=none", "redis://h?socket_timeout=5",
    ],
)  # fmt: skip
def test_the_url_of_a_redis_is_taken(url: str) -> None:
    assert is_url(url)
    client = connect(url)
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "", "h", "h:6379", "redis", "redis:", "redis://", "redis:///0", "redis://:hunter22@", "redis://:6379", "htp://h",
        "REDIS://h", "http://h", "unix:///run/redis.sock", "amqp://h", "redis://h:x", "redis://h:0", "redis://h:65536",
        "redis://h/x", "redis://h/-1", "redis://h/0/1", "redis://h/²", "redis://[::1", "redis://:hunter/22@h", "redis://:hunter22@h:port",
        "redis://h/0?hunter22=1", "redis://h?socket_timeout=hunter22", "\ud800", None, 5, b"redis://h",
    ],
)  # fmt: skip
def test_what_is_no_such_url_is_refused_and_not_shown(url: str) -> None:
    assert not is_url(url)
    for make in (connect, connect_async, lambda url: require_url("the URL of Redis", url)):
        with pytest.raises(InvalidSetting) as caught:
            make(url)
        assert str(caught.value).startswith("the URL of Redis must be redis://")
        assert "hunter" not in repr(caught.value)


def test_a_refused_connection_is_unreachable_and_shows_no_password(dead_port: int) -> None:
    url = f"redis://me:hunter22@127.0.0.1:{dead_port}/0"
    with connect(url) as client:
        with pytest.raises(Unreachable) as caught, reaching(url):
            client.ping()
        assert caught.value.url == f"redis://***@127.0.0.1:{dead_port}/0"
        assert "refused" in caught.value.reason
        assert "hunter22" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_a_wrong_password_is_unreachable_and_not_shown(redis_url: str) -> None:
    wrong = redis_url.replace("redis://:", "redis://:hunter22")
    with connect(wrong) as client, pytest.raises(Unreachable) as caught, reaching(wrong):
        client.ping()
    assert "hunter22" not in repr(caught.value)


@pytest.mark.parametrize("text", ["AUTH failed for hunter22", "at redis://:hunter22@h:1/0", "b'hunter22'"])
def test_what_redis_says_is_scrubbed_of_the_password(text: str) -> None:
    with pytest.raises(Unreachable) as caught, reaching("redis://:hunter22@h"):
        raise redis.ResponseError(text)
    assert "hunter22" not in caught.value.reason


def test_an_error_without_a_text_is_named() -> None:
    with pytest.raises(Unreachable) as caught, reaching("redis://h"):
        raise ConnectionResetError
    assert caught.value.reason == "ConnectionResetError"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), TypeError("x")])
def test_a_mistake_inside_is_not_taken_for_an_outage(error: Exception) -> None:
    with pytest.raises(type(error)), reaching("redis://h"):
        raise error


def test_a_url_shows_without_user_info() -> None:
    assert show_url("redis://me:pw@h:1/2?password=x") == "redis://***@h:1/2?password=***"
    assert show_url("redis://h:1/2") == "redis://h:1/2"


def test_a_connection_that_went_stale_is_replaced_once(redis_url: str, client: redis.Redis) -> None:
    with connect(redis_url, max_connections=1) as ours:
        number = ours.client_id()
        client.client_kill_filter(_id=number)
        assert ours.ping()
        assert ours.client_id() != number


@pytest.mark.parametrize("retries", [0, 1])
def test_a_stale_connection_makes_no_command_run_twice(redis_url: str, client: redis.Redis, retries: int) -> None:
    with connect(redis_url, max_connections=1, retries=retries) as ours:
        ours.set("test_connection:n", 0)
        client.client_kill_filter(_id=ours.client_id())
        ours.incr("test_connection:n")
        assert ours.get("test_connection:n") == b"1"


def test_more_threads_than_connections_take_turns(redis_url: str) -> None:
    with connect(redis_url, max_connections=2) as ours:
        threads = [threading.Thread(target=lambda: ours.incr("test_connection:turns")) for _ in range(40)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert ours.get("test_connection:turns") == b"40"
