"""Resolve, judge, dial."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from config.settings import Settings, read
from gaia.errors import ConnectFailed, EgressDenied, NameNotFound, ResolverFailed, TimedOut
from tasks.egress import forbidden
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import HOSTS, Resolver
from tasks.scope import CancelToken
from tests.support.dns import NameServer
from tests.support.spellings import SPELLINGS


@contextmanager
def full_listener() -> Iterator[int]:
    """Give a port whose queue of waiting connections is full: another connect gets no answer."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Noticing(CancelToken):
    """Tells when somebody waits who would have to be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_on = threading.Event()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        with super().calling(callback):
            self.waited_on.set()
            yield


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def gateway(*cidrs: str, names: NameServer | None = None, hosts: Path | None = None, bound_s: float = 5.0) -> Gateway:
    resolver = Resolver([names.address] if names else [], hosts=hosts or HOSTS)
    return Gateway(Judge(cidrs), resolver, bound_s)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_an_inner_address_gets_out(name_server: NameServer, spelling: str) -> None:
    with pytest.raises(EgressDenied):
        gateway(names=name_server).dial(spelling, 80, timeout_s=5)
    assert name_server.asked == []


def test_a_judged_address_is_dialled(listener: socket.socket) -> None:
    with gateway(f"127.0.0.1/32:{port_of(listener)}").dial("127.1", port_of(listener), timeout_s=5) as sock:
        assert sock.getpeername() == listener.getsockname()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_one_dial_resolves_once_so_a_changed_answer_is_never_dialled(
    name_server: NameServer, listener: socket.socket
) -> None:
    name_server.add("shop.test. 0 IN A 127.0.0.1")
    name_server.later["shop.test.", "A"] = ["shop.test. 0 IN A 127.0.0.9"]
    way = gateway(f"127.0.0.1/32:{port_of(listener)}", names=name_server)
    with way.dial("shop.test", port_of(listener), timeout_s=5) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"
    assert name_server.asked.count(("shop.test.", "A")) == 1
    with pytest.raises(EgressDenied):
        way.dial("shop.test", port_of(listener), timeout_s=5)


def test_a_public_and_an_inner_address_under_one_name_refuse_it(name_server: NameServer) -> None:
    name_server.add("mixed.test. 60 IN A 93.184.216.34", "mixed.test. 60 IN A 10.0.0.1")
    name_server.add("six.test. 60 IN A 93.184.216.34", "six.test. 60 IN AAAA ::1")
    for host in ("mixed.test", "six.test"):
        with pytest.raises(EgressDenied):
            gateway(names=name_server).addresses(host, 80, timeout_s=5)


def test_public_addresses_pass_ipv4_first(name_server: NameServer) -> None:
    name_server.add("both.test. 60 IN AAAA 2606:4700::1", "both.test. 60 IN A 93.184.216.34")
    found = gateway(names=name_server).addresses("both.test", 80, timeout_s=5)
    assert found == ["93.184.216.34", "2606:4700::1"]


def test_of_a_name_in_the_hosts_file_the_denied_addresses_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    way = gateway("127.0.0.1/32:8080", hosts=tmp_path / "hosts")
    assert way.addresses("localhost", 8080, timeout_s=5) == ["127.0.0.1"]
    with pytest.raises(EgressDenied):
        way.addresses("localhost", 8081, timeout_s=5)


def test_the_next_address_is_tried_when_one_refuses(tmp_path: Path, listener: socket.socket) -> None:
    (tmp_path / "hosts").write_text("127.0.0.2 two\n127.0.0.1 two\n")
    way = gateway("127.0.0.0/8", hosts=tmp_path / "hosts")
    with way.dial("two", port_of(listener), timeout_s=5) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"


def test_a_server_that_drops_questions_for_aaaa_leaves_time_to_connect(
    name_server: NameServer, listener: socket.socket
) -> None:
    name_server.add("www.test. 60 IN A 127.0.0.1")
    name_server.silent.add(("www.test.", "AAAA"))
    way = gateway("127.0.0.1/32", names=name_server)
    way.dial("www.test", port_of(listener), timeout_s=4).close()


def test_a_closed_port_is_a_failed_connect(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    with pytest.raises(ConnectFailed, match="refused"):
        gateway("127.0.0.0/8").dial("127.0.0.1", port, timeout_s=5)


def test_a_connect_without_an_answer_ends_with_the_callers_time() -> None:
    with full_listener() as port, pytest.raises(TimedOut):
        gateway("127.0.0.0/8").dial("127.0.0.1", port, timeout_s=0.1)


def test_a_connect_without_an_answer_ends_with_the_settings_bound() -> None:
    with full_listener() as port, pytest.raises(ConnectFailed, match="timed out"):
        gateway("127.0.0.0/8", bound_s=0.1).dial("127.0.0.1", port, timeout_s=60)


def test_a_cancel_ends_a_connect_under_way() -> None:
    token = Noticing()
    with full_listener() as port, ThreadPoolExecutor(1) as pool:
        way = gateway("127.0.0.0/8", bound_s=60)
        dialling = pool.submit(way.dial, "127.0.0.1", port, timeout_s=60, cancelled=token)
        assert token.waited_on.wait(10)
        token.set()
        assert isinstance(dialling.exception(10), ConnectFailed)


def test_names_that_cannot_be_resolved_say_why(name_server: NameServer) -> None:
    name_server.silent.add("silent.test.")
    way = gateway(names=name_server)
    with pytest.raises(NameNotFound):
        way.dial("none.test", 80, timeout_s=5)
    with pytest.raises(ResolverFailed):
        way.dial("silent.test", 80, timeout_s=0.1)


def settings(**values: str) -> Settings:
    return read({f"GAIA_{name}": value for name, value in values.items()})


def test_the_clusters_own_endpoints_are_refused_whatever_is_allowed() -> None:
    way = Gateway.from_settings(
        settings(
            REDIS_URL="redis://:secret@127.0.0.1:7001/0",
            RESULT_URL="redis://localhost:7002/0",
            EGRESS__ALLOW_CIDRS='["0.0.0.0/0", "::/0"]',
            FLOWER__PORT="7003",
            MONITOR__PORT="7004",
            WORKER__PORT="7005",
        )
    )
    for port in range(7001, 7006):
        for host in ("127.0.0.1", "127.0.0.2", "localhost", "0", "::1", "::ffff:127.0.0.1"):
            with pytest.raises(EgressDenied):
                way.addresses(host, port, timeout_s=5)
    assert way.addresses("127.0.0.1", 7006, timeout_s=5) == ["127.0.0.1"]


def test_a_redis_on_this_machine_is_forbidden_at_each_of_its_addresses() -> None:
    found = forbidden.endpoints(settings(REDIS_URL="redis://127.0.0.1:7001"))
    own = {address for address, port in found if port == 7001}
    assert {"127.0.0.1", "::1"} <= own
    assert len(own) >= len({each[4][0] for each in socket.getaddrinfo("localhost", 0)})


def test_a_redis_that_cannot_be_found_stops_the_start_and_tells_no_password() -> None:
    with pytest.raises(ResolverFailed) as caught:
        Gateway.from_settings(settings(REDIS_URL="redis://:secret@no-such-host.invalid:6379/0"))
    assert "secret" not in str(caught.value)


def test_one_process_shares_one_gateway() -> None:
    one = settings(REDIS_URL="redis://127.0.0.1:7001")
    assert Gateway.shared(one) is Gateway.shared(settings(REDIS_URL="redis://127.0.0.1:7001"))
    assert Gateway.shared(one) is not Gateway.shared(settings(REDIS_URL="redis://127.0.0.1:7009"))
