"""Workers take turns at sweeping."""

import logging
import threading
from collections.abc import Iterator

import pytest
import redis

from gaia.errors import ArtifactsUnavailable
from gaia.store import keys
from gaia.store.connection import connect
from gaia.store.directory import Swept
from tasks.artifacts.sweeper import Sweeper
from tasks.scope import Clock
from tests.support.waiting import until
from tests.unit.artifacts.conftest import Shelf


@pytest.fixture
def broker(fresh_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(fresh_url) as found:
        yield found


@pytest.fixture
def expired(shelf: Shelf) -> Shelf:
    """A directory with three expired bodies and one that is not."""
    for _ in range(3):
        shelf.put(ttl_s=10)
    shelf.put(ttl_s=10_000)
    shelf.moment += 1000
    return shelf


def test_one_worker_sweeps_in_a_minute(expired: Shelf, broker: "redis.Redis") -> None:
    one, other = Sweeper(expired.store(), broker), Sweeper(expired.store(), broker)
    assert one.turn() == Swept(3, 3, more=False)
    expired.put(ttl_s=-1000)
    assert other.turn() is None
    assert one.turn() is None
    assert 0 < broker.ttl(keys.ARTIFACT_SWEEP) <= 60
    broker.delete(keys.ARTIFACT_SWEEP)
    assert other.turn() == Swept(1, 1, more=False)


def test_a_turn_removes_at_most_so_many(expired: Shelf, broker: "redis.Redis") -> None:
    assert Sweeper(expired.store(), broker, most=2).turn() == Swept(2, 2, more=True)
    assert len(expired.files()) == 2


def test_a_turn_ends_with_its_time(expired: Shelf, broker: "redis.Redis") -> None:
    times = iter([0.0, 1.0, 30.0])
    sweeper = Sweeper(expired.store(), broker, clock=Clock(monotonic=lambda: next(times)))
    assert sweeper.turn() == Swept(1, 1, more=True)


def test_a_sweeper_that_is_closed_removes_no_more(expired: Shelf, broker: "redis.Redis") -> None:
    sweeper = Sweeper(expired.store(), broker)
    sweeper.close()
    assert sweeper.turn() == Swept(0, 0, more=True)
    sweeper.close()


def test_the_thread_sweeps_and_ends(expired: Shelf, broker: "redis.Redis") -> None:
    sweeper = Sweeper(expired.store(), broker, every_s=0.01)
    sweeper.start()
    sweeper.start()
    until(lambda: len(expired.files()) == 1)
    assert len([each for each in threading.enumerate() if each.name == "gaia-artifact-sweeper"]) == 1
    sweeper.close()
    assert not [each for each in threading.enumerate() if each.name == "gaia-artifact-sweeper"]


def test_the_thread_survives_a_lost_directory_and_a_lost_redis(
    expired: Shelf, broker: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    hidden = expired.path.rename(expired.path.with_name("unmounted"))
    with pytest.raises(ArtifactsUnavailable):
        Sweeper(expired.store(), broker).turn()
    sweeper = Sweeper(expired.store(), broker, every_s=0.01)
    sweeper.start()
    broker.delete(keys.ARTIFACT_SWEEP)
    until(lambda: "No such file or directory" in caplog.text)
    hidden.rename(expired.path)
    broker.delete(keys.ARTIFACT_SWEEP)
    until(lambda: len(expired.files()) == 1)
    sweeper.close()


def test_without_redis_nothing_is_swept(expired: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    with connect("redis://:geheim@127.0.0.1:1/0") as nobody:
        sweeper = Sweeper(expired.store(), nobody, every_s=0.01)
        sweeper.start()
        until(lambda: "expired artifacts were not removed" in caplog.text)
        sweeper.close()
    assert len(expired.files()) == 4
    assert "geheim" not in caplog.text
