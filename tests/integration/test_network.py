"""The network queue through real workers, and between two hosts with a slow link where that is permitted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest

from gaia import Gaia, network
from gaia.errors import EgressDenied, LeaseLost, LimitExceeded, NameNotFound
from tests.support.cluster import ROOT, clean_environ, stop, worker
from tests.support.dns import NameServer
from tests.support.waiting import until
from tests.support.web import Site, reply


@pytest.fixture(scope="module")
def zone() -> Iterator[NameServer]:
    with NameServer() as server:
        server.add("www.test. 60 IN A 192.0.2.1", "www.test. 60 IN MX 10 mail.test.", "here.test. 60 IN A 127.0.0.1")
        yield server


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as server:
        server.routes["/"] = reply(b"hello")
        yield server


@pytest.fixture(scope="module")
def workers(redis_url: str, zone: NameServer, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two workers of the queue."""
    environ = {
        "GAIA_NETWORK__NAMESERVERS": json.dumps([zone.address]),
        "GAIA_NETWORK__PROBE_PORTS": json.dumps([str(site.port)]),
        "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
        "GAIA_LIMITS__HOST_CONNECTIONS": "2",
    }
    with ExitStack() as stack:
        for number in range(2):
            log = tmp_path_factory.mktemp("network") / f"{number}.log"
            stack.enter_context(worker(redis_url, "network", "--name", f"n{number}", log=log, **environ))
        yield


def test_names_are_resolved_one_and_many(workers: None, gaia: Gaia, zone: NameServer) -> None:
    assert gaia.submit(network.Resolve("www.test")).get(timeout=30).addresses == ("192.0.2.1",)
    assert gaia.submit(network.Resolve("www.test", "MX")).get(timeout=30).records == ("10 mail.test.",)
    found = gaia.submit(network.ResolveMany(("www.test", "none.test"))).get(timeout=30)
    assert found.items[0].unwrap().addresses == ("192.0.2.1",)
    assert isinstance(found.items[1].error, NameNotFound)


def test_a_flush_reaches_every_worker(workers: None, gaia: Gaia, zone: NameServer) -> None:
    zone.records["moved.test."] = ["moved.test. 60 IN A 192.0.2.1"]
    for _ in range(20):
        gaia.submit(network.Resolve("moved.test")).get(timeout=30)
    zone.records["moved.test."] = ["moved.test. 60 IN A 192.0.2.2"]
    gaia.submit(network.FlushDns()).get(timeout=30)

    def everywhere() -> bool:
        calls = [gaia.submit(network.Resolve("moved.test")) for _ in range(20)]
        return {each.get(timeout=30).addresses for each in calls} == {("192.0.2.2",)}

    until(everywhere, what="the new address from all workers")


def test_connections_are_leased_across_workers(workers: None, gaia: Gaia) -> None:
    call = network.AcquireConnection("a.test", timeout_s=0.001)
    first, second = (gaia.submit(call).get(timeout=30) for _ in range(2))
    with pytest.raises(LimitExceeded):
        gaia.submit(call).get(timeout=30)
    assert gaia.submit(network.Stats()).get(timeout=30).connections == 2
    for each in (first, second):
        gaia.submit(network.ReleaseConnection(each.lease)).get(timeout=30)
    with pytest.raises(LeaseLost):
        gaia.submit(network.ReleaseConnection(first.lease)).get(timeout=30)


def test_the_slots_of_a_holder_that_never_comes_back_are_free_after_their_time(workers: None, gaia: Gaia) -> None:
    taken = network.AcquireConnection("gone.test", ttl_s=1)
    for _ in range(2):
        gaia.submit(taken).get(timeout=30)

    def free() -> bool:
        try:
            lease = gaia.submit(network.AcquireConnection("gone.test", timeout_s=0.001)).get(timeout=30).lease
        except LimitExceeded:
            return False
        gaia.submit(network.ReleaseConnection(lease)).get(timeout=30)
        return True

    until(free, what="a free slot")


def test_probes_reach_what_is_allowed_and_nothing_else(workers: None, gaia: Gaia, site: Site, zone: NameServer) -> None:
    found = gaia.submit(network.ProbeHttp(site.url("/", "here.test"))).get(timeout=30)
    assert (found.status, found.address, found.size_bytes) == (200, "127.0.0.1", 5)
    assert gaia.submit(network.ProbeTcp("here.test", site.port)).get(timeout=30).address == "127.0.0.1"
    with pytest.raises(EgressDenied):
        gaia.submit(network.ProbeTcp("127.0.0.1", int(zone.address.partition(":")[2]))).get(timeout=30)


def test_bandwidth_and_health_are_told(workers: None, gaia: Gaia) -> None:
    assert gaia.submit(network.Throttle(10**9)).get(timeout=30).size_bytes == 10**9
    gaia.limits.set("job:slow", bytes_per_s=1000)

    def refused() -> bool:
        try:
            gaia.submit(network.Throttle(10**6, job="slow", timeout_s=1)).get(timeout=30)
        except LimitExceeded:
            return True
        return False

    until(refused, what="the limit in every worker")
    assert gaia.submit(network.Health()).get(timeout=30).state == "healthy"


# --- two hosts

BITS_PER_S = 8_000_000
BODY_BYTES = 500_000
HOSTS = ("10.77.0.1", "10.77.0.2")

SERVER = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "{BODY_BYTES}")
        self.end_headers()
        self.wfile.write(b"x" * {BODY_BYTES})
    def log_message(self, *_): pass
server = http.server.HTTPServer(("{HOSTS[1]}", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"""

CLIENT = f"""
import json
from dataclasses import asdict
import certifi
from config.settings import Limits as Defaults
from gaia.contracts import network
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy
from tasks.network.service import NetworkService
from tasks.scope import Scope
service = NetworkService(gateway=Gateway(Judge(["10.77.0.0/24"]), Resolver()),
    limits=Limits.in_memory(Policy(Defaults(), {{}})), ports=["8080"], ca_file=certifi.where(), worker="x", capacity=1)
print(json.dumps([
    asdict(service.ping(network.Ping("{HOSTS[1]}"), Scope.lasting(30))),
    asdict(service.ping(network.Ping("10.77.0.9", port=8080, timeout_s=0.5), Scope.lasting(30))),
    asdict(service.probe_http(network.ProbeHttp("http://{HOSTS[1]}:8080/", timeout_s=30), Scope.lasting(60))),
]))
"""


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces, and a link of 8 Mbit/s between them."""
    if os.geteuid() != 0:
        pytest.skip("NOT CHECKED: network namespaces need root")
    tag = token_hex(3)
    names = (f"gaia-a-{tag}", f"gaia-b-{tag}")
    links = (f"ga{tag}", f"gb{tag}")
    try:
        try:
            for each in names:
                run("ip", "netns", "add", each)
            run("ip", "link", "add", links[0], "netns", names[0], "type", "veth", "peer", links[1], "netns", names[1])
            for name, link, address in zip(names, links, HOSTS, strict=True):
                run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
                run("ip", "-n", name, "link", "set", link, "up")
            shape = ("rate", f"{BITS_PER_S}bit", "burst", "16kb", "latency", "100ms")
            run("ip", "netns", "exec", names[1], "tc", "qdisc", "add", "dev", links[1], "root", "tbf", *shape)
            permit = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"
            run("ip", "netns", "exec", names[0], "sh", "-c", permit)
        except (OSError, subprocess.CalledProcessError) as failure:
            pytest.skip(f"NOT CHECKED: no two hosts can be made here: {failure}")
        yield names
    finally:
        for each in names:
            subprocess.run(["ip", "netns", "del", each], capture_output=True, check=False)


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


def test_probes_between_two_hosts_see_the_slow_link(hosts: tuple[str, str], tmp_path: Path) -> None:
    environ = {**clean_environ(), "PYTHONPATH": str(ROOT)}
    there = ["ip", "netns", "exec", hosts[1], sys.executable, "-c", SERVER]
    here = ["ip", "netns", "exec", hosts[0], sys.executable, "-c", CLIENT]
    with subprocess.Popen(there, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            done = subprocess.run(here, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=90, check=False)
        finally:
            stop(server)
    assert done.returncode == 0, done.stderr
    near, nobody, page = json.loads(done.stdout)
    assert (near["method"], near["received"]) == ("icmp", 3)
    assert nobody["received"] == 0
    assert page["size_bytes"] == BODY_BYTES
    # What the link lets through in that time, and its burst, is no less than the body.
    assert page["total_s"] * BITS_PER_S / 8 + 2 * 16_384 >= BODY_BYTES
