"""Which endpoints a monitor asks."""

import socket

import pytest

from gaia.store.nodes import Node
from tasks.monitor.reach import is_reachable

HERE = socket.gethostname()


def node(endpoint: str, host: str) -> Node:
    return Node("api@vm", "b" * 16, 1, host, ("api",), 10, "0.1.0", 0.0, endpoint=endpoint)


LOCAL = [
    *("127.0.0.1", "127.1", "127.0.0.2", "2130706433", "0x7f000001", "0177.1", "[::1]", "[::ffff:127.0.0.1]"),
    "0.0.0.0",  # noqa: S104 - asked, not bound
    *("0", "[::]", "[::ffff:0.0.0.0]", "localhost", "LOCALHOST", "localhost.", "api.localhost"),
]
REMOTE = ["worker-7", "10.0.0.7", "[fd00::7]", "localhost.example", "127.example"]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_is_reached_on_itself_alone_however_it_is_spelt(host: str) -> None:
    assert is_reachable(node(f"http://{host}:1", HERE))
    assert not is_reachable(node(f"http://{host}:1", "elsewhere"))


@pytest.mark.parametrize("host", REMOTE)
@pytest.mark.parametrize("form", ["http://{}:9809", "https://{}", "http://{}"])
def test_other_machines_are_reached(host: str, form: str) -> None:
    assert is_reachable(node(form.format(host), "elsewhere"))


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "worker:1", "ftp://worker:1", "http://", "http://:9", "http://worker:no", "http://worker:99999"),
        *("http://worker:1/", "http://worker:1/x", "http://worker:1?x", "http://worker:1#x", "http://me@worker:1"),
        *("http://me:pw@worker:1", "http://worker:1\n", " http://worker:1", "http://wor ker:1", "http://[::1"),
    ],
)
def test_what_is_more_or_less_than_an_address_is_not_reached(endpoint: str) -> None:
    assert not is_reachable(node(endpoint, HERE))
