"""Our transport under kombu's names."""

import socket

import pytest
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

from tasks.broker import transport
from tasks.broker.channel import Channel


@pytest.fixture
def aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, TRANSPORT_ALIASES[scheme])
    transport.install()
    transport.install()


@pytest.mark.usefixtures("aliases")
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_both_schemes_are_served_by_it(scheme: str) -> None:
    with Connection(f"{scheme}://127.0.0.1:1/0") as connection:
        assert connection.get_transport_cls() is transport.Transport
        assert connection.transport.Channel is Channel


@pytest.mark.usefixtures("aliases", "holders")
def test_a_message_goes_through_it(fresh_url: str) -> None:
    with Connection(fresh_url) as connection, connection.SimpleQueue("round-trip") as queue:
        queue.put({"ü": [1, None]}, headers={"task": "x"}, serializer="json")
        message = queue.get(timeout=20)
        assert message.payload == {"ü": [1, None]}
        message.ack()


@pytest.mark.usefixtures("aliases", "holders")
def test_a_connection_nobody_answers_is_an_error_kombu_knows() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connection = Connection(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        with connection, pytest.raises(connection.connection_errors):
            connection.channel().client.ping()
