"""Limits in memory and in Redis, under a clock that the test holds."""

from collections.abc import Iterator

import pytest

from tests.support.limits import Limiting, in_memory, in_redis, viewed


@pytest.fixture(params=["memory", "redis", "viewed"])
def limiting(request: pytest.FixtureRequest) -> Iterator[Limiting]:
    if request.param == "memory":
        yield in_memory()
        return
    made = {"redis": in_redis, "viewed": viewed}[request.param]
    with made(request.getfixturevalue("fresh_url")) as found:
        yield found
