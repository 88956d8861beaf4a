"""The bandwidth of a host, held over all connections through the proxy."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from config.settings import Limits as Defaults
from gaia.errors import Unreachable
from gaia.store.limits import Limit
from tasks.egress.pacing import Pacer
from tasks.egress.proxy import Proxy
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy, levels
from tasks.limits.protocols import Away
from tasks.limits.throttle import Granted, Throttle
from tests.support.waiting import until

WAIT_S = 30.0
RATE = 1_000_000
BURST = 80_000
"""What may move at once by default: 80 ms of the rate."""
SIZE = 300_000


class Loopback:
    """Leads every name to one server."""

    def __init__(self, port: int) -> None:
        self._port = port

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        del host, port
        return socket.create_connection(("127.0.0.1", self._port), timeout_s)


def bandwidths() -> Callable[[str], Throttle]:
    given = {
        "slow.test": Limit(bytes_per_s=float(RATE), burst_bytes=BURST),
        "crawling.test": Limit(bytes_per_s=1000.0, burst_bytes=1000),
    }
    limits = Limits.in_memory(Policy(Defaults(), given))
    return lambda host: Throttle(limits, levels(host=host), if_away=Away.FAIL_OPEN)


@pytest.fixture
def port() -> Iterator[int]:
    """A server that sends `SIZE` bytes to whoever connects."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=send, args=(connection,), daemon=True).start()

        def send(connection: socket.socket) -> None:
            with connection:
                connection.sendall(b"x" * SIZE)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)


@pytest.fixture
def proxy(port: int) -> Iterator[Proxy]:
    with closing(Proxy(Loopback(port), bandwidth=bandwidths())) as found:
        yield found


def tunnel(proxy: Proxy, host: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)
    client.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
    return client


def load(proxy: Proxy, host: str) -> tuple[int, float]:
    """Fetch all that comes; give how many bytes, and the time of the last."""
    got = b""
    with tunnel(proxy, host) as client:
        while chunk := client.recv(65536):
            got += chunk
    return len(got.partition(b"\r\n\r\n")[2]), time.monotonic()


def test_what_comes_from_a_host_is_no_faster_than_its_bandwidth(proxy: Proxy) -> None:
    began = time.monotonic()
    size, ended = load(proxy, "slow.test")
    assert size == SIZE
    assert ended - began >= (SIZE - BURST) / RATE


def test_connections_of_a_host_share_its_bandwidth_and_all_come_to_their_end(proxy: Proxy) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: load(proxy, "slow.test"), range(6)))
    assert [size for size, _ in found] == [SIZE] * 6
    assert max(ended for _, ended in found) - began >= (6 * SIZE - BURST) / RATE


def test_a_host_without_a_bandwidth_does_not_wait_for_one_that_has(port: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        with closing(Proxy(Loopback(port), bandwidth=bandwidths())) as proxy:
            slow = [pool.submit(load, proxy, "crawling.test") for _ in range(3)]
            until(lambda: any(each.name == "gaia-proxy-pace" for each in threading.enumerate()))
            assert load(proxy, "fast.test")[0] == SIZE
            assert not any(each.done() for each in slow)
        assert all(each.result(WAIT_S)[0] < SIZE for each in slow)


def test_what_goes_to_a_host_counts_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        closing(Proxy(Loopback(listener.getsockname()[1]), bandwidth=bandwidths())) as proxy,
        tunnel(proxy, "slow.test") as client,
    ):
        server, _ = listener.accept()
        began, got = time.monotonic(), 0
        with server, ThreadPoolExecutor(1) as pool:
            pool.submit(client.sendall, b"x" * SIZE)
            while got < SIZE:
                got += len(server.recv(65536))
        assert time.monotonic() - began >= (SIZE - BURST) / RATE


def test_close_ends_connections_that_wait_for_bandwidth_and_the_thread(port: int) -> None:
    before = set(threading.enumerate())
    proxy = Proxy(Loopback(port), bandwidth=bandwidths())
    with tunnel(proxy, "slow.test") as client:
        until(lambda: any(each.name == "gaia-proxy-pace" for each in set(threading.enumerate()) - before))
        proxy.close()
        while client.recv(65536):
            pass
    assert not [each for each in set(threading.enumerate()) - before if each.name.startswith("gaia-proxy")]


class Bandwidth:
    """Grants what the test says, in its order; then nothing for a minute."""

    def __init__(self, *answers: int | Unreachable) -> None:
        self._answers = list(answers)

    def rate_per_s(self) -> float:
        return 1000.0

    def ask(self, wanted_bytes: int, now: float) -> Granted:
        del wanted_bytes
        found = self._answers.pop(0) if self._answers else 0
        if isinstance(found, Unreachable):
            raise found
        return Granted(found, now if found else now + 60)


def test_what_was_taken_and_did_not_move_may_move_later() -> None:
    woken = threading.Event()
    pacer = Pacer(lambda _: Bandwidth(100), woken.set)
    assert pacer.take("a.test", 70) == 0
    assert woken.wait(WAIT_S)
    assert pacer.take("a.test", 70) == 70
    pacer.give_back("a.test", 50)
    assert (pacer.credit("a.test"), pacer.take("a.test", 200), pacer.take("a.test", 1)) == (80, 80, 0)
    pacer.close()


def test_limits_that_cannot_be_asked_are_asked_again() -> None:
    woken = threading.Event()
    pacer = Pacer(lambda _: found, woken.set)
    found = Bandwidth(Unreachable("redis", "down"), 100)
    assert pacer.take("a.test", 10) == 0
    assert woken.wait(WAIT_S)
    assert pacer.take("a.test", 10) == 10
    pacer.close()
