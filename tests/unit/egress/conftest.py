"""A name server for the tests of egress."""

from collections.abc import Iterator

import pytest

from tests.support.dns import NameServer


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server
