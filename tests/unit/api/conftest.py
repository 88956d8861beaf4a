"""A service, and sites that it may reach."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.requests import Maker
from tests.support.web import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def maker() -> Iterator[Maker]:
    with ExitStack() as stack:
        yield Maker(stack)
