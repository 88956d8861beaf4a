"""A service, and sites that it may reach."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.requests import Maker


@pytest.fixture
def maker() -> Iterator[Maker]:
    with ExitStack() as stack:
        yield Maker(stack)
