"""A service, and sites that it may reach."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.dns import NameServer
from tests.support.requests import Maker


@pytest.fixture
def maker() -> Iterator[Maker]:
    with ExitStack() as stack:
        yield Maker(stack)


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server
