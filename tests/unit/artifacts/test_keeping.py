"""How a producer and a worker are told where large bodies go."""

from pathlib import Path

import pytest
import redis

from config.settings import SettingsError, read
from gaia import Gaia
from gaia.errors import InvalidSetting
from gaia.store.artifacts import Keeping

NOWHERE = "redis://127.0.0.1:1/0"


def test_without_a_word_only_redis_keeps_bodies() -> None:
    found = Keeping.read(None, {})
    assert found == Keeping()
    assert found.directory is None
    assert found.shared() is None


def test_the_environment_names_everything() -> None:
    environ = {
        "GAIA_ARTIFACTS__URL": "file:///srv/a",
        "GAIA_ARTIFACTS__TTL_S": "60",
        "GAIA_ARTIFACTS__QUOTA_BYTES": "1000",
        "GAIA_ARTIFACTS__MEMORY_BYTES": "10",
    }
    assert Keeping.read(None, environ) == Keeping(Path("/srv/a"), 60, 1000, 10)
    given = read(environ).artifacts
    assert (given.url, given.ttl_s, given.quota_bytes, given.memory_bytes) == ("file:///srv/a", 60, 1000, 10)


def test_an_argument_goes_before_the_environment() -> None:
    assert Keeping.read("/b", {"GAIA_ARTIFACTS__URL": "/a"}).directory == Path("/b")


@pytest.mark.parametrize("url", ["s3://key:geheim@bucket", "a", "file://host/geheim"])
def test_another_url_is_refused_by_producer_and_worker_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidSetting, match="GAIA_ARTIFACTS__URL must be file:///directory") as of_producer:
        Gaia(NOWHERE, artifacts_url=url)
    with pytest.raises(SettingsError, match="GAIA_ARTIFACTS__URL must be file:///directory") as of_worker:
        read({"GAIA_ARTIFACTS__URL": url})
    assert "geheim" not in f"{of_producer.value} {of_worker.value}"


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "1e9", "many", " ", "9" * 19, "9" * 5000, "\u0661"])
@pytest.mark.parametrize("name", ["TTL_S", "QUOTA_BYTES", "MEMORY_BYTES"])
def test_a_number_that_is_none_is_refused_by_its_name(name: str, number: str) -> None:
    with pytest.raises(InvalidSetting, match=f"GAIA_ARTIFACTS__{name} must be a positive integer"):
        Keeping.read(None, {f"GAIA_ARTIFACTS__{name}": number})


@pytest.mark.parametrize("ttl_s", ["59", "2592001", "9" * 18])
def test_a_life_out_of_bounds_is_refused_by_producer_and_worker(ttl_s: str) -> None:
    with pytest.raises(InvalidSetting, match="GAIA_ARTIFACTS__TTL_S must be from 60 to 2592000 seconds"):
        Keeping.read(None, {"GAIA_ARTIFACTS__TTL_S": ttl_s})
    with pytest.raises(SettingsError, match="GAIA_ARTIFACTS__TTL_S"):
        read({"GAIA_ARTIFACTS__TTL_S": ttl_s})


def test_what_is_kept_longer_is_kept_in_both_places(fresh_url: str, tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    with redis.Redis.from_url(fresh_url) as client:
        keeping.store(client, keep_s=10_000).put(b"x")
        keeping.store(client, keep_s=10).put(b"x")
        assert sorted(round(client.ttl(each), -3) for each in client.scan_iter("*")) == [4000, 10_000]
