"""Both engines behind one service, and sites that they may reach."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.requests import Maker


@pytest.fixture(params=["single", "bulk"])
def make_service(request: pytest.FixtureRequest) -> Iterator[Maker]:
    with ExitStack() as stack:
        yield Maker(stack, bulk=request.param == "bulk")
